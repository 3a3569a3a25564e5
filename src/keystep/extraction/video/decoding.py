"""The seam to PyAV: opening a file or saying in one line why not, and decoding past what is damaged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

from keystep.errors import InputError, one_line
from keystep.extraction.video.boxes import is_fragmented, second_file
from keystep.extraction.video.clock import Jump, TrackClock
from keystep.extraction.video.frames import LARGEST, check_size
from keystep.extraction.video.tracks import choose, video_tracks
from keystep.reading import check_regular

STATE_DURATION = {"matroska", "flv", "asf", "avi"}
"""Containers whose header keeps the duration of the whole when the end is cut off; others tell what is there."""
GAP = 1 << 14
"""Bytes between two packets of a Matroska file from which on something is missing there; usually there are 30."""
JUMP = Fraction(10)
"""Seconds forwards that are a jump of the clock, in containers whose clock may jump."""
HOLE, LONG_HOLE = Fraction(2), Fraction(60)
"""Seconds without a new picture that are worth a note where frames usually follow each other sooner, and anywhere."""
UNREAD = 0.05
"""Share of an FLV file that may lie behind its last frame."""
SOME = 3
"""Places that a note names."""


def import_av() -> ModuleType:
    """PyAV, which is an extra."""
    try:
        import av
    except ImportError as error:
        raise InputError("reading video needs PyAV; install it with: pip install 'keystep[video]'") from error
    return av


class Track:
    """The video track of an open file, and what comes out of it. Times here are in seconds, see `TrackClock`.

    What went wrong is counted: errors (packets that cannot be decoded), damaged (frames shown with missing parts),
    misplaced (frames dropped because of their time), skipped (bytes where no packet could be made out), stopped (why
    reading ended early). hidden: packets that the container's edits keep from being shown. shown: frames given out.
    holes: times between which no new frame is shown for long.
    """

    def __init__(self, path: Path, container: Any, stream: Any) -> None:
        self.path, self.container, self.stream = path, container, stream
        self.errors = self.damaged = self.skipped = self.misplaced = self.hidden = self.shown = 0
        self._reached, self._misplaced_at = 0, Fraction(0)
        self.holes: list[tuple[Fraction, Fraction]] = []
        self._ends: dict[int, int] = {}
        self.stopped: str | None = None
        self._formats = set(container.format.name.split(","))
        jumps = may_jump(container)
        self.clock = TrackClock(stream.time_base, lambda: self.rate, JUMP if jumps else None, wraps=jumps)

    def packets(self) -> Iterator[Any]:
        """The compressed frames as they lie in the file, up to its end or to where it cannot be read any more."""
        tracks = self.container.streams if self.states_duration else [self.stream]
        reached: int | None = None
        try:
            for packet in self.container.demux(*tracks):
                if packet.size == 0:  # PyAV's mark of the end, or an empty frame, which a decoder takes for the end
                    continue
                self._count(packet, reached)
                reached = None if packet.pos is None else packet.pos + packet.size
                self._reached = max(self._reached, reached or 0)
                if packet.stream_index == self.stream.index:
                    self._take(packet)
                    yield packet
        except import_av().FFmpegError as error:
            self.stopped = one_line(error.strerror, 80)

    def _take(self, packet: Any) -> None:
        self.hidden += packet.is_discard
        first = self.clock.kind is None
        self.clock.take(packet)
        if first and self.clock.kind == "shown":  # that time was not made up, so those that are missing may be
            self.container.flags |= import_av().container.Flags.gen_pts.value

    def _count(self, packet: Any, reached: int | None) -> None:
        """Take down what a packet says. reached: where in the file the one before it ends."""
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is not None:
            end = stamp + (packet.duration or 0)
            self._ends[packet.stream_index] = max(end, self._ends.get(packet.stream_index, end))
        if "matroska" in self._formats and reached is not None and packet.pos is not None:
            gap = packet.pos - reached
            self.skipped += gap if gap > GAP else 0

    def seek(self, place: int) -> bool:
        """Whether reading can be taken up near a time in ticks."""
        try:
            self.container.seek(place, stream=self.stream)
        except import_av().FFmpegError:
            return False
        self.clock.sought()
        return True

    def decoded(self, packets: Iterable[Any]) -> Iterator[Any]:
        """PyAV's frames in the order of presentation, packet by packet: one error does not end the video."""
        failure = import_av().FFmpegError
        for packet in chain(packets, [None]):  # None: the decoder gives out what it still holds
            try:
                frames = self.stream.codec_context.decode(packet)
            except failure:
                self.errors += 1
                if packet is not None:
                    self.clock.lost(packet)
                continue
            yield from frames

    def timed(self, packets: Iterable[Any]) -> Iterator[tuple[Fraction, Any]]:
        """Frames with rising times. One that is not behind its predecessor was never shown, and is dropped."""
        before: Fraction | None = None
        longest = max(HOLE, min(LONG_HOLE, 5 * self.clock.step))
        for frame in self.decoded(packets):
            time = self.clock.time(frame)
            if time is None:
                self._misplaced_at = self._misplaced_at if self.misplaced else before or Fraction(0)
                self.misplaced += 1
                continue
            if before is not None and time - before > longest:
                self.holes.append((before, time))
            before = time
            self.shown += 1
            self.damaged += frame.is_corrupt
            yield time, frame

    def notes(self, start: Fraction) -> list[str]:
        """What deserves a look though nothing was lost, a line each, once all packets have been read.

        start: the time that counts as 0.
        """
        return [*_about_jumps(self.clock.jumps, start), *_about_holes(self.holes, start)]

    def damage(self, start: Fraction) -> list[str]:
        """What was lost, a line each, once all packets have been read."""
        expected = None if self.listed is None else self.listed - self.hidden
        decoded, stated, end = self.shown + self.misplaced, self.duration, f"{float(self.end - start):.1f} s"
        slack = max(Fraction(1, 2), 2 * self.clock.step)
        lines = []
        if expected is not None and decoded < expected:
            lines.append(f"{decoded} of {expected} frames could be decoded")
        elif self.errors:
            lines.append(f"packets that could not be decoded: {self.errors}")
        elif self.clock.behind > slack:
            lines.append(f"no picture could be decoded in the last {float(self.clock.behind):.1f} s")
        if self.skipped:
            lines.append(f"bytes that could not be made sense of: {self.skipped}")
        if self.states_duration and stated is not None and self.end < stated - slack:
            lines.append(f"ends at {end} of stated {float(stated):.1f} s")
        if self.stopped is not None:
            lines.append(f"cannot be read beyond {end}: {self.stopped}")
        if self.shown == 1 and stated is not None and stated > max(Fraction(1), 2 * self.clock.step):
            lines.append(f"a single picture, where {float(stated):.1f} s are stated")
        if self.damaged:
            lines.append(f"frames with damaged parts: {self.damaged}")
        if self.misplaced:
            place = f"the first at {float(self._misplaced_at - start):.1f} s"
            lines.append(f"frames left out because their times do not rise: {self.misplaced}, {place}")
        if unread := self._unread():
            lines.append(
                f"the last {unread:,} bytes are not read, perhaps a second file behind the first: cut them apart"
            )
        return lines

    def _unread(self) -> int:
        """Bytes behind what can be read, where they should be video."""
        size = self.path.stat().st_size
        if "mp4" in self._formats:
            return size - (second_file(self.path) or size)
        unread = size - self._reached
        return unread if "flv" in self._formats and unread > UNREAD * size else 0

    @property
    def end(self) -> Fraction:
        """When the last packet of any track ends, of those read so far."""
        tracks = self.container.streams
        return max((ticks * tracks[index].time_base for index, ticks in self._ends.items()), default=Fraction(0))

    @property
    def rate(self) -> Fraction | None:
        """Average frames a second."""
        rate: Fraction | None = self.stream.average_rate or self.stream.guessed_rate or None
        return rate

    @property
    def usual_rate(self) -> Fraction | None:
        """Frames a second where none are missing, as FFmpeg guesses it: a hole changes the average, and not this."""
        rate: Fraction | None = self.stream.guessed_rate or self.rate
        return rate

    @property
    def listed(self) -> int | None:
        """How many frames the container has listed so far; what its edits cut off is not in it.

        A fragmented MP4 file lists those of the fragments that have been read.
        """
        return len(self.stream.index_entries) or None if "mp4" in self._formats else None

    @property
    def frames(self) -> int | None:
        """How many frames the container lists, where its list is known to be of all."""
        return None if self.listed is None or is_fragmented(self.path) else self.listed

    @property
    def duration(self) -> Fraction | None:
        """Seconds that the container states, of all tracks; those of the video in AVI, which states no others."""
        if "avi" in self._formats and self.stream.frames and self.rate:
            return Fraction(self.stream.frames) / self.rate
        stated = self.container.duration
        return None if stated is None else Fraction(stated, 1_000_000)

    @property
    def states_duration(self) -> bool:
        """Whether the stated duration is that of the whole where the file has been cut off."""
        return not self._formats.isdisjoint(STATE_DURATION)


