"""Which slots of a video belong to which segment, and the authors' training sequences made of them.

A segment owns the slots with start <= time < end; one that owns none takes the slot nearest to its middle (the earlier
on ties). What "<=" means for times that were rounded to float32 is a choice:

- ``exact``: times are roundings of decimals, so a time within one float32 step (and half of a manifest's last decimal)
  of a bound *is* the bound, and its slot belongs to the segment that starts there;
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
HALF_DECIMAL = 5e-7
"""Half of the last decimal of a manifest's seconds."""


def first_slots(times: np.ndarray, bounds: np.ndarray, boundaries: Boundaries) -> np.ndarray:
    """(B,) index of the first slot at or after each bound; the number of slots where none is.

    times: (T,) float64, never falling. bounds: (B,) seconds.
    """
    reached = times if boundaries == "float32" else times + _tolerance(times)
    first: np.ndarray = np.searchsorted(reached, bounds, side="left")
    return first


def _tolerance(times: np.ndarray) -> np.ndarray:
    """(T,) how far a rounded time may lie from the decimal that it stands for."""
    steps: np.ndarray = np.spacing(np.abs(times).astype(np.float32)).astype(np.float64)
    return steps + HALF_DECIMAL


def segment_slots(times: np.ndarray, segments: Sequence[Segment], boundaries: Boundaries) -> list[tuple[int, int]]:
    """(first slot, last slot + 1) of each segment, at least one slot each."""
    bounds = np.array([(segment.start, segment.end) for segment in segments]).reshape(-1)
    places = first_slots(times, bounds, boundaries).reshape(-1, 2).tolist()
    slots = []
    for (first, stop), segment in zip(places, segments, strict=True):
        if first >= stop:
            first = _nearest(times, (segment.start + segment.end) / 2, boundaries)
            stop = first + 1
        slots.append((first, stop))
    return slots


def _nearest(times: np.ndarray, moment: float, boundaries: Boundaries) -> int:
    """The slot nearest to a moment, the earlier on ties."""
    distances = np.abs(times - moment)
    tie = 0.0 if boundaries == "float32" else 2 * _tolerance(times)[distances.argmin()]
    return int(np.argmax(distances <= distances.min() + tie))


class OnBounds(NamedTuple):
    """How much hangs on the comparison."""

    slots: int
    """Slots that lie exactly on a bound."""
    moved: int
    """Those of them that the float32 comparison puts before the bound."""


def on_bounds(times: np.ndarray, segments: Sequence[Segment]) -> OnBounds:
    """Count the slots of a video that lie exactly on a bound of a segment."""
    bounds = np.unique([bound for segment in segments for bound in (segment.start, segment.end)])
    exact = first_slots(times, bounds, "exact")
    after = np.searchsorted(times - _tolerance(times), bounds, side="right")
    naive = first_slots(times, bounds, "float32")
    return OnBounds(int((after - exact).sum()), int((np.minimum(naive, after) - exact).sum()))


def whole_labels(times: np.ndarray, segments: Sequence[Segment], boundaries: Boundaries) -> tuple[np.ndarray, int]:
    """(T,) int64 class of each slot of a video, `IGNORED` outside of all segments, and the slots that several claim.

    Where segments (sorted by start) overlap, the later one wins.
    """
    labels = np.full(len(times), IGNORED)
    owners = np.zeros(len(times), dtype=int)
    for (first, stop), segment in zip(segment_slots(times, segments, boundaries), segments, strict=True):
        labels[first:stop] = segment.label
        owners[first:stop] += 1
    return labels, int((owners > 1).sum())


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
    return TakeSlots(np.concatenate(parts), labels, lengths, cut)
