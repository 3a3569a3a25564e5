"""Interface to PyAV: opening files with one-line errors, and decoding beyond damage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

from keystep.errors import InputError, one_line
from keystep.extraction.video.clock import TrackClock, describe_holes, describe_jumps
from keystep.extraction.video.frames import LARGEST, check_size
from keystep.extraction.video.headers import is_fragmented, second_file, stated_size
from keystep.extraction.video.tracks import choose, video_tracks
from keystep.reading import check_regular

STATE_DURATION = {"matroska", "flv", "avi"}
"""Containers whose header states the complete duration even if the file is truncated."""
GAP = 1 << 14
"""Bytes between two packets of a Matroska file from which data is missing; usually there are 30."""
JUMP = Fraction(10)
"""Seconds ahead that count as a jump of the clock by default, in containers whose clock may jump."""
PLAYLISTS = {"concat", "hls", "applehttp", "dash", "imf"}
"""Formats that only name other files."""
HOLE, LONG_HOLE = Fraction(2), Fraction(60)
"""Seconds without a new picture that are noted: the shorter at usual frame rates, the longer at any."""
UNREAD = 0.05
"""Share of an FLV or ASF file that may follow its last frame."""


def import_av() -> ModuleType:
    """Import PyAV.

    Raises:
        InputError: the extra ``video`` is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise InputError("reading video needs PyAV; install it with: pip install 'keystep[video]'") from error
    return av


