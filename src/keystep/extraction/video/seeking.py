"""Random access that gives the very frames that decoding from the start gives."""

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
"""Seconds ahead beyond which a key frame is looked for; up to there, decoding on is as quick."""


@dataclass(frozen=True)
class Key:
    """A packet that decoding can begin with: its times of presentation and of decoding, in the track's ticks."""

    pts: int
    dts: int | None


@dataclass(frozen=True, eq=False)
class Table:
    """When the frames of a file are shown, (n,) int64 in rising ticks, and where decoding can begin, rising too."""

    shown: np.ndarray
    keys: list[Key]

    def number(self, pts: int) -> int | None:
        """The index of the frame of that time, if there is one."""
        place = int(np.searchsorted(self.shown, pts))
        return place if place < len(self.shown) and self.shown[place] == pts else None

    def begins(self, pts: int) -> Iterator[Key]:
        """Keys from which the frame of that time can be decoded, the last one first, then ever larger steps back."""
        place, step = bisect_right(self.keys, pts, key=lambda key: key.pts) - 1, 1
        while place >= 0:
            yield self.keys[place]
            place, step = place - step, 2 * step


def read_table(track: Track, first: Fraction) -> Table | None:
    """List a file's packets without decoding; None where their times do not name frames.

    first: when the first frame that can be decoded is shown; what belongs before it is not counted.
    """
    shown, keys = [], []
    for packet in track.packets():
        if packet.pts is None or track.clock.kind != "shown" or track.clock.jumps:
            return None
        if packet.is_keyframe:
            keys.append(Key(packet.pts, packet.dts))
        if not packet.is_discard and not _is_invisible(track, packet):
            shown.append(packet.pts)
    times = np.sort(np.array(shown, dtype=np.int64))
    if not len(times) or bool((np.diff(times) == 0).any()):
        return None
    times = times[np.searchsorted(times, int(first / track.stream.time_base)) :]
    return Table(times, sorted(keys, key=lambda key: key.pts))


def _is_invisible(track: Track, packet: Any) -> bool:
    """Whether a VP8 frame is only there to predict others from (RFC 6386, 9.1: the show_frame bit)."""
    return bool(track.stream.codec_context.name == "vp8" and not memoryview(packet)[0] & 0x10)


class Cursor:
    """A place in a file that goes forward by decoding, and anywhere else by way of a key frame.

    Args:
        opening: opens the track.
        start: the time on the file's clock that counts as 0.
        table: called once a key frame is needed; where it gives None, the file is read from its start.
    """

    def __init__(
        self,
        opening: Callable[[], AbstractContextManager[Track]],
        start: Fraction,
        renderer: Renderer,
        table: Callable[[], Table | None],
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

    def shown(self, moment: Fraction) -> Frame:
        """The frame on show at a moment."""
        back = moment < self._shown.time and self._shown.index > 0
        far = self._coming is not None and moment > self._coming.time + FAR
        if back or far:
            self._go(moment, back)
        while self._coming is not None and self._coming.time <= moment:
            self._shown, self._coming = self._coming, next(self._rest, None)
        return self._shown

    def _go(self, moment: Fraction, back: bool) -> None:
        """Take up decoding at a key frame before a moment, or from the start, or leave it where it is."""
        table, lost = self._table(), back
        base = self._track.stream.time_base
        for key in table.begins((moment + self._start) // base) if table is not None else ():
            if not back and key.pts * base - self._start <= self._shown.time:
                break  # decoding on gets there sooner
            lost = True
            if any(self._sought(place, key, moment) for place in dict.fromkeys((key.pts, key.dts))):
                return
        if lost:
            self._restart()

    def _restart(self) -> None:
        self.close()
        self._track = self._open.enter_context(self._opening())
        decoded = self._track.timed(self._track.packets())
        if not self._begin(decoded, 0):
            raise InputError(f"{self._track.path}: has changed: none of its frames can be decoded any more")

    def _begin(self, decoded: Iterator[tuple[Fraction, Any]], index: int) -> bool:
        """Show the first of the frames, which has that index; whether there is one."""
        frames = (
            self._renderer.frame(number, time - self._start, frame)
            for number, (time, frame) in enumerate(decoded, start=index)
        )
        first = next(frames, None)
        if first is not None:
            self._shown, self._coming, self._rest = first, next(frames, None), frames
        return first is not None

    def _sought(self, place: int | None, key: Key, moment: Fraction) -> bool:
        """Whether decoding could be taken up at that key frame or an earlier one, with the moment still ahead.

        Where a file lands when it is asked for a place is its own affair: behind it, or between key frames, too; so
        that is looked at. What lies behind the key frame in the file but is shown before it is left out: it may need
        frames that were skipped.
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
        decoded = ((time, frame) for time, frame in track.timed(chain([landed], packets)) if time >= begin)
        first = next(decoded, None)
        if first is None or first[0] - self._start > moment:
            return False
        if first[1].pts != landed.pts and not landed.is_discard:  # it only begins a refresh by parts, or is damaged
            return False
        index = table.number(first[1].pts)
        return index is not None and self._begin(chain([first], decoded), index)