def may_jump(container: Any) -> bool:
    """Whether the container's clock may jump, and begins anew after 26 hours: MPEG-TS and its kin."""
    return bool(container.format.flags & import_av().format.Flags.ts_discont.value)


@contextmanager
def opened(path: Path, track: int | None = None) -> Iterator[Track]:
    """A video track of a file: the one of that index, or the main one, see `tracks.choose`.

    Raises:
        InputError: missing, not a video, without a video track, of a codec that cannot be decoded, or of larger
            pictures than can be handled.
    """
    with _container(path) as container:
        if track is None:
            track = _main_track(path, container)
        stream = container.streams[track]
        context = stream.codec_context
        check_size(str(path), context.height, context.width)
        stream.thread_type = "AUTO"
        context.options = {"max_pixels": str(LARGEST)}
        container.flags &= ~import_av().container.Flags.gen_pts.value
        yield Track(path, container, stream)


def _main_track(path: Path, container: Any) -> int:
    found = video_tracks(str(path), container)
    if len(found) == 1:
        return int(found[0].index)
    with _container(path) as other:  # what is read to choose would be missing in the first one
        return int(choose(other, [other.streams[stream.index] for stream in found]).index)


@contextmanager
def _container(path: Path) -> Iterator[Any]:
    av = import_av()
    _check_file(path)
    # "file:" and the list: a name is never an address, and a playlist never fetches one
    options = {"protocol_whitelist": "file", "max_pixels": str(LARGEST)}
    try:
        container = av.open(f"file:{path}", metadata_errors="replace", options=options)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path}: {_reason(path, error)}") from error
    with container:
        yield container


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path}: a folder; give the video files in it")
    if not path.exists():
        raise InputError(f"{path}: no such video file")
    if check_regular(path) == 0:
        raise InputError(f"{path}: an empty file of zero bytes; copy or download it again")