class Track:
    """The video track of an open file, with a record of problems. Times are in seconds, see `TrackClock`.

    Attributes:
        path: of the file.
        container: of PyAV.
        stream: of PyAV.
        clock: times of packets and frames.
        errors: number of packets that could not be decoded.
        damaged: number of frames with missing parts.
        misplaced: number of frames dropped because of their time.
        skipped: number of bytes that are not part of a packet.
        hidden: number of packets that the container's edit list hides.
        torn: number of packets beside which a transport stream lacks data, or was joined.
        unfinished: whether damage at the end may have cost sound frames, which decoding without threads gets.
        shown: number of frames returned.
        holes: (start, end) of long times without a new frame.
        stopped: why reading ended early.
    """

    def __init__(self, path: Path, container: Any, stream: Any, jump: Fraction | None) -> None:
        self.path, self.container, self.stream = path, container, stream
        self.errors = self.damaged = self.skipped = self.misplaced = self.hidden = self.shown = 0
        self.torn, self.unfinished = 0, False
        self._reached, self._misplaced_at = 0, Fraction(0)
        self.holes: list[tuple[Fraction, Fraction]] = []
        self._ends: dict[int, int] = {}
        self.stopped: str | None = None
        self._formats = set(container.format.name.split(","))
        jumps = may_jump(container)
        self.clock = TrackClock(stream.time_base, lambda: self.rate, jump if jumps else None, wraps=jumps)

    def packets(self) -> Iterator[Any]:
        """Yield packets in file order, up to the end of the file or the first position that cannot be read.

        A last packet that was cut off is only counted: decoders would lose others with it.
        """
        tracks = self.container.streams if self.states_duration else [self.stream]
        reached: int | None = None
        cut: Any = None
        try:
            for packet in self.container.demux(*tracks):
                if packet.size == 0:  # the end of the file, or an empty frame, which a decoder mistakes for it
                    continue
                self._count(packet, reached)
                reached = None if packet.pos is None else packet.pos + packet.size
                self._reached = max(self._reached, reached or 0)
                if packet.stream_index != self.stream.index or self._is_header(packet):
                    continue
                self._take(packet)
                if cut is not None:
                    self.torn += 1
                    yield cut
                cut = packet if packet.is_corrupt else None
                if cut is None:
                    yield packet
        except import_av().FFmpegError as error:
            self.stopped = one_line(error.strerror, 80)
        if cut is not None:
            self._lost(cut)

    def _is_header(self, packet: Any) -> bool:
        """Whether a packet only describes the codec, as in the middle of two Ogg files in one (Theora, 6.1)."""
        return bool(self.stream.codec_context.name == "theora" and memoryview(packet)[0] & 0x80)

    def _take(self, packet: Any) -> None:
        self.hidden += packet.is_discard
        first = self.clock.kind is None
        self.clock.take(packet)
        if first and self.clock.kind == "shown":  # this time was not generated, so missing ones may be
            self.container.flags |= import_av().container.Flags.gen_pts.value
        if first and self.clock.kind == "decoded":  # with frame threads, a lost packet cannot be told from later ones
            self.stream.thread_type = "SLICE"

    def _count(self, packet: Any, reached: int | None) -> None:
        """Record end time and position of a packet. reached: file offset of the end of its predecessor."""
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is not None:
            end = stamp + (packet.duration or 0)
            self._ends[packet.stream_index] = max(end, self._ends.get(packet.stream_index, end))
        if "matroska" in self._formats and reached is not None and packet.pos is not None:
            gap = packet.pos - reached
            self.skipped += gap if gap > GAP else 0

    def seek(self, place: int) -> bool:
        """Seek to a time in ticks; returns whether that is possible."""
        try:
            self.container.seek(place, stream=self.stream)
        except import_av().FFmpegError:
            return False
        self.clock.sought()
        return True

    def decoded(self, packets: Iterable[Any]) -> Iterator[Any]:
        """Decode packets to PyAV frames in order of presentation; errors are counted and skipped."""
        failure, decode = import_av().FFmpegError, self.stream.codec_context.decode
        due = set[int]()  # since the last key frame
        for packet in packets:
            if packet.is_keyframe:
                due.clear()
            if packet.pts is not None and not self.is_invisible(packet):
                due.add(packet.pts)
            try:
                frames = decode(packet)
            except failure:
                self._lost(packet)
                continue
            due.difference_update(frame.pts for frame in frames)
            yield from frames
        try:
            frames = decode(None)
        except failure:
            self.errors, self.unfinished = self.errors + 1, True
            return
        self.unfinished = not due.issubset(frame.pts for frame in frames)
        yield from frames

    def is_invisible(self, packet: Any) -> bool:
        """Whether a frame is only a reference for others: hidden by the edit list, or by VP8 (RFC 6386, 9.1)."""
        hidden = self.stream.codec_context.name == "vp8" and not memoryview(packet)[0] & 0x10
        return bool(packet.is_discard or hidden)

    def _lost(self, packet: Any) -> None:
        self.errors += 1
        self.clock.lost(packet)

    def timed(self, packets: Iterable[Any]) -> Iterator[tuple[Fraction, Any]]:
        """Decode packets to frames with increasing times; a frame that is not after its predecessor is dropped."""
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
        """Describe jumps, holes, losses and pictures that are no videos, one line each, after all packets were read.

        Args:
            start: the time that counts as 0.
        """
        is_picture = self.shown == 1 and any(name.endswith("_pipe") for name in self._formats)
        picture = [f"is a single picture ({self.stream.codec_context.name}), not a video"] if is_picture else []
        is_torn = self.torn and not self.clock.jumps
        torn = [f"data is missing in {self.torn} places, or files were joined there"] if is_torn else []
        return [*picture, *torn, *describe_jumps(self.clock.jumps, start), *describe_holes(self.holes, start)]

    def damage(self, start: Fraction) -> list[str]:
        """Describe what was lost, one line each, after all packets have been read.

        Args:
            start: the time that counts as 0.
        """
        expected = None if self.listed is None else self.listed - self.hidden
        decoded, stated, end = self.shown + self.misplaced, self.duration, f"{float(self.end - start):.1f} s"
        slack = max(Fraction(1, 2), 2 * self.clock.step)
        lines = []
        if expected is not None and decoded < expected:
            lines.append(f"{decoded} of {expected} frames could be decoded")
        elif self.errors:
            lines.append(f"{self.errors} packets could not be decoded")
        elif self.clock.remaining > slack:
            lines.append(f"no picture could be decoded in the last {float(self.clock.remaining):.1f} s")
        if self.skipped:
            lines.append(f"{self.skipped} bytes could not be parsed")
        if self.states_duration and stated is not None and self.end < stated - slack:
            lines.append(f"ends at {end} of the stated {float(stated):.1f} s")
        if self.stopped is not None:
            lines.append(f"cannot be read beyond {end}: {self.stopped}")
        if self.shown == 1 and stated is not None and stated > max(Fraction(1), 2 * self.clock.step):
            lines.append(f"a single picture for the stated {float(stated):.1f} s")
        if self.damaged:
            lines.append(f"{self.damaged} frames are partly damaged")
        if self.misplaced:
            place = f"the first at {float(self._misplaced_at - start):.1f} s"
            lines.append(f"{self.misplaced} frames omitted because their times do not increase, {place}")
        size, stated_bytes = self.path.stat().st_size, stated_size(self.path)
        if stated_bytes is not None and size < stated_bytes:
            lines.append(f"has only {size:,} of the stated {stated_bytes:,} bytes")
        if unread := self._unread(size, stated_bytes):
            lines.append(
                f"the last {unread:,} bytes are not read, perhaps a second file appended to the first; split them"
            )
        return lines

    def _unread(self, size: int, stated: int | None) -> int:
        """Number of unreadable bytes at the end that should be video; stated: bytes of an ASF file."""
        if "mp4" in self._formats:
            return size - (second_file(self.path) or size)
        unread = size - (stated or self._reached)
        return unread if self._formats & {"flv", "asf"} and unread > UNREAD * size else 0

    @property
    def end(self) -> Fraction:
        """End of the last packet read so far, of any track."""
        tracks = self.container.streams
        return max((ticks * tracks[index].time_base for index, ticks in self._ends.items()), default=Fraction(0))

    @property
    def rate(self) -> Fraction | None:
        """Average frame rate in Hz."""
        rate: Fraction | None = self.stream.average_rate or self.stream.guessed_rate or None
        return rate

    @property
    def usual_rate(self) -> Fraction | None:
        """Frame rate in Hz without holes, as guessed by FFmpeg; holes change only the average."""
        rate: Fraction | None = self.stream.guessed_rate or self.rate
        return rate

    @property
    def listed(self) -> int | None:
        """Number of frames that the container has listed so far, without those cut by its edit list.

        A fragmented MP4 file lists those of the fragments read so far.
        """
        return len(self.stream.index_entries) or None if "mp4" in self._formats else None

    @property
    def frames(self) -> int | None:
        """Number of frames listed by the container, if the list is complete."""
        return None if self.listed is None or is_fragmented(self.path) else self.listed

    @property
    def duration(self) -> Fraction | None:
        """Seconds stated by the container for all tracks (in AVI, for the video)."""
        if "avi" in self._formats and self.stream.frames and self.rate:
            return Fraction(self.stream.frames) / self.rate
        stated = self.container.duration
        return None if stated is None else Fraction(stated, 1_000_000)

    @property
    def states_duration(self) -> bool:
        """Whether the stated duration is complete even if the file is truncated."""
        return not self._formats.isdisjoint(STATE_DURATION)


