"""Alignment of the frames of a video to an ordered list of its steps, by dynamic programming.

An alignment gives each frame a place in the list, or none, and places never decrease over time. Its value is the sum of

- the score of each frame for the step at its place (a log-probability),
- ``drop`` for each frame that has no place, which may lie between steps, at the ends, or within a step,
- ``-skip`` for each place without a frame.

The best of all alignments is found in O(T K) for T frames and K steps. It is Drop-DTW (Dvornik et al., NeurIPS 2021)
with one step at a time for each frame, several frames for each step, and stated costs instead of percentiles.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from keystep.errors import InputError

Scores = npt.NDArray[np.floating]
Places = npt.NDArray[np.int64]

NOWHERE = -1
"""The place of a frame that belongs to no step."""


def align(scores: Scores, *, skip: float | None = None, drop: float | None = None) -> Places:
    """The best alignment of a video.

    Args:
        scores: (T, K) score of each frame for each step of the list, finite; a step that is listed twice has two equal
            columns.
        skip: cost of a step without a frame, at least 0. None: every step has a frame.
        drop: score of a frame that belongs to no step. None: every frame belongs to one.

    Returns:
        (T,) place of each frame in the list, `NOWHERE` for none. Among equally good alignments, a frame rather stays at
        the place of the one before than moves on, and rather has a place than none.

    Raises:
        InputError: no frame or no step, scores that are not finite, a negative cost, or fewer frames than steps where
            none may be skipped.
    """
    values = _checked(scores, skip, drop)
    frames, steps = values.shape
    # best[k]: value of the frames so far if the last place was k - 1; k = 0 where all of them were dropped.
    best = np.full(steps + 1, -np.inf)
    best[0] = 0.0
    came_from = np.empty((frames, steps + 1), dtype=np.int32)
    dropped = np.zeros((frames, steps + 1), dtype=bool)
    stay = np.arange(steps + 1, dtype=np.int32)
    for time, row in enumerate(values):
        entered, source = _entered(best, skip)
        moved = entered > best[1:]
        came_from[time] = stay
        came_from[time, 1:][moved] = source[moved]
        following = np.append(-np.inf, row + np.where(moved, entered, best[1:]))
        if drop is not None:
            dropped[time] = best + drop > following
            following = np.where(dropped[time], best + drop, following)
        best = following
    left = np.arange(steps, -1, -1)  # steps after the last place
    ends = best - skip * left if skip is not None else np.where(left == 0, best, -np.inf)
    return _traced(int(ends.argmax()), came_from, dropped)


def uniform(frames: int, steps: int) -> Places:
    """The alignment that gives every step the same share of the frames: (frames,) places."""
    return np.arange(frames, dtype=np.int64) * steps // frames


def place_scores(frames: int, steps: int) -> npt.NDArray[np.float64]:
    """(frames, steps) log-probability of each place if the borders between steps were anywhere, all equally likely."""
    time = (np.arange(frames)[:, None] + 0.5) / frames
    return np.asarray(binom.logpmf(np.arange(steps), steps - 1, time))


def _entered(best: npt.NDArray[np.float64], skip: float | None) -> tuple[npt.NDArray[np.float64], Places]:
    """Value of entering each place from an earlier one, (K,), and the state that it is entered from, (K,)."""
    places = np.arange(len(best) - 1)
    if skip is None:
        return best[:-1], places
    # From state j to place k, k - j steps are skipped: the running maximum of best[j] + skip j, minus skip k.
    raised = best[:-1] + skip * places
    highest = np.maximum.accumulate(raised)
    first = np.append(True, raised[1:] > highest[:-1])
    return highest - skip * places, np.maximum.accumulate(np.where(first, places, 0))


def _traced(state: int, came_from: npt.NDArray[np.int32], dropped: npt.NDArray[np.bool_]) -> Places:
    """Places of the path that ends in a state."""
    places = np.full(len(came_from), NOWHERE, dtype=np.int64)
    for time in range(len(came_from) - 1, -1, -1):
        if not dropped[time, state]:
            places[time] = state - 1
            state = int(came_from[time, state])
    return places


def _checked(scores: Scores, skip: float | None, drop: float | None) -> npt.NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or 0 in values.shape:
        raise InputError(f"scores have shape {values.shape}; expected (T, K), with a frame and a step at least")
    if not np.isfinite(values).all():
        raise InputError("scores have NaN or infinite values")
    if skip is not None and not 0 <= skip < np.inf:
        raise InputError(f"skip {skip:g}: the cost of a step without a frame is a finite number, 0 at least")
    if drop is not None and not np.isfinite(drop):
        raise InputError(f"drop {drop:g}: the score of a frame that belongs to no step is a finite number")
    if skip is None and values.shape[0] < values.shape[1]:
        raise InputError(f"{values.shape[0]} frames for {values.shape[1]} steps; let steps be skipped (skip=...)")
    return values
