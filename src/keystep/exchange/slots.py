"""Stretches of seconds as spans of slots: a slot has the label at its moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from keystep.data.spans import Span
from keystep.exchange.formats import TimedLabel

TOLERANCE = 0.001
"""Seconds behind a slot's moment at which a border still counts as there: files count in milliseconds."""


@dataclass(frozen=True)
class Taken:
    """What became of the stretches of one video.

    spans: in order, without overlaps; neighbours may have one label. rounded: how many stretches have a border between
    two slots' moments, shift: by how many seconds at most. dropped: those without any slot. outside: those that reach
    beyond the video. overlapped: slots that two claim with two labels.
    """

    spans: list[Span] = field(default_factory=list)
    rounded: int = 0
    shift: float = 0.0
    dropped: int = 0
    outside: int = 0
    overlapped: int = 0

    def notes(self) -> list[str]:
        """A line each on what did not fit."""
        lines = []
        if self.rounded:
            lines.append(f"{self.rounded} segments moved to slots, by up to {self.shift:.3g} s")
        if self.dropped:
            lines.append(f"{self.dropped} segments without a slot were dropped (too short, or outside of the video)")
        if self.outside:
            lines.append(f"{self.outside} segments reach beyond the video and were cut")
        if self.overlapped:
            lines.append(f"{self.overlapped} slots have two labels; each got that of the segment that begins later")
        return lines


def to_slots(stretches: Sequence[TimedLabel], times: np.ndarray, step: float, unit: float = 0.0) -> Taken:
    """Give each slot the label at its moment; where two claim it, the stretch that begins later wins.

    Args:
        stretches: in seconds.
        times: (T,) seconds of the slots, rising.
        step: seconds from one slot to the next.
        unit: seconds that the file counts in, such as a frame's; moves within one are not worth a word.
    """
    ordered = sorted(stretches, key=lambda stretch: (stretch.start, -stretch.end))
    near = min(TOLERANCE, step / 4)
    bounds = np.array([[float(start), float(end)] for start, end, _ in ordered]).reshape(-1, 2)
    places = np.searchsorted(times, bounds - near)
    borders = np.append(times, times[-1] + step)
    owners, clashes = np.full(len(times), -1), np.zeros(len(times), bool)
    labels = np.unique([label for *_, label in ordered], return_inverse=True)[1] if ordered else np.zeros(0, int)
    for index, (first, stop) in enumerate(places.tolist()):
        before = owners[first:stop]
        clashes[first:stop] |= (before >= 0) & (labels[before] != labels[index])
        owners[first:stop] = index
    inside = (bounds > times[0] - near) & (bounds < borders[-1] + near)
    moved = np.where(inside, np.abs(borders[places] - bounds), 0.0)
    empty = places[:, 0] >= places[:, 1]
    beyond = ~empty & ((bounds[:, 1] > borders[-1] + step) | (bounds[:, 0] < min(0.0, times[0]) - step))
    changes = np.flatnonzero(np.diff(owners, prepend=-2, append=-2))
    runs = [(a, b) for a, b in zip(changes[:-1].tolist(), changes[1:].tolist(), strict=True) if owners[a] >= 0]
    rounded = ~empty & (moved > max(near, unit)).any(axis=1)
    return Taken(
        spans=[Span(first, stop, ordered[owners[first]].label) for first, stop in runs],
        rounded=int(rounded.sum()),
        shift=float(moved[rounded].max()) if rounded.any() else 0.0,
        dropped=int(empty.sum()),
        outside=int(beyond.sum()),
        overlapped=int(clashes.sum()),
    )


def in_seconds(stretches: Sequence[TimedLabel], begins: Fraction, rate: Fraction) -> list[TimedLabel]:
    """Stretches of frames as stretches of seconds."""
    return [TimedLabel(begins + start / rate, begins + end / rate, label) for start, end, label in stretches]
