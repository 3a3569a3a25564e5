"""The seam to PyAV: opening a file or saying in one line why not, and decoding past what is damaged."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

from keystep.errors import InputError, one_line

STATE_DURATION = {"matroska", "flv", "asf", "avi"}
"""Containers whose header keeps the duration of the whole when the end is cut off; others tell what is there."""
GAP = 1 << 14
"""Bytes between two packets of a Matroska file from which on something is missing there; usually there are 30."""
GUESSED_RATE = Fraction(25)
"""Frames a second where a file has neither times nor a rate."""


def import_av() -> ModuleType:
    """PyAV, which is an extra."""
    try:
        import av
    except ImportError as error:
        raise InputError("reading video needs PyAV; install it with: pip install 'keystep[video]'") from error
    return av


class Track:
    """The video track of an open file, and what comes out of it. Times here are FFmpeg's own, in seconds.

    What went wrong is counted: errors (packets that cannot be decoded), damaged (frames shown with missing parts),
    misplaced (frames dropped because of their time), skipped (bytes where no packet could be made out), stopped (why
    reading ended early). hidden: packets that the container's edits keep from being shown. shown: frames given out.
    only_decoding_times: the file says when frames are decoded, but not when they are shown, as AVI does; then the n-th
    frame is taken to be shown when the n-th packet is decoded, counted from the first.
    """

    def __init__(self, path: Path, container: Any, stream: Any) -> None:
        self.path, self.container, self.stream = path, container, stream
        self.errors = self.damaged = self.skipped = self.misplaced = self.hidden = self.shown = 0
        self._ends: dict[int, int] = {}
        self.stopped: str | None = None
        self._formats = set(container.format.name.split(","))
        self.only_decoding_times = "avi" in self._formats and bool(stream.codec_context.has_b_frames)
        self._decoding_times: deque[int] = deque()

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
                if packet.stream_index == self.stream.index:
                    yield packet
        except import_av().FFmpegError as error:
            self.stopped = one_line(error.strerror, 80)

    def _count(self, packet: Any, reached: int | None) -> None:
        """Take down what a packet says. reached: where in the file the one before it ends."""
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is not None:
            end = stamp + (packet.duration or 0)
            self._ends[packet.stream_index] = max(end, self._ends.get(packet.stream_index, end))
        if "matroska" in self._formats and reached is not None and packet.pos is not None:
            gap = packet.pos - reached
            self.skipped += gap if gap > GAP else 0
        if packet.stream_index == self.stream.index:
            self.hidden += packet.is_discard
            if self.only_decoding_times and packet.dts is not None:
                self._decoding_times.append(packet.dts)

    def decoded(self, packets: Iterable[Any]) -> Iterator[Any]:
        """PyAV's frames in the order of presentation, packet by packet: one error does not end the video."""
        failure = import_av().FFmpegError
        for packet in chain(packets, [None]):  # None: the decoder gives out what it still holds
            try:
                frames = self.stream.codec_context.decode(packet)
            except failure:
                self.errors += 1
                if self._decoding_times:
                    self._decoding_times.popleft()
                continue
            yield from frames

    def timed(self, packets: Iterable[Any]) -> Iterator[tuple[Fraction, Any]]:
        """Frames with rising times. One that is not behind its predecessor was never shown, and is dropped."""
        before: Fraction | None = None
        for frame in self.decoded(packets):
            pts = self._decoding_times.popleft() if self._decoding_times else frame.pts
            if pts is not None:
                time = pts * self.stream.time_base
            else:
                time = Fraction(0) if before is None else before + 1 / (self.rate or GUESSED_RATE)
            if before is not None and time <= before:
                self.misplaced += 1
                continue
            before = time
            self.shown += 1
            self.damaged += frame.is_corrupt
            yield time, frame

    def damage(self, start: Fraction) -> list[str]:
        """What was lost, a line each, once all packets have been read."""
        expected = None if self.frames is None else self.frames - self.hidden
        decoded, stated, end = self.shown + self.misplaced, self.duration, f"{float(self.end - start):.1f} s"
        slack = max(Fraction(1, 2), 2 / (self.rate or GUESSED_RATE))
        lines = []
        if expected is not None and decoded < expected:
            lines.append(f"{decoded} of {expected} frames could be decoded")
        elif self.errors:
            lines.append(f"packets that could not be decoded: {self.errors}")
        if self.skipped:
            lines.append(f"bytes that could not be made sense of: {self.skipped}")
        if self.states_duration and stated is not None and self.end < stated - slack:
            lines.append(f"ends at {end} of stated {float(stated):.1f} s")
        if self.stopped is not None:
            lines.append(f"cannot be read beyond {end}: {self.stopped}")
        if self.damaged:
            lines.append(f"frames with damaged parts: {self.damaged}")
        if self.misplaced:
            lines.append(f"frames left out because their times do not rise: {self.misplaced}")
        return lines

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
    def frames(self) -> int | None:
        """How many frames the container lists, where its list is of all; what its edits cut off is not in it."""
        return len(self.stream.index_entries) or None if "mp4" in self._formats else None

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


@contextmanager
def opened(path: Path) -> Iterator[Track]:
    """The first video track of a file.

    Raises:
        InputError: missing, not a video, without a video track, or of a codec that cannot be decoded.
    """
    av = import_av()
    _check_file(path)
    try:  # "file:" and the list: a name is never an address, and a playlist never fetches one
        container = av.open(f"file:{path}", metadata_errors="replace", options={"protocol_whitelist": "file"})
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path}: {_reason(path, error)}") from error
    with container:
        stream = _video_of(path, container)
        stream.thread_type = "AUTO"
        yield Track(path, container, stream)


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path}: a folder; give the video files in it")
    if not path.exists():
        raise InputError(f"{path}: no such video file")
    if path.is_file() and path.stat().st_size == 0:
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


def _video_of(path: Path, container: Any) -> Any:
    """The first video track that is no cover picture."""
    from av.stream import Disposition

    tracks = [
        track
        for track in container.streams
        if track.type == "video" and not track.disposition & Disposition.attached_pic
    ]
    if container.format.name == "tty" or not tracks:  # tty: FFmpeg's reading of plain text as a drawing of letters
        kinds = {track.type for track in container.streams}
        found = "sound but no video" if "audio" in kinds else "no video"
        raise InputError(f"{path}: holds {found}; give a file with a video track")
    known = [track for track in tracks if track.codec_context is not None]
    if not known:
        raise InputError(
            f"{path}: its video is of a codec that this PyAV cannot decode; convert it, for example to H.264 in MP4"
        )
    return known[0]