def _reason(path: Path, error: Exception) -> str:
    """Why a file cannot be opened, and what to do."""
    if isinstance(error, PermissionError):
        return "may not be read; change its permissions"
    with path.open("rb") as file:
        begins_as_mp4 = file.read(8)[4:] == b"ftyp"
    if begins_as_mp4:
        return (
            "an MP4 file without a readable index (moov), as a recording or a copy leaves it that was cut off; copy it "
            "again, or repair it with a tool such as untrunc"
        )
    said = getattr(error, "strerror", None) or error
    return f"not a video that can be read ({one_line(said, 80)}); give a video file"


def _about_jumps(jumps: Sequence[Jump], start: Fraction) -> list[str]:
    if not jumps:
        return []
    places = [f"by {float(jump.seconds):+.1f} s at {float(jump.time - start):.1f} s" for jump in jumps]
    return [
        f"its clock jumps {_some(places)}; what is behind is taken to follow at once: if there was a pause, its times "
        "are early by that much"
    ]


def _about_holes(holes: Sequence[tuple[Fraction, Fraction]], start: Fraction) -> list[str]:
    if not holes:
        return []
    places = [f"from {float(begin - start):.1f} to {float(end - start):.1f} s" for begin, end in holes]
    return [f"one picture is shown {_some(places)}"]


def _some(places: Sequence[str]) -> str:
    """The first few of many."""
    more = len(places) - SOME
    return ", ".join(places[:SOME]) + (f" and {more} times more" if more > 0 else "")
