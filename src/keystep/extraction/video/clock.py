"""When the frames of a track are shown: in seconds that rise, whatever the file's own clock does."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Literal, NamedTuple

BACK = Fraction(1, 10)
"""Seconds backwards from which on the clock of any container has started again."""
LONGEST_DELAY = Fraction(10)
"""Seconds that may lie between a frame's decoding and its presentation."""
MOST_AHEAD = 8
"""Frames by which FFmpeg may guess a time of decoding to be behind that of presentation."""
WRAP = 1 << 33
"""Ticks after which the clock of MPEG-TS begins anew."""
GUESSED_RATE = Fraction(25)
"""Frames a second where a file has neither times nor a rate."""

Kind = Literal["shown", "decoded", "none"]


class Jump(NamedTuple):
    """A place where a file's clock jumps: at what time of ours, by how many seconds."""

    time: Fraction
    seconds: Fraction


class TrackClock:
    """Turns the stamps of a track's packets and frames into times, in seconds on the file's clock.

    What its packets say decides between three kinds, once and for all, with the first one:

    - ``shown``: they say when they are shown. A frame without a time follows the one before it.
    - ``decoded``: they only say when they are decoded, as in AVI and ASF. Then the n-th frame is shown at the n-th of
      these times, counted from the first. Each packet is numbered, so that a frame says where it came from and
      frames that were lost do not shift the others beyond the next key frame.
    - ``none``: they say nothing, as in raw streams. Frames follow each other at the track's rate.

    A clock that starts again, or jumps further forwards than is allowed, is bridged: what is behind the jump follows at
    once, and `jumps` says so.

    Args:
        base: seconds in a tick.
        rate: gives the frames a second, as far as they are known.
        jump: seconds forwards that are a jump of the clock; None: nothing is, however long no frame comes.
        wraps: whether the clock begins anew after 2 ** 33 ticks, which is no jump.
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

    @property
    def step(self) -> Fraction:
        """Seconds from a frame to the next one, on average."""
        return 1 / (self._rate() or GUESSED_RATE)

    @property
    def behind(self) -> Fraction:
        """Seconds from the last frame to the last packet."""
        return Fraction(0) if self._before is None else self._last * self._base - self._before

    def take(self, packet: Any) -> None:
        """The next packet in the file: its stamps become those of a clock without jumps.

        If only the time of its decoding is known, its number takes the place of the time at which it is shown.
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
        """A packet could not be decoded."""
        if self.kind == "decoded":
            self._stamps.pop(packet.pts, None)

    def sought(self) -> None:
        """The next packet is from elsewhere in the file."""
        self._past.clear()
        self._before = None

    def time(self, frame: Any) -> Fraction | None:
        """When a decoded frame is shown; None if that is not behind its predecessor."""
        stamp = self._next_stamp(frame) if self.kind == "decoded" else frame.pts
        if stamp is not None:
            time = stamp * self._base
        else:
            time = Fraction(0) if self._before is None else self._before + self.step
        if self._before is not None and time <= self._before:
            return None
        self._before = time
        return time

    def _bridge(self, packet: Any) -> None:
        """Move a packet's stamps by what its clock, or those of packets before it, have jumped."""
        stamp, shown = self._decoding(packet), packet.dts if packet.pts is None else packet.pts
        if self._past and self._wraps:
            self._offset -= WRAP * round((stamp + self._offset - self._past[-1]) / WRAP)
        if self._past and self._has_jumped(stamp + self._offset):
            late = shown + self._offset - self._due
            self.jumps.append(Jump(self._due * self._base, late * self._base))
            self._offset -= late
            self._past.clear()
        packet.dts = None if packet.dts is None else packet.dts + self._offset
        packet.pts = None if packet.pts is None else packet.pts + self._offset
        end = shown + self._offset + (packet.duration or self._frame)
        self._due = max(self._due, end) if self._past else end
        self._past.append(stamp + self._offset)

    def _decoding(self, packet: Any) -> int:
        """When a packet is decoded, if the file says it: FFmpeg makes up times that go on from before a jump."""
        if packet.dts is None:
            return int(packet.pts)
        if packet.pts is None or -MOST_AHEAD * self._frame <= packet.pts - packet.dts <= self._longest_delay:
            return int(packet.dts)
        return int(packet.pts)

    def _has_jumped(self, stamp: int) -> bool:
        apart = stamp - self._past[-1]
        if apart >= 0:
            return self._jump is not None and apart > self._jump
        return apart < -self._back and stamp <= self._past[0]  # else only the stamp before was out of line

    def _next_stamp(self, frame: Any) -> int | None:
        """The next time of decoding; those before a key frame's turn are of frames that were lost."""
        origin = frame.pts
        if origin is not None:
            if frame.key_frame:
                turn = origin + sum(other > origin for other in self._origins)
                self._stamps = {number: stamp for number, stamp in self._stamps.items() if number >= turn}
                self._origins.clear()
            self._origins.append(origin)
        return self._stamps.pop(next(iter(self._stamps)), None) if self._stamps else None
