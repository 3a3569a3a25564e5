"""Video files, by presentation time: every frame in order, or the one that is shown at a moment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from keystep.errors import InputError
from keystep.extraction.video.decoding import Track, opened
from keystep.extraction.video.frames import LARGEST, Frame, Renderer
from keystep.extraction.video.seeking import Cursor, Table, read_table
from keystep.extraction.video.tracks import about_others


@dataclass(frozen=True)
class VideoInfo:
    """What a file says of its video.

    height, width: of the first frame, upright, with square pixels. rate: average frames a second. usual_rate: the same
    without holes. frames: how many its container lists. duration: seconds of all tracks as the container states or
    estimates it. start: seconds on the file's own clock that count as 0. begins: seconds from there at which the
    video's first frame is due, whether it can be decoded or not. timed: False where frames have no times (a raw
    stream), so that they are taken to follow each other at ``rate``.
    """

    path: Path
    height: int
    width: int
    rate: Fraction | None
    usual_rate: Fraction | None
    frames: int | None
    duration: Fraction | None
    codec: str
    start: Fraction
    begins: Fraction
    timed: bool


class VideoFile:
    """A video file as a `FrameSource`, see `open_video`. It is open only while frames are being read.

    info: what the file says. damage: what was lost, a line each, known once `frames` has come to its end; what remains
    should be marked as partial. notes: what else deserves a look, such as other tracks, and then jumps of its clock.
    """

    def __init__(self, path: Path) -> None:
        self.damage: list[str] = []
        self._table: Table | None = None
        self._listed = False
        with opened(path) as track:
            self._index, self._others = track.stream.index, about_others(track.container, track.stream)
            self.notes = self._others
            self._pixel_aspect = track.stream.sample_aspect_ratio or Fraction(1)
            self._first, decoded = _first_frame(track)
            frame = Renderer(self._pixel_aspect, str(path)).frame(0, self._first, decoded)
            start = _start(track, self._first)
            self.info = VideoInfo(
                path=path,
                height=frame.height,
                width=frame.width,
                rate=track.rate,
                usual_rate=track.usual_rate,
                frames=track.frames,
                duration=track.duration,
                codec=track.stream.codec_context.name,
                start=start,
                begins=_due(track, self._first) - start,
                timed=track.clock.kind != "none",
            )

    def frames(self) -> Iterator[Frame]:
        """All frames that can be decoded, in the order of their times; each call reads the file anew.

        Time 0 is where the first of sound and video begins. Frames whose times do not rise are left out.
        """
        renderer, start = self._renderer(), self.info.start
        with opened(self.info.path, self._index) as track:
            for index, (time, decoded) in enumerate(track.timed(track.packets())):
                yield renderer.frame(index, time - start, decoded)
            self.damage, self.notes = track.damage(start), [*self._others, *track.notes(start)]

    def at(self, times: Iterable[Fraction]) -> Iterator[Frame]:
        """The frame shown at each moment, as if all frames before it had been decoded.

        Decodes on where moments rise slowly; else it looks for a key frame, once all packets have been listed (which
        reads the file, but decodes nothing). Files without proper times, and those known to be damaged, are read from
        the start. Behind damage that is not known yet, `Frame.index` counts what was lost.
        """
        opening = partial(opened, self.info.path, self._index)
        with closing(Cursor(opening, self.info.start, self._renderer(), self._places)) as cursor:
            for moment in times:
                yield cursor.shown(moment)

    def _renderer(self) -> Renderer:
        return Renderer(self._pixel_aspect, str(self.info.path))

    def _places(self) -> Table | None:
        if self.damage or not self.info.timed:
            return None
        if not self._listed:
            with opened(self.info.path, self._index) as track:
                self._table = read_table(track, self._first)
            self._listed = True
        return self._table


def open_video(path: str | Path) -> VideoFile:
    """Look at a video file and decode its first frame.

    Raises:
        InputError: no such file, a folder, an empty file; not a video, sound only, cut off before its index; a codec
            that cannot be decoded, not one frame that can be; PyAV is not installed.
    """
    return VideoFile(Path(path))


def _first_frame(track: Track) -> tuple[Fraction, Any]:
    for found in track.timed(track.packets()):
        return found
    context = track.stream.codec_context
    doubt = "" if context.width else f" (is it larger than {LARGEST:,} pixels?)"
    raise InputError(
        f"{track.path}: has a {context.name} video track, but not one of its frames can be decoded{doubt}; copy or "
        "download it again"
    )


def _start(track: Track, first: Fraction) -> Fraction:
    """Seconds on the file's clock at which the first of its sound and its video begins.

    Sound before 0 is what an encoder needs to get going; no player lets it be heard.
    """
    begins = [_due(track, first)]
    for sound in track.container.streams.audio:
        if sound.start_time is not None:
            begins.append(max(Fraction(0), sound.start_time * sound.time_base))
    return min(begins)


def _due(track: Track, first: Fraction) -> Fraction:
    """Seconds on the file's clock at which its video begins, even if the first frame that can be decoded is later."""
    stated = track.stream.start_time
    return first if stated is None else min(first, stated * track.stream.time_base)