def may_jump(container: Any) -> bool:
    """Whether the container's clock may jump, and wraps around after 26 hours (MPEG-TS and related formats)."""
    return bool(container.format.flags & import_av().format.Flags.ts_discont.value)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the system or FFmpeg says while a video is read into an `InputError` about this video."""
    try:
        yield
    except (import_av().FFmpegError, OSError) as error:
        raise InputError(f"{path}: cannot be read: {one_line(error.strerror or error, 80)}") from error


@contextmanager
def opened(
    path: Path, track: int | None = None, *, jump: Fraction | None = JUMP, threads: bool = True
) -> Iterator[Track]:
    """Open a video track of a file.

    Args:
        path: of the file.
        track: index of the track; None: the main one, see `tracks.choose`.
        jump: seconds ahead that count as a jump of the clock, in containers whose clock may jump; None: no limit.
        threads: decode several frames at once.

    Raises:
        InputError: no such file, no video, an unsupported codec, pictures that are too large, or a failure while it is
            read.
    """
    with reading(path), _container(path) as container:
        if track is None:
            track = _main_track(path, container)
        stream = container.streams[track]
        context = stream.codec_context
        check_size(str(path), context.height, context.width)
        stream.thread_type = "AUTO" if threads else "SLICE"
        context.options = {"max_pixels": str(LARGEST)}
        container.flags &= ~import_av().container.Flags.gen_pts.value
        yield Track(path, container, stream, jump)


def _main_track(path: Path, container: Any) -> int:
    found = video_tracks(str(path), container)
    if len(found) == 1:
        return int(found[0].index)
    with _container(path) as other:  # packets read for the choice would be missing in the first one
        return int(choose(other, [other.streams[stream.index] for stream in found]).index)


@contextmanager
def _container(path: Path) -> Iterator[Any]:
    av = import_av()
    _check_file(path)
    # with "file:" and the whitelist, neither a name nor a playlist accesses the network
    options = {"protocol_whitelist": "file", "max_pixels": str(LARGEST)}
    try:
        container = av.open(f"file:{path}", metadata_errors="replace", options=options)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path}: {_reason(path, error)}") from error
    with container:
        if container.format.name in PLAYLISTS:
            raise InputError(f"{path}: a playlist, not a video; join its files first (ffmpeg -i FILE -c copy NEW.mkv)")
        yield container


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path}: a folder, not a video file")
    if not path.exists():
        raise InputError(f"{path}: no such video file")
    if check_regular(path) == 0:
        raise InputError(f"{path}: an empty file; copy or download it again")


def _reason(path: Path, error: Exception) -> str:
    """Why a file cannot be opened, with a remedy."""
    if isinstance(error, PermissionError):
        return "no permission to read it; change its permissions"
    with path.open("rb") as file:
        begins_as_mp4 = file.read(8)[4:] == b"ftyp"
    if begins_as_mp4:
        return (
            "an MP4 file without a readable index (moov), as after an interrupted recording or copy; copy it again, or "
            "repair it with a tool such as untrunc"
        )
    reason = getattr(error, "strerror", None) or error
    return f"not a readable video ({one_line(reason, 80)}); use a video file"
