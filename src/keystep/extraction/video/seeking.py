"""Random access to frames, identical to decoding from the start."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import Any

import numpy as np

from keystep.errors import InputError
from keystep.extraction.video.decoding import Track
from keystep.extraction.video.frames import Frame, Renderer

FAR = Fraction(4)
"""Seconds ahead from which a key frame is sought; up to there, decoding is as fast."""


@dataclass(frozen=True)
class KeyFrame:
    """A packet at which decoding can start.

    Attributes:
        pts: presentation time in ticks.
        dts: decoding time in ticks, if known.
    """

    pts: int
    dts: int | None


@dataclass(frozen=True, eq=False)
class FrameTable:
    """All frames of a file.

    Attributes:
        shown: (n,) int64 presentation times in increasing ticks.
        keys: key frames in order of presentation.
    """

    shown: np.ndarray
    keys: list[KeyFrame]

    def number(self, pts: int) -> int | None:
        """Index of the frame with this presentation time, if there is one."""
        place = int(np.searchsorted(self.shown, pts))
        return place if place < len(self.shown) and self.shown[place] == pts else None

    def starts(self, pts: int) -> Iterator[KeyFrame]:
        """Key frames to decode the frame at a time from: the nearest first, then in increasing steps back."""
        place, step = bisect_right(self.keys, pts, key=lambda key: key.pts) - 1, 1
        while place >= 0:
            yield self.keys[place]
            place, step = place - step, 2 * step


def read_table(track: Track, first: Fraction) -> FrameTable | None:
    """List the frames of a file without decoding.

    Args:
        track: the open track.
        first: time of the first decodable frame; earlier ones are not counted.

    Returns:
        the table; None if frames cannot be identified by their times.
    """
    shown, keys = [], []
    for packet in track.packets():
        if packet.pts is None or track.clock.kind != "shown" or track.clock.jumps:
            return None
        if packet.is_keyframe:
            keys.append(KeyFrame(packet.pts, packet.dts))
        if not track.is_invisible(packet):
            shown.append(packet.pts)
    times = np.sort(np.array(shown, dtype=np.int64))
    if not len(times) or bool((np.diff(times) == 0).any()):
        return None
    times = times[np.searchsorted(times, int(first / track.stream.time_base)) :]
    return FrameTable(times, sorted(keys, key=lambda key: key.pts))


class Cursor:
    """Position in a file that moves forward by decoding, and elsewhere by seeking to a key frame.

    Args:
        opening: opens the track.
        start: time on the file's clock that counts as 0, in seconds.
        renderer: converts frames.
        table: called when a key frame is needed; if it returns None, the file is decoded from the start.
    """

    def __init__(
        self,
        opening: Callable[[], AbstractContextManager[Track]],
        start: Fraction,
        renderer: Renderer,
        table: Callable[[], FrameTable | None],
    ) -> None:
        self._opening, self._start, self._renderer, self._table = opening, start, renderer, table
        self._open = ExitStack()
        self._rest: Iterator[Frame] = iter(())
        self._shown: Frame
        self._coming: Frame | None
        self._restart()

    def close(self) -> None:
        """Close the file."""
        self._rest = iter(())
        self._open.close()

    def shown(self, time: Fraction) -> Frame:
        """Return the frame shown at a time in seconds.

        Raises:
            InputError: no frame can be decoded any more, as the file has changed.
        """
        back = time < self._shown.time and self._shown.index > 0
        far = self._coming is not None and time > self._coming.time + FAR
        if back or far:
            self._move(time, back)
        while self._coming is not None and self._coming.time <= time:
            self._shown, self._coming = self._coming, next(self._rest, None)
        return self._shown

    def _move(self, time: Fraction, back: bool) -> None:
        """Continue at a key frame before a time, or at the start, unless decoding on is as fast."""
        table, lost = self._table(), back
        base = self._track.stream.time_base
        for key in table.starts((time + self._start) // base) if table is not None else ():
            if not back and key.pts * base - self._start <= self._shown.time:
                break  # decoding on is faster
            lost = True
            if any(self._seek(place, key, time) for place in dict.fromkeys((key.pts, key.dts))):
                return
        if lost:
            self._restart()

    def _restart(self) -> None:
        self.close()
        self._track = self._open.enter_context(self._opening())
        decoded = self._track.timed(self._track.packets())
        if not self._begin(decoded, 0):
            raise InputError(f"{self._track.path}: has changed; none of its frames can be decoded any more")

    def _begin(self, decoded: Iterator[tuple[Fraction, Any]], index: int) -> bool:
        """Start with frames whose first one has a given index; returns whether there are any."""
        frames = (
            self._renderer.frame(number, time - self._start, frame)
            for number, (time, frame) in enumerate(decoded, start=index)
        )
        first = next(frames, None)
        if first is not None:
            self._shown, self._coming, self._rest = first, next(frames, None), frames
        return first is not None

    def _seek(self, place: int | None, key: KeyFrame, time: Fraction) -> bool:
        """Seek to a key frame or an earlier one; returns whether decoding continues there, not after ``time``.

        Seeking may land after the key frame or between key frames, so the position is checked. Frames that follow the
        key frame in the file but are shown before it are omitted, as they may need skipped frames.
        """
        track, table, self._rest = self._track, self._table(), iter(())
        if place is None or table is None:
            return False
        if not track.seek(place):
            return False
        packets = track.packets()
        landed = next((packet for packet in packets if packet.is_keyframe), None)
        if landed is None or landed.pts is None or landed.pts > key.pts:
            return False
        begin = landed.pts * track.stream.time_base
        decoded = ((shown, frame) for shown, frame in track.timed(chain([landed], packets)) if shown >= begin)
        first = next(decoded, None)
        if first is None or first[0] - self._start > time:
            return False
        if first[1].pts != landed.pts and not landed.is_discard:  # the start of a gradual refresh, or damaged
            return False
        index = table.number(first[1].pts)
        return index is not None and self._begin(chain([first], decoded), index)
