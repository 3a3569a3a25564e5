"""What is to be foreseen, from the labels of a video: later steps, the next step and its start, and the time left."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from keystep.data.annotation import IGNORED

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class NextSteps(NamedTuple):
    """For each slot of a video the step after the current one.

    Attributes:
        steps: (T,) class ids; the number of classes where the video ends with the current step, -100 if unknown.
        slots: (T,) slots until it starts, at least 1; NaN if unknown.
    """

    steps: Ids
    slots: Floats


def later_steps(labels: Ids, slots: int, classes: int) -> Ids:
    """The step ``slots`` later, (T,) class ids; ``classes`` where the video is over by then, -100 if unlabelled."""
    ahead = np.full(len(labels), classes, dtype=np.int64)
    kept = max(0, len(labels) - slots)
    ahead[:kept] = labels[slots:]
    return ahead


def next_steps(labels: Ids, classes: int) -> NextSteps:
    """The step after the current one, at every slot of a video with labels (T,); -100 stands for no label."""
    starts = np.flatnonzero(np.diff(labels)) + 1
    bounds = np.concatenate([starts, [len(labels)]])
    place = np.searchsorted(starts, np.arange(len(labels)), side="right")
    after = np.concatenate([labels[starts], [classes]])
    steps = np.where(labels == IGNORED, IGNORED, after[place])
    slots = np.where(steps == IGNORED, np.nan, (bounds[place] - np.arange(len(labels))).astype(np.float64))
    return NextSteps(steps, slots)


def remaining_slots(length: int) -> Floats:
    """(T,) slots of the video that follow each one."""
    return np.arange(length - 1, -1, -1, dtype=np.float64)


def ages(steps: Ids) -> Ids:
    """(T,) how many slots each slot is after the start of its run of equal steps; 0 at its start."""
    index = np.arange(len(steps))
    starts = np.concatenate([[True], np.diff(steps) != 0]) if len(steps) else np.zeros(0, bool)
    return index - np.maximum.accumulate(np.where(starts, index, 0))
