"""Video files: all frames in order of presentation, or the frame shown at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from keystep.errors import InputError
from keystep.extraction.video.decoding import JUMP, Track, opened
from keystep.extraction.video.frames import LARGEST, Frame, Renderer
from keystep.extraction.video.seeking import Cursor, FrameTable, read_table
from keystep.extraction.video.tracks import note_other_tracks


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video file.

    Attributes:
        path: of the file.
        height: of the first frame, upright, in square pixels.
        width: of the first frame, upright, in square pixels.
        rate: average frame rate in Hz, if known.
        usual_rate: frame rate in Hz without holes, if known.
        frames: number of frames listed by the container, if complete.
        duration: seconds of all tracks, as stated or estimated by the container.
        codec: FFmpeg's name of it.
        start: seconds on the file's own clock that count as 0.
        begins: seconds after ``start`` at which the first frame is due, even if it cannot be decoded.
        timed: False if frames have no times (a raw stream) and are spaced by ``rate``.
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


def count_frames(path: Path) -> int:
    """Number of frames in the main track of a file, which is read without decoding.

    Raises:
        InputError: no such file, or no readable video.
    """
    with opened(path) as track:
        return sum(not track.is_invisible(packet) for packet in track.packets())


class NoFrameError(InputError):
    """No frame of a video can be decoded."""


class VideoFile:
    """A video file, see `open_video`. It is only open while frames are read.

    Attributes:
        info: properties of the file.
        damage: what was lost, one line each; complete after iterating over `frames`.
        notes: other remarks, such as on further tracks, and after iterating, on jumps of the clock.
    """

    def __init__(self, path: Path, jump: Fraction | None = JUMP, threads: bool = True) -> None:
        self.damage: list[str] = []
        self._table: FrameTable | None = None
        self._listed = False
        self._jump, self._threads = jump, threads
        with opened(path, jump=jump, threads=threads) as track:
            self._index, self._others = track.stream.index, note_other_tracks(track.container, track.stream)
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
        """Decode all frames in order of presentation; each call reads the file from the start.

        Time 0 is the start of sound or video, whichever is first. Frames with non-increasing times are dropped.
        """
        renderer, start, given = self._renderer(), self.info.start, 0
        while True:
            with self._opening() as track:
                for index, (time, decoded) in enumerate(track.timed(track.packets())):
                    if index >= given:
                        given = index + 1
                        yield renderer.frame(index, time - start, decoded)
                self.damage, self.notes = track.damage(start), [*self._others, *track.notes(start)]
            if not (track.unfinished and self._threads):
                return
            self._threads = False  # with threads, frames before damage at the end are lost

    def at(self, times: Iterable[Fraction]) -> Iterator[Frame]:
        """Yield the frame shown at each time, identical to decoding from the start.

        Decoding continues up to times shortly ahead; for others it seeks to a key frame, after listing all packets
        (which reads the file without decoding). Files without usable times, and those known to be damaged, are decoded
        from the start. After damage that is not known yet, `Frame.index` also counts lost frames.

        Args:
            times: seconds, in any order.
        """
        with closing(Cursor(self._opening, self.info.start, self._renderer(), self._frame_table)) as cursor:
            for time in times:
                yield cursor.shown(time)

    def _opening(self) -> AbstractContextManager[Track]:
        return opened(self.info.path, self._index, jump=self._jump, threads=self._threads)

    def _renderer(self) -> Renderer:
        return Renderer(self._pixel_aspect, str(self.info.path))

    def _frame_table(self) -> FrameTable | None:
        if self.damage or not self.info.timed:
            return None
        if not self._listed:
            with self._opening() as track:
                self._table = read_table(track, self._first)
            self._listed = True
        return self._table


def open_video(path: str | Path, jump: Fraction | None = JUMP) -> VideoFile:
    """Open a video file and decode its first frame.

    Args:
        path: of the file.
        jump: seconds ahead that count as a jump of the clock in MPEG-TS; None: it never jumps ahead.

    Raises:
        InputError: no such file, no readable video, an unsupported codec, no decodable frame, pictures that are too
            large, or PyAV is not installed.
    """
    try:
        return VideoFile(Path(path), jump)
    except NoFrameError:
        return VideoFile(Path(path), jump, threads=False)  # see `Track.unfinished`


def _first_frame(track: Track) -> tuple[Fraction, Any]:
    for found in track.timed(track.packets()):
        return found
    context = track.stream.codec_context
    doubt = "" if context.width else f" (is it larger than {LARGEST:,} pixels?)"
    raise NoFrameError(
        f"{track.path}: no frame of its {context.name} video track can be decoded{doubt}; copy or download it again"
    )


def _start(track: Track, first: Fraction) -> Fraction:
    """Start of sound or video on the file's clock, in seconds, whichever is first.

    Sound before 0 is encoder priming, which players do not play.
    """
    begins = [_due(track, first)]
    for sound in track.container.streams.audio:
        if sound.start_time is not None:
            begins.append(max(Fraction(0), sound.start_time * sound.time_base))
    return min(begins)


def _due(track: Track, first: Fraction) -> Fraction:
    """Start of the video on the file's clock, in seconds, even if the first decodable frame is later."""
    stated = track.stream.start_time
    return first if stated is None else min(first, stated * track.stream.time_base)
