"""Streaming scores: by frame, and by true segment (ORACLE) as in the paper's tables.

P-JEPA's streaming results on EgoProceL are from models that know the segment boundaries. How their predictions are
scored is not published, except for the names of the metrics. We infer that with known boundaries a system may combine
its answers over a segment, so each true segment gets one prediction: the majority of its frames, or that of its last
frame. No live system knows the boundaries, so these scores are marked as ORACLE.

By frame, there are two valid scores: of the *final* answer of each frame, which is reported with its delay, and of the
answers that are available *at the moment*, at each frame's own time, when delayed answers are still missing.
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
"""Answer before the first one is available: always wrong, and not a segment."""


def score_at_the_moment(
    predictions: Sequence[Ids],
    truths: Sequence[Ids],
    *,
    delays: Sequence[Ids | int],
    background: Collection[int] = (),
    protocol: str = "pooled",
) -> dict[str, float]:
    """`segmentation_scores` of the answers that are available at each frame's own time; see `at_the_moment`.

    Args:
        predictions, truths: (T,) array for each video.
        delays: slots from each frame to its answer: (T,) for each video, or one number for all of its frames.
        background: class ids of the background.
        protocol: of the metrics.

    Raises:
        InputError: a negative delay, or invalid arguments of `segmentation_scores`.
    """
    available = [at_the_moment(answer, delay) for answer, delay in _zip_videos(predictions, delays)]
    return segmentation_scores(available, truths, [*background, SILENCE], protocol)


def at_the_moment(predictions: Ids, delays: Ids | int) -> Ids:
    """(T,) the newest answer that is available at each time; `SILENCE` before the first one.

    delays: slots from each frame to its answer; frame s is answered at time s + delay.
    """
    answered = np.arange(len(predictions)) + _delays(delays, len(predictions), 0)
    newest = np.full(len(predictions), -1, dtype=np.int64)
    in_time = answered < len(predictions)
    np.maximum.at(newest, answered[in_time], np.flatnonzero(in_time))
    newest = np.maximum.accumulate(newest)
    available: Ids = np.where(newest >= 0, np.asarray(predictions)[newest], SILENCE)
    return available


def score_segments(
    predictions: Sequence[Ids],
    truths: Sequence[Ids],
    *,
    lengths: Sequence[Sequence[int]] | None = None,
    choice: Choice = "majority",
    background: Collection[int] = (),
    protocol: str = "pooled",
) -> dict[str, float]:
    """Score one prediction for each true segment (ORACLE).

    Args:
        predictions, truths: (T,) array for each video.
        lengths: of the true segments of each video; adjacent ones may share a label. None: runs of one label.
        choice: ``majority`` of the segment's frames (the smallest id on ties), or the prediction at its ``last`` frame.
        background: class ids of the background.
        protocol: of the metrics.

    Returns:
        `segmentation_scores` with each segment filled by its prediction, and the percentage of correct segments as
        ``segments`` and ``segments_foreground``.

    Raises:
        InputError: lengths that do not add up to the frames, or invalid arguments of `segmentation_scores`.
    """
    if choice not in ("majority", "last"):
        raise InputError(f"unknown choice {choice!r}; expected 'majority' or 'last'")
    runs = [segment_lengths(np.asarray(truth)) for truth in truths] if lengths is None else lengths
    filled, right, counted = [], np.zeros(2), np.zeros(2)
    for index, (prediction, (truth, video)) in enumerate(_zip_videos(predictions, list(_zip_videos(truths, runs)))):
        if sum(video) != len(truth) or len(prediction) != len(truth):
            raise InputError(
                f"video {index}: {len(prediction)} predictions, {len(truth)} true labels and segments of {sum(video)} "
                "frames; expected equal numbers"
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
    """Delays as (T,) slots; InputError if invalid."""
    slots = np.broadcast_to(np.asarray(delays, dtype=np.int64), (frames,)) if np.ndim(delays) == 0 else delays
    slots = np.asarray(slots, dtype=np.int64)
    if slots.shape != (frames,) or (slots < 0).any():
        raise InputError(f"video {video}: delays must be non-negative, of shape ({frames},), not {slots.shape}")
    return slots


def _zip_videos(first: Sequence[First], second: Sequence[Second]) -> Iterator[tuple[First, Second]]:
    """Pair the items of each video."""
    if len(first) != len(second):
        raise InputError(f"expected one item for each video, not {len(first)} and {len(second)}")
    return zip(first, second, strict=True)
