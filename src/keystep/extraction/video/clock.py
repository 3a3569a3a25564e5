"""Presentation times of the frames of a track: increasing seconds, whatever the file's own clock does."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, Literal, NamedTuple

BACK = Fraction(1, 10)
"""Seconds that a clock has to go back to count as restarted, in any container."""
LONGEST_DELAY = Fraction(10)
"""Largest delay between decoding and presentation, in seconds."""
MOST_AHEAD = 8
"""Frames by which decoding times guessed by FFmpeg may be after presentation times."""
WRAP = 1 << 33
"""Ticks after which the clock of MPEG-TS wraps around."""
GUESSED_RATE = Fraction(25)
"""Frame rate of files with neither times nor a rate."""
SOME = 3
"""Number of places listed in a note."""

Kind = Literal["shown", "decoded", "none"]


class Jump(NamedTuple):
    """A jump of a file's clock: its time on the continuous clock, and its size in seconds."""

    time: Fraction
    seconds: Fraction


class TrackClock:
    """Converts timestamps of a track's packets and frames to seconds on the file's clock, without jumps.

    The first packet decides which timestamps are used for the whole track:

    - ``shown``: presentation times. A frame without one follows its predecessor.
    - ``decoded``: decoding times only, as in AVI and ASF. The n-th frame is shown at the n-th of these times. Packets
      are numbered, so that each frame has its origin, and lost frames do not shift others beyond the next key frame.
    - ``none``: no times, as in raw streams. Frames are spaced by the frame rate. If later packets have times (Matroska
      cannot store negative ones), these continue after the frames without.

    A clock that restarts, or jumps ahead by more than ``jump``, is bridged: the video continues without a gap, and
    `jumps` records it.

    Args:
        base: seconds per tick.
        rate: returns the frame rate in Hz, if known.
        jump: seconds ahead that count as a jump of the clock; None: no limit.
        wraps: whether the clock wraps around after 2 ** 33 ticks, which is not a jump.
    """

    def __init__(
        self, base: Fraction, rate: Callable[[], Fraction | None], jump: Fraction | None, *, wraps: bool
    ) -> None:
        self.kind: Kind | None = None
        self.jumps: list[Jump] = []
        self._base, self._rate, self._wraps = base, rate, wraps
        self._jump = None if jump is None else round(jump / base)
        self._back, self._longest_delay = round(BACK / base), round(LONGEST_DELAY / base)
        self._frame = max(1, round(self.step / base))
        self._offset = self._packets = 0
        self._past: deque[int] = deque(maxlen=2)
        self._due = self._last = 0
        self._stamps: dict[int, int | None] = {}
        self._origins: deque[int] = deque(maxlen=64)
        self._before: Fraction | None = None
        self._shift: Fraction | None = None
        """Seconds by which frames with times follow those without at the beginning."""

    @property
    def step(self) -> Fraction:
        """Average seconds between frames."""
        return 1 / (self._rate() or GUESSED_RATE)

    @property
    def remaining(self) -> Fraction:
        """Seconds between the last frame and the last packet."""
        return Fraction(0) if self._before is None else self._last * self._base + (self._shift or 0) - self._before

    def take(self, packet: Any) -> None:
        """Process the next packet of the file, and convert its timestamps to a clock without jumps.

        If only decoding times are known, its presentation time is replaced by its number.
        """
        if packet.dts is not None or (self._offset and packet.pts is not None):
            self._bridge(packet)
        if self.kind is None:
            self.kind = "shown" if packet.pts is not None else "none" if packet.dts is None else "decoded"
        stamp = packet.pts if self.kind == "shown" else packet.dts
        if stamp is not None and not packet.is_discard:
            self._last = max(self._last, stamp)
        if self.kind == "decoded":
            self._stamps[self._packets] = packet.dts
            packet.pts, self._packets = self._packets, self._packets + 1

    def lost(self, packet: Any) -> None:
        """Record that a packet could not be decoded."""
        if self.kind == "decoded":
            self._stamps.pop(packet.pts, None)

    def sought(self) -> None:
        """Record that the next packet is from another position in the file."""
        self._past.clear()
        self._before = None

    def time(self, frame: Any) -> Fraction | None:
        """Presentation time of a decoded frame; None if it is not after its predecessor."""
        stamp = self._next_stamp(frame) if self.kind == "decoded" else frame.pts
        follows = Fraction(0) if self._before is None else self._before + self.step
        if stamp is not None and self._shift is None:
            self._shift = follows - stamp * self._base if self.kind == "none" else Fraction(0)
        time = follows if stamp is None or self._shift is None else stamp * self._base + self._shift
        if self._before is not None and time <= self._before:
            return None
        self._before = time
        return time

    def _bridge(self, packet: Any) -> None:
        """Shift the timestamps of a packet by all jumps so far."""
        stamp, shown = self._decoding(packet), packet.dts if packet.pts is None else packet.pts
        if self._past and self._wraps:
            self._offset -= WRAP * round((stamp + self._offset - self._past[-1]) / WRAP)
        late = shown + self._offset - self._due
        if self._past and not packet.is_discard and self._has_jumped(stamp + self._offset, late):
            self.jumps.append(Jump(self._due * self._base, late * self._base))
            self._offset -= late
            self._past.clear()
        packet.dts = None if packet.dts is None else packet.dts + self._offset
        packet.pts = None if packet.pts is None else packet.pts + self._offset
        if packet.is_discard:
            return
        end = shown + self._offset + (packet.duration or self._frame)
        self._due = max(self._due, end) if self._past else end
        self._past.append(stamp + self._offset)

    def _decoding(self, packet: Any) -> int:
        """Decoding time of a packet, ignoring those that FFmpeg extrapolates from before a jump."""
        if packet.dts is None:
            return int(packet.pts)
        if packet.pts is None or -MOST_AHEAD * self._frame <= packet.pts - packet.dts <= self._longest_delay:
            return int(packet.dts)
        return int(packet.pts)

    def _has_jumped(self, stamp: int, late: int) -> bool:
        apart = stamp - self._past[-1]
        if apart >= 0:
            return self._jump is not None and min(apart, late) > self._jump
        return apart < -self._back and stamp <= self._past[0]  # otherwise, only the previous timestamp was out of order

    def _next_stamp(self, frame: Any) -> int | None:
        """Next decoding time; those before the turn of a key frame belong to lost frames."""
        origin = frame.pts
        if origin is not None:
            if frame.key_frame:
                turn = origin + sum(other > origin for other in self._origins)
                self._stamps = {number: stamp for number, stamp in self._stamps.items() if number >= turn}
                self._origins.clear()
            self._origins.append(origin)
        return self._stamps.pop(next(iter(self._stamps)), None) if self._stamps else None


def describe_jumps(jumps: Sequence[Jump], start: Fraction) -> list[str]:
    """A note on jumps of the clock, with their times after ``start``."""
    if not jumps:
        return []
    places = [f"by {float(jump.seconds):+.1f} s at {float(jump.time - start):.1f} s" for jump in jumps]
    return [
        f"its clock jumps {_list_first(places)}; the video is continued without a gap, so if there was a pause, later "
        "times are early by that much"
    ]


def describe_holes(holes: Sequence[tuple[Fraction, Fraction]], start: Fraction) -> list[str]:
    """A note on long times without a new picture, from ``start`` on."""
    if not holes:
        return []
    places = [f"from {float(begin - start):.1f} to {float(end - start):.1f} s" for begin, end in holes]
    return [f"one picture is shown {_list_first(places)}"]


def _list_first(places: Sequence[str]) -> str:
    """List the first few places."""
    more = len(places) - SOME
    return ", ".join(places[:SOME]) + (f" and {more} more" if more > 0 else "")
