"""Which slots of a video belong to which segment, and the authors' training sequences made of them.

A segment owns the slots with start <= time < end; one that owns none takes the slot nearest to its middle (the earlier
on ties). What "<=" means for times that were rounded to float32 is a choice:

- ``exact``: times and bounds are rounded, so a time within one float32 step and half of a bound's last decimal (as the
  manifest writes it) *is* the bound, and its slot belongs to the segment that starts there;
- ``float32``: the authors' comparison of the rounded time with the decimal bound. A time that was rounded down falls
  into the previous segment: with FACT's times, 30 % of the slots that lie on a bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from keystep.data.annotation import IGNORED
from keystep.interop.official.manifests import BACKGROUND, Segment

Boundaries = Literal["exact", "float32"]


def first_slots(times: np.ndarray, bounds: np.ndarray, halves: np.ndarray, boundaries: Boundaries) -> np.ndarray:
    """(B,) index of the first slot at or after each bound; the number of slots where none is.

    times: (T,) float64, never falling. bounds: (B,) seconds; halves: (B,) how far they may have been rounded.
    """
    if boundaries == "float32":
        first: np.ndarray = np.searchsorted(times, bounds, side="left")
    else:
        first = np.searchsorted(times + _steps(times), bounds - halves, side="left")
    return first


def _steps(times: np.ndarray) -> np.ndarray:
    """(T,) one step of float32 at each time."""
    steps: np.ndarray = np.spacing(np.abs(times).astype(np.float32)).astype(np.float64)
    return steps


def segment_slots(times: np.ndarray, segments: Sequence[Segment], boundaries: Boundaries) -> list[tuple[int, int]]:
    """(first slot, last slot + 1) of each segment, at least one slot each."""
    slots = []
    for (first, stop), segment in zip(own_slots(times, segments, boundaries), segments, strict=True):
        if first >= stop:
            first = _nearest(times, segment, boundaries)
            stop = first + 1
        slots.append((first, stop))
    return slots


def own_slots(times: np.ndarray, segments: Sequence[Segment], boundaries: Boundaries) -> list[tuple[int, int]]:
    """(first slot, last slot + 1) of each segment; no slots where none lies in it."""
    bounds = np.array([(segment.start, segment.end) for segment in segments]).reshape(-1)
    halves = np.array([segment.halves for segment in segments]).reshape(-1)
    return [(first, stop) for first, stop in first_slots(times, bounds, halves, boundaries).reshape(-1, 2).tolist()]


def _nearest(times: np.ndarray, segment: Segment, boundaries: Boundaries) -> int:
    """The slot nearest to a segment's middle, the earlier on ties."""
    distances = np.abs(times - (segment.start + segment.end) / 2)
    rounding = _steps(times)[distances.argmin()] + max(segment.halves)
    tie = 0.0 if boundaries == "float32" else 2 * rounding
    return int(np.argmax(distances <= distances.min() + tie))


def slot_seconds(times: np.ndarray) -> float:
    """How long a slot lasts: the median over four of them (FACT's alternate), 0 where nothing tells."""
    steps = min(4, len(times) - 1)
    return float(np.median(times[steps:] - times[:-steps])) / steps if steps > 0 else 0.0


def outside(times: np.ndarray, segments: Sequence[Segment]) -> np.ndarray:
    """(B,) bool: the segment lies more than half a slot before the first slot or after the last one."""
    starts, ends = np.array([(segment.start, segment.end) for segment in segments]).reshape(-1, 2).T
    reach = slot_seconds(times) / 2 + np.array([max(segment.halves) for segment in segments])
    far: np.ndarray = (ends < times[0] - reach) | (starts > times[-1] + reach)
    return far


class OnBounds(NamedTuple):
    """How much hangs on the comparison."""

    slots: int
    """Slots that lie exactly on a bound."""
    moved: int
    """Those of them that the float32 comparison puts before the bound."""


def on_bounds(times: np.ndarray, segments: Sequence[Segment]) -> OnBounds:
    """Count the slots of a video that lie exactly on a bound of a segment."""
    every = [pair for segment in segments for pair in zip((segment.start, segment.end), segment.halves, strict=True)]
    bounds, halves = np.array(sorted(dict(sorted(every)).items())).reshape(-1, 2).T  # of equal ones the roundest
    exact = first_slots(times, bounds, halves, "exact")
    after = np.searchsorted(times - _steps(times), bounds + halves, side="right")
    naive = first_slots(times, bounds, halves, "float32")
    return OnBounds(int((after - exact).sum()), int((np.minimum(naive, after) - exact).sum()))


class WholeLabels(NamedTuple):
    """The labels of a whole video, and what was decided on the way."""

    labels: np.ndarray
    """(T,) int64 class of each slot, `IGNORED` outside of all segments."""
    shared: int
    """Slots that several segments claim."""
    nearest: int
    """Segments without a slot of their own that got the nearest one."""
    outside: int
    """Segments outside of their video, which have no slot."""


def whole_labels(times: np.ndarray, segments: Sequence[Segment], boundaries: Boundaries) -> WholeLabels:
    """The class of each slot of a video. Where segments (sorted by start) overlap, the later one wins.

    Here the authors' nearest-slot rule ends half a slot beyond the video: a segment far behind its end would otherwise
    overwrite what its last slot shows.
    """
    labels = np.full(len(times), IGNORED)
    owners = np.zeros(len(times), dtype=int)
    inside = [segment for segment, far in zip(segments, outside(times, segments), strict=True) if not far]
    for (first, stop), segment in zip(segment_slots(times, inside, boundaries), inside, strict=True):
        labels[first:stop] = segment.label
        owners[first:stop] += 1
    nearest = sum(first >= stop for first, stop in own_slots(times, inside, boundaries))
    return WholeLabels(labels, int((owners > 1).sum()), nearest, len(segments) - len(inside))


class TakeSlots(NamedTuple):
    """One of the authors' training sequences as slots of its video."""

    slots: np.ndarray
    """(T,) int64 slot of the video that each slot of the sequence repeats."""
    labels: np.ndarray
    """(T,) int64"""
    lengths: list[int]
    """Slots of each segment; neighbours may have the same class."""
    cut: int
    """Background slots that were left out."""
    nearest: int
    """Segments without a slot of their own that got the nearest one, however far."""


def take_slots(
    times: np.ndarray, segments: Sequence[Segment], boundaries: Boundaries, background_limit: int = 0
) -> TakeSlots:
    """The labelled segments (sorted) end to end: gaps vanish, overlaps repeat slots, time is no longer video time.

    background_limit: background segments keep their first slots, this many; 0 keeps all.
    """
    parts, cut = [], 0
    for (first, stop), segment in zip(segment_slots(times, segments, boundaries), segments, strict=True):
        limit = background_limit if background_limit and segment.label == BACKGROUND else stop - first
        parts.append(np.arange(first, min(stop, first + limit)))
        cut += stop - first - len(parts[-1])
    lengths = [len(part) for part in parts]
    labels = np.repeat([segment.label for segment in segments], lengths)
    nearest = sum(first >= stop for first, stop in own_slots(times, segments, boundaries))
    return TakeSlots(np.concatenate(parts), labels, lengths, cut, nearest)
