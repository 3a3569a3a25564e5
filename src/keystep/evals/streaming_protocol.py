"""Scores of a stream: by frames, as a live system is met, and by true segments (ORACLE), as the paper's tables are.

P-JEPA's streaming rows on EgoProceL come from models that are told where segments begin and end; how its predictions
become scores there is not published beyond the metrics' names. What is inferred here: with boundaries known, a system
may gather its answers over a segment and give one, so each true segment has one prediction (its majority, or its last
frame's). No live system has those boundaries, so everything of the kind carries ORACLE in its name.

By frames there are two readings, both honest: *final*, the label that a frame gets in the end, whose delay is said
beside it; and *at the moment*, what the system would say at a frame's own time, when delayed answers are not there yet.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from keystep.data.annotation import IGNORED, segment_lengths
from keystep.errors import InputError
from keystep.metrics import segmentation_scores

Ids = npt.NDArray[np.int64]
Choice = Literal["majority", "last"]
First = TypeVar("First")
Second = TypeVar("Second")

SILENCE = -1
"""The answer before the first one is there: wrong on every frame, and no segment."""


def score_at_the_moment(
    predictions: Sequence[Ids],
    truths: Sequence[Ids],
    *,
    delays: Sequence[Ids | int],
    background: Collection[int] = (),
    protocol: str = "pooled",
) -> dict[str, float]:
    """`segmentation_scores` of what the system says at each frame's own time; see `at_the_moment`.

    Args:
        predictions, truths: one (T,) array a video.
        delays: slots from each frame to its answer: (T,) a video, or one number for all of its frames.

    Raises:
        InputError: a negative delay, or what `segmentation_scores` refuses.
    """
    said = [at_the_moment(answer, delay) for answer, delay in _together(predictions, delays)]
    return segmentation_scores(said, truths, [*background, SILENCE], protocol)


def at_the_moment(predictions: Ids, delays: Ids | int) -> Ids:
    """(T,) the newest frame's answer among those that are there at each time; `SILENCE` before the first.

    delays: slots from each frame to its answer; frame s is answered at time s + delay.
    """
    answered = np.arange(len(predictions)) + _delays(delays, len(predictions), 0)
    newest = np.full(len(predictions), -1, dtype=np.int64)
    in_time = answered < len(predictions)
    np.maximum.at(newest, answered[in_time], np.flatnonzero(in_time))
    newest = np.maximum.accumulate(newest)
    said: Ids = np.where(newest >= 0, np.asarray(predictions)[newest], SILENCE)
    return said


def score_segments(
    predictions: Sequence[Ids],
    truths: Sequence[Ids],
    *,
    lengths: Sequence[Sequence[int]] | None = None,
    choice: Choice = "majority",
    background: Collection[int] = (),
    protocol: str = "pooled",
) -> dict[str, float]:
    """One prediction for each true segment, ORACLE: `segmentation_scores` with them filled in, and the share (0-100) of
    right ones, as ``segments`` and ``segments_foreground``.

    Args:
        lengths: of the true segments of each video, where neighbours may share a label; by default runs of one label.
        choice: ``majority`` of the segment's frames (the smaller id on ties), or the prediction at its ``last`` one.

    Raises:
        InputError: lengths that do not sum to a video's frames, or what `segmentation_scores` refuses.
    """
    if choice not in ("majority", "last"):
        raise InputError(f"segments are answered by their majority or their last frame, not by {choice!r}")
    runs = [segment_lengths(np.asarray(truth)) for truth in truths] if lengths is None else lengths
    filled, right, counted = [], np.zeros(2), np.zeros(2)
    for index, (prediction, (truth, video)) in enumerate(_together(predictions, list(_together(truths, runs)))):
        if sum(video) != len(truth) or len(prediction) != len(truth):
            raise InputError(
                f"video {index}: {len(prediction)} predictions and {len(truth)} true labels, in segments of "
                f"{sum(video)} frames"
            )
        ends = np.cumsum(video, dtype=np.int64)
        chosen = np.array([_answer(prediction[end - n : end], choice) for end, n in zip(ends, video, strict=True)])
        wanted = np.asarray(truth)[ends - 1] if len(ends) else np.zeros(0, dtype=np.int64)
        known, foreground = wanted != IGNORED, ~np.isin(wanted, list(background))
        for row, kept in enumerate((known, known & foreground)):
            right[row] += (chosen == wanted)[kept].sum() if len(wanted) else 0
            counted[row] += kept.sum()
        filled.append(np.repeat(chosen, video).astype(np.int64))
    scores = segmentation_scores(filled, truths, list(background), protocol)
    shares = 100 * right / np.maximum(counted, 1)
    return scores | {"segments": float(shares[0]), "segments_foreground": float(shares[1])}


def _answer(predictions: Ids, choice: Choice) -> int:
    if choice == "last":
        return int(predictions[-1])
    labels, counts = np.unique(predictions, return_counts=True)
    return int(labels[counts.argmax()])


def _delays(delays: Ids | int, frames: int, video: int) -> Ids:
    """(T,) slots."""
    slots = np.broadcast_to(np.asarray(delays, dtype=np.int64), (frames,)) if np.ndim(delays) == 0 else delays
    slots = np.asarray(slots, dtype=np.int64)
    if slots.shape != (frames,) or (slots < 0).any():
        raise InputError(f"video {video}: delays of shape {slots.shape} for {frames} frames; one a frame, 0 or more")
    return slots


def _together(first: Sequence[First], second: Sequence[Second]) -> Iterator[tuple[First, Second]]:
    """Pairs of what belongs to one video."""
    if len(first) != len(second):
        raise InputError(f"{len(first)} and {len(second)} videos; give one of each for every video")
    return zip(first, second, strict=True)
