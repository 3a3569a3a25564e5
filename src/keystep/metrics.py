"""Frame accuracy, edit and F1@10/25/50 of temporal action segmentation, always 0-100.

The same predictions score points apart in the field's repositories, because each has its own conventions. Here a
convention is a named `Protocol`, one row of `PROTOCOLS`, so that a table can say which one it used. All of them share:

- a segment is a maximal run of one label, and its end is its last frame + 1;
- edit is 100 (1 - Levenshtein(predicted, true) / max(lengths)) over the segments' labels of one video;
- F1@k: each predicted segment looks only at the true segment of its class with the best intersection over union (the
  earliest among equals), and is a true positive where that is >= k and no earlier prediction took the segment;
- background is what the caller names, nothing is guessed from names: its segments are dropped without merging their
  neighbours, in the prediction and in the truth, and the foreground accuracy leaves out frames whose truth it is;
- frames whose true class id is -100 have no label: they are cut out of the prediction and of the truth before segments
  are formed, so what stood on both sides of a gap meets, and a video without any labelled frame counts nowhere;
- every score is a finite number: edit is 100 where no segment is left on either side, and any other score that has
  nothing to score (no frame, no foreground frame, no segment on either side) is 0, never a free point.

Everything that a score needs of a video adds up over videos (`Tally`), so a bootstrap tallies each video once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keystep.data.annotation import IGNORED
from keystep.errors import InputError

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Labels = Sequence[int] | Sequence[str] | Array
"""(T,) class ids or class names of the frames of one video."""
Background = Collection[int] | Collection[str] | Array
"""The classes that do not count as a step."""

OVERLAPS = (0.10, 0.25, 0.50)
"""Smallest intersection over union of a true positive, for F1@10, F1@25 and F1@50."""


@dataclass(frozen=True)
class Protocol:
    """One convention of turning videos into scores."""

    source: str
    """Whose convention it is."""
    per_video: bool = False
    """Score each video, then average, instead of adding up frames and segments first. A video that has nothing to
    score is left out of that score's average."""
    foreground_only: bool = False
    """`accuracy` leaves out background frames too, so that it repeats `accuracy_foreground`."""
    epsilon: float = 0.0
    """Added to the denominators of precision, recall and F1, which keeps a perfect F1 just below 100."""


PROTOCOLS = {
    "pooled": Protocol("MS-TCN's: frames and segments added up over videos, edit averaged over videos"),
    "video-mean": Protocol("LTContext's", per_video=True),
    "fact": Protocol("FACT's", foreground_only=True, epsilon=1e-5),
    "official": Protocol("the P-JEPA authors', held to their golden values; equal to pooled"),
}


