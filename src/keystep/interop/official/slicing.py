"""Assignment of slots to segments, and the authors' training sequences of segments.

A segment contains the slots with start <= time < end; if there are none, it gets the slot nearest to its middle (on
ties the earlier one). Because times are rounded to float32, there are two ways to compare them:

- ``exact``: times and bounds are rounded, so a time within one float32 step plus half of a bound's last decimal (as
  written in the manifest) *equals* the bound, and its slot belongs to the segment that starts there;
- ``float32``: the authors' comparison of the rounded time with the decimal bound. A time that was rounded down belongs
  to the previous segment, which affects 30 % of the slots on a bound with FACT's times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from keystep.data.annotation import IGNORED
from keystep.interop.official.manifests import BACKGROUND, Segment

Boundaries = Literal["exact", "float32"]


def first_slots(times: np.ndarray, bounds: np.ndarray, halves: np.ndarray, boundaries: Boundaries) -> np.ndarray:
    """(B,) index of the first slot at or after each bound; the number of slots if there is none.

    Args:
        times: (T,) float64, non-decreasing.
        bounds: (B,) seconds.
        halves: (B,) maximum rounding error of the bounds.
        boundaries: how to compare.
    """
    if boundaries == "float32":
        first: np.ndarray = np.searchsorted(times, bounds, side="left")
    else:
        first = np.searchsorted(times + _steps(times), bounds - halves, side="left")
    return first


def _steps(times: np.ndarray) -> np.ndarray:
    """(T,) float32 spacing at each time."""
    steps: np.ndarray = np.spacing(np.abs(times).astype(np.float32)).astype(np.float64)
    return steps


def segment_slots(times: np.ndarray, segments: Sequence[Segment], boundaries: Boundaries) -> list[tuple[int, int]]:
    """(first slot, last slot + 1) of each segment, at least one slot for each."""
    slots = []
    for (first, stop), segment in zip(own_slots(times, segments, boundaries), segments, strict=True):
        if first >= stop:
            first = _nearest(times, segment, boundaries)
            stop = first + 1
        slots.append((first, stop))
    return slots


def own_slots(times: np.ndarray, segments: Sequence[Segment], boundaries: Boundaries) -> list[tuple[int, int]]:
    """(first slot, last slot + 1) of each segment; empty if it contains no slot."""
    bounds = np.array([(segment.start, segment.end) for segment in segments]).reshape(-1)
    halves = np.array([segment.halves for segment in segments]).reshape(-1)
    return [(first, stop) for first, stop in first_slots(times, bounds, halves, boundaries).reshape(-1, 2).tolist()]


def _nearest(times: np.ndarray, segment: Segment, boundaries: Boundaries) -> int:
    """The slot nearest to a segment's middle, on ties the earlier one."""
    distances = np.abs(times - (segment.start + segment.end) / 2)
    rounding = _steps(times)[distances.argmin()] + max(segment.halves)
    tie = 0.0 if boundaries == "float32" else 2 * rounding
    return int(np.argmax(distances <= distances.min() + tie))


def slot_seconds(times: np.ndarray) -> float:
    """Duration of a slot: the median over four slots (FACT's alternate); 0 if unknown."""
    steps = min(4, len(times) - 1)
    return float(np.median(times[steps:] - times[:-steps])) / steps if steps > 0 else 0.0


def outside(times: np.ndarray, segments: Sequence[Segment]) -> np.ndarray:
    """(B,) bool: the segment is more than half a slot before the first or after the last slot."""
    starts, ends = np.array([(segment.start, segment.end) for segment in segments]).reshape(-1, 2).T
    reach = slot_seconds(times) / 2 + np.array([max(segment.halves) for segment in segments])
    far: np.ndarray = (ends < times[0] - reach) | (starts > times[-1] + reach)
    return far


class OnBounds(NamedTuple):
    """Number of slots affected by the comparison."""

    slots: int
    """Slots exactly on a bound."""
    moved: int
    """Those that the float32 comparison places before the bound."""


def on_bounds(times: np.ndarray, segments: Sequence[Segment]) -> OnBounds:
    """Count the slots of a video that are exactly on a bound of a segment."""
    every = [pair for segment in segments for pair in zip((segment.start, segment.end), segment.halves, strict=True)]
    bounds, halves = np.array(sorted(dict(sorted(every)).items())).reshape(-1, 2).T  # equal bounds: largest half
    exact = first_slots(times, bounds, halves, "exact")
    after = np.searchsorted(times - _steps(times), bounds + halves, side="right")
    naive = first_slots(times, bounds, halves, "float32")
    return OnBounds(int((after - exact).sum()), int((np.minimum(naive, after) - exact).sum()))


class WholeLabels(NamedTuple):
    """The labels of a whole video, with counts of ambiguous cases."""

    labels: np.ndarray
    """(T,) int64 class of each slot, `IGNORED` outside of all segments."""
    shared: int
    """Slots in several segments."""
    nearest: int
    """Segments without a slot, which were assigned to the nearest one."""
    outside: int
    """Segments outside of their video, which were skipped."""


def whole_labels(times: np.ndarray, segments: Sequence[Segment], boundaries: Boundaries) -> WholeLabels:
    """The class of each slot of a video. If segments (sorted by start) overlap, the later one wins.

    Unlike in the authors' code, segments more than half a slot outside of the video are not assigned to the nearest
    slot, because they would overwrite the label of the first or last slot.
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
    """(T,) int64 slot of the video for each slot of the sequence."""
    labels: np.ndarray
    """(T,) int64"""
    lengths: list[int]
    """Number of slots of each segment; adjacent segments may have the same class."""
    cut: int
    """Number of removed background slots."""
    nearest: int
    """Segments without a slot, which were assigned to the nearest one at any distance."""


def take_slots(
    times: np.ndarray, segments: Sequence[Segment], boundaries: Boundaries, background_limit: int = 0
) -> TakeSlots:
    """Concatenate the labelled segments (sorted): gaps are removed, overlaps are repeated, and times are not those of
    the video.

    background_limit: number of slots to keep at the start of background segments; 0: all.
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