@dataclass(frozen=True)
class Tally:
    """What the scores need of one video, or of several together (`+`)."""

    frames: Ints
    """(2, 2) right frames and all frames; below, the same for those whose truth is not background."""
    edit: npt.NDArray[np.float64]
    """(2,) sum of the edit scores (0-100), and the number of videos."""
    matches: Ints
    """(3, 3) one row for each of `OVERLAPS`: true positives, false positives, false negatives."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.frames + other.frames, self.edit + other.edit, self.matches + other.matches)


def segmentation_scores(
    predictions: Sequence[Labels], truths: Sequence[Labels], background: Background = (), protocol: str = "pooled"
) -> dict[str, float]:
    """Score the predicted labels of videos against the true ones.

    predictions, truths: one (T,) sequence of class ids or class names for each video, T its own. background: classes
    left out of edit, F1 and `accuracy_foreground`; with none, that repeats `accuracy`. protocol: a key of `PROTOCOLS`.

    Returns accuracy, accuracy_foreground, edit, f1@10, f1@25 and f1@50, all finite, 0-100.

    Raises:
        InputError: an unknown protocol; no videos, or unequal numbers of them; a video whose two sequences are not
            1-D, differ in length, or are not both ids or both names.
    """
    if len(predictions) != len(truths):
        raise InputError(f"{len(predictions)} predictions for {len(truths)} truths; give one of each for every video")
    tallies = [
        tally_video(prediction, truth, background, name=f"video {index}")
        for index, (prediction, truth) in enumerate(zip(predictions, truths, strict=True))
    ]
    return score_tallies(tallies, protocol)


def score_tallies(tallies: Sequence[Tally], protocol: str = "pooled") -> dict[str, float]:
    """`segmentation_scores` of videos that are tallied already, with its errors."""
    if protocol not in PROTOCOLS:
        raise InputError(f"unknown protocol {protocol!r}; known: {', '.join(PROTOCOLS)}")
    if not tallies:
        raise InputError("no videos to score")
    chosen = PROTOCOLS[protocol]
    groups = tallies if chosen.per_video else [sum(tallies[1:], start=tallies[0])]
    columns = [_scores(group, chosen) for group in groups]
    return {score: _mean_of_defined([column[score] for column in columns]) for score in columns[0]}


def tally_video(prediction: Labels, truth: Labels, background: Background = (), *, name: str = "video") -> Tally:
    """Compare the (T,) predicted labels of one video with the (T,) true ones. name: how errors call the video.

    Raises InputError as `segmentation_scores` does.
    """
    predicted, true, dropped = _checked(prediction, truth, background, name)
    right, kept = predicted == true, ~np.isin(true, dropped)
    counts = float(len(true) > 0 or len(truth) == 0)  # not where all frames were cut out
    return Tally(
        frames=np.array([[right.sum(), right.size], [(right & kept).sum(), kept.sum()]], dtype=np.int64),
        edit=counts * np.array([edit_score(predicted, true, dropped), 1.0]),
        matches=segment_matches(predicted, true, dropped),
    )


def segments(labels: Labels) -> tuple[Array, Ints, Ints]:
    """Maximal runs of one label in (T,) labels: their (S,) labels, (S,) first frames and (S,) last frames + 1.

    Raises InputError for labels that are not 1-D, or neither ids nor names.
    """
    frames = _as_labels(labels, "labels")
    bounds = np.flatnonzero(frames[1:] != frames[:-1]).astype(np.int64) + 1
    starts = np.concatenate([np.zeros(min(1, len(frames)), dtype=np.int64), bounds])
    return frames[starts], starts, np.append(starts, len(frames))[1:]


def edit_score(prediction: Labels, truth: Labels, background: Background = ()) -> float:
    """Edit score of one video, 0-100; 100 where neither side has a segment that is not background.

    Raises InputError as `segmentation_scores` does.
    """
    predicted, true, dropped = _checked(prediction, truth, background)
    steps = [labels[~np.isin(labels, dropped)] for labels in (segments(predicted)[0], segments(true)[0])]
    longest = max(map(len, steps))
    if not longest:
        return 100.0
    codes = np.unique(np.concatenate(steps), return_inverse=True)[1]
    return 100.0 * (1.0 - _levenshtein(codes[: len(steps[0])], codes[len(steps[0]) :]) / longest)


def segment_matches(prediction: Labels, truth: Labels, background: Background = ()) -> Ints:
    """True positives, false positives and false negatives of one video: (3, 3), a row for each of `OVERLAPS`.

    Raises InputError as `segmentation_scores` does.
    """
    predicted, true, dropped = _checked(prediction, truth, background)
    labels_p, starts_p, ends_p = segments(predicted)
    labels_t, starts_t, ends_t = segments(true)
    kept_p, kept_t = ~np.isin(labels_p, dropped), ~np.isin(labels_t, dropped)

    # Between two neighbouring cuts lies one predicted and one true segment, and two segments share at most one such
    # piece: the pieces are all pairs that overlap, S_p + S_t - 1 at most, so no S_p x S_t table is needed.
    cuts = np.union1d(starts_p, starts_t)
    shared = np.append(cuts, len(true))[1:] - cuts
    pair_p = np.searchsorted(starts_p, cuts, side="right") - 1
    pair_t = np.searchsorted(starts_t, cuts, side="right") - 1
    same = (labels_p[pair_p] == labels_t[pair_t]) & kept_p[pair_p]
    pair_p, pair_t, shared = pair_p[same], pair_t[same], shared[same]
    overlap = shared / ((ends_p - starts_p)[pair_p] + (ends_t - starts_t)[pair_t] - shared)

    order = np.lexsort((pair_t, -overlap, pair_p))  # by prediction, best overlap first, then earliest truth
    best = order[np.unique(pair_p[order], return_index=True)[1]]
    rows = []
    for least in OVERLAPS:
        hits = len(np.unique(pair_t[best][overlap[best] >= least]))  # a truth that several chose counts once
        rows.append((hits, kept_p.sum() - hits, kept_t.sum() - hits))
    return np.array(rows, dtype=np.int64)


def _scores(tally: Tally, protocol: Protocol) -> dict[str, float]:
    """The six scores; nan where there is nothing to score."""
    everywhere, foreground = (100.0 * right / total if total else np.nan for right, total in tally.frames.tolist())
    return {
        "accuracy": foreground if protocol.foreground_only else everywhere,
        "accuracy_foreground": foreground,
        "edit": float(tally.edit[0] / tally.edit[1]) if tally.edit[1] else np.nan,
    } | {
        f"f1@{100 * overlap:.0f}": _f1(hits, false, missed, protocol.epsilon)
        for overlap, (hits, false, missed) in zip(OVERLAPS, tally.matches.tolist(), strict=True)
    }


def _mean_of_defined(scores: Sequence[float]) -> float:
    defined = [score for score in scores if not np.isnan(score)]
    return float(np.mean(defined)) if defined else 0.0


def _f1(hits: int, false: int, missed: int, epsilon: float) -> float:
    """F1, 0-100, of true positives, false positives and false negatives; nan without a segment on either side."""
    if not hits:
        return 0.0 if false or missed else np.nan
    precision, recall = hits / (hits + false + epsilon), hits / (hits + missed + epsilon)
    return 100.0 * 2.0 * precision * recall / (precision + recall + epsilon)


def _levenshtein(first: Array, second: Array) -> int:
    """Smallest number of insertions, deletions and replacements that turn (n,) codes into (m,) codes."""
    shorter, longer = sorted((first, second), key=len)
    position = np.arange(len(longer) + 1)
    row = position
    for done, code in enumerate(shorter, start=1):
        without_insertion = np.minimum(row[1:] + 1, row[:-1] + (longer != code))
        # An insertion costs one for each position to the right: a running minimum of cost - position.
        row = np.minimum.accumulate(np.append(done, without_insertion) - position) + position
    return int(row[-1])


def _checked(prediction: Labels, truth: Labels, background: Background, name: str = "video") -> tuple[Array, ...]:
    """The three label arguments as arrays that can be compared with each other, without the unlabelled frames."""
    if isinstance(background, str) or not isinstance(background, Iterable):
        raise InputError(f"background is a collection of classes, such as [{background!r}], not {background!r} alone")
    predicted, true = _as_labels(prediction, f"{name}: the prediction"), _as_labels(truth, f"{name}: the truth")
    dropped = _as_labels(list(background), "background")
    if len(predicted) != len(true):
        raise InputError(f"{name}: the prediction has {len(predicted)} frames and the truth {len(true)}")
    for what, labels in (("prediction", predicted), ("background", dropped)):
        if len(labels) and len(true) and labels.dtype.kind != true.dtype.kind:
            raise InputError(f"{name}: {what} and truth must be both class ids or both class names")
    labelled = true != IGNORED if true.dtype.kind == "i" else np.ones(len(true), dtype=bool)
    return predicted[labelled], true[labelled], dropped


def _as_labels(labels: Any, name: str) -> Array:
    """A (T,) array of int64 ids or of names."""
    try:
        frames = np.asarray(labels)
        if frames.dtype.kind in "OT":  # names as Python objects or as variable-width strings
            frames = np.asarray(frames.tolist())
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: not a 1-D sequence of class ids or class names ({error})") from error
    if frames.ndim != 1:
        raise InputError(f"{name} has shape {frames.shape}; expected (T,), one label a frame")
    if not len(frames) or frames.dtype.kind in "iub":
        return frames.astype(np.int64)
    if frames.dtype.kind != "U":
        raise InputError(f"{name} has type {frames.dtype}; expected class ids (integers) or class names")
    return frames
