"""Ridge regression onto classes from second moments that are kept for each video.

Moments of videos add up, so a head is fitted to any set of videos without reading a frame again, and cross-validation
takes the moments of the held-out videos from the total. Columns are first mapped to a `Basis` of at most `COLUMNS`
principal components, which needs no labels and is therefore the same for every fit.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from keystep.data.annotation import IGNORED
from keystep.data.statistics import ChannelMoments
from keystep.evals.probe import band_width, sharpness

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Frames = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

COLUMNS = 256
"""Principal components that are kept of wider representations."""
PENALTIES = (0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6)
"""Candidate ridge penalties, strongest first, as shares of the total variance of the columns."""
DEFAULT_PENALTY = 1e-3
"""Penalty unless held-out videos speak clearly for another one."""
STANDARD_ERRORS = 2.0
"""By how many another one has to gain."""
DEFAULT_FACTOR = 3.0
"""Factor on the scores where no held-out video can calibrate one: deliberately low, so that confidence is too."""
FOLDS = 10
"""Most parts of a cross-validation."""
CALIBRATION_SLOTS = 20_000
"""Most held-out slots that calibrate the confidence."""
HELD_SLOTS = 1_000
"""Slots of each labelled video, evenly spaced, that are kept for scoring it when it is held out."""


@dataclass(frozen=True, eq=False)
class Basis:
    """An affine map of a representation (T, D) to K decorrelated columns whose variances sum to 1."""

    mean: Floats  # (D,)
    matrix: Floats  # (D, K)

    @classmethod
    def fit(cls, sample: Array, bands: Mapping[str, int] | None = None, columns: int = COLUMNS) -> Basis:
        """Fit to frames (N, D) of all videos.

        Args:
            sample: the frames.
            bands: band name -> number of columns, in column order. Columns are scaled so that all bands have the same
                total variance, whatever their widths. None: one band.
            columns: most principal components that are kept.

        Raises:
            InputError: bands without columns.
        """
        moments = ChannelMoments(sample.shape[1])
        moments.add(sample)
        widths = list((bands or {"": sample.shape[1]}).values())
        assert band_width(bands or {"": sample.shape[1]}) == sample.shape[1]
        factors = 1 / moments.deviation(np.inf) / np.sqrt(np.repeat(widths, widths) * len(widths))
        scaled = (sample - moments.mean) * factors
        values, vectors = np.linalg.eigh(scaled.T @ scaled / len(scaled))
        kept = vectors[:, ::-1][:, :columns]
        total = max(float(values[::-1][:columns].sum()), 1e-12)
        return cls(moments.mean, factors[:, None] * kept / np.sqrt(total))

    def apply(self, frames: Array) -> Frames:
        """(T, D) -> (T, K)."""
        offset = (self.mean @ self.matrix).astype(np.float32)
        return np.asarray(np.asarray(frames, np.float32) @ self.matrix.astype(np.float32) - offset, np.float32)


@dataclass(frozen=True, eq=False)
class Sums:
    """What ridge regression needs of labelled frames; sums of several videos are those of all their frames."""

    counts: Floats  # (C,) frames of each class
    total: Floats  # (K,) sum of frames
    gram: Floats  # (K, K) sum of products
    cross: Floats  # (K, C) sum of the frames of each class

    @classmethod
    def of(cls, frames: Frames, targets: Ids, classes: int) -> Sums:
        """Of frames (N, K) and their classes (N,)."""
        exact, hot = frames.astype(np.float64), np.eye(classes)[targets]
        cross = exact.T @ hot
        return cls(hot.sum(axis=0), cross.sum(axis=1), exact.T @ exact, cross)

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.counts + other.counts, self.total + other.total, self.gram + other.gram, self.cross + other.cross
        )

    def __sub__(self, other: Sums) -> Sums:
        return Sums(
            self.counts - other.counts, self.total - other.total, self.gram - other.gram, self.cross - other.cross
        )

    def widened(self, classes: int) -> Sums:
        """The same with columns for new classes, which have no frames."""
        more = classes - len(self.counts)
        return Sums(np.pad(self.counts, (0, more)), self.total, self.gram, np.pad(self.cross, ((0, 0), (0, more))))

    def solve(self, penalties: Sequence[float]) -> list[Weights]:
        """Ridge regression onto centred one-hot classes, for each penalty on the squared weights."""
        count = self.counts.sum()
        mean, shares = self.total / count, self.counts / count
        values, vectors = np.linalg.eigh(self.gram / count - np.outer(mean, mean))
        rotated = vectors.T @ (self.cross / count - np.outer(mean, shares))
        values = np.maximum(values, 0)[:, None]
        found = [vectors @ (rotated / (values + penalty)) for penalty in penalties]
        return [Weights(weight, shares - mean @ weight) for weight in found]


@dataclass(frozen=True, eq=False)
class Weights:
    """An affine map from columns (K,) to scores of the classes (C,), which are near 0 and 1."""

    weight: Floats  # (K, C)
    bias: Floats  # (C,)

    def scores(self, frames: Frames) -> Frames:
        """(T, K) -> (T, C)."""
        return np.asarray(frames @ self.weight.astype(np.float32) + self.bias.astype(np.float32))


@dataclass(frozen=True, eq=False)
class Evidence:
    """The labelled slots of one video: their sums, and some of them to score a head that was fitted without them."""

    sums: Sums
    held: Frames  # (N, K), N <= HELD_SLOTS
    targets: Ids  # (N,)

    @classmethod
    def of(cls, frames: Frames, labels: Ids, classes: int) -> Evidence:
        """Of the slots (T, K) and their class ids (T,), `IGNORED` where there is none."""
        known = labels != IGNORED
        frames, targets = frames[known], labels[known]
        some = np.unique(np.linspace(0, len(targets) - 1, min(HELD_SLOTS, len(targets))).round().astype(int))
        return cls(Sums.of(frames, targets, classes), frames[some], targets[some])

    def widened(self, classes: int) -> Evidence:
        """The same with more classes."""
        return Evidence(self.sums.widened(classes), self.held, self.targets)


@dataclass(frozen=True)
class Accuracy:
    """Frame accuracy (0-100) on videos that were held out, by cross-validation over videos or groups of them.

    mean: over all labelled slots. spread: standard deviation over the held-out videos (or groups). chance: of always
    naming the most frequent class of the other videos. folds: parts of the cross-validation. videos: that were held
    out.

    It is the accuracy on what is labelled: where that is what the tool suggested, which is harder than most, it is too
    low for all other slots, and so is the confidence that is calibrated on it.
    """

    mean: float
    spread: float
    chance: float
    folds: int
    videos: int


@dataclass(frozen=True)
class Validation:
    """What cross-validation says: the accuracy (None with one video), the penalty and the factor on the scores."""

    accuracy: Accuracy | None
    penalty: float
    factor: float


def cross_validate(evidence: Mapping[str, Evidence], groups: Mapping[str, str] | None = None) -> Validation:
    """Choose penalty and calibration on videos that were held out, and measure the accuracy there.

    Where labels are few, held-out accuracy says little of the penalty, and is easily highest for one so strong that
    only the commonest class is ever named. So `DEFAULT_PENALTY` stands unless another one gains more than
    `STANDARD_ERRORS` over folds, among slots of classes that other folds show, too. The accuracy of each fold is that
    of the penalty which is chosen by the other folds, so that the choice does not flatter it. Videos of one group are
    held out together.

    Args:
        evidence: video -> its labelled slots; at least one.
        groups: video -> the person or site that it belongs to; a video without one stands alone.
    """
    owner = {video: (groups or {}).get(video, video) for video in evidence}
    units = {unit: index % FOLDS for index, unit in enumerate(dict.fromkeys(owner.values()))}
    folds = [[video for video in evidence if units[owner[video]] == fold] for fold in sorted(set(units.values()))]
    if len(folds) < 2:
        return Validation(None, DEFAULT_PENALTY, DEFAULT_FACTOR)
    total = add(each.sums for each in evidence.values())
    held = [_hold_out(total, [evidence[video] for video in fold]) for fold in folds]
    hits = np.stack([fold.hits for fold in held])
    best, honest = _choose(hits), [_choose(np.delete(hits, at, axis=0)) for at in range(len(hits))]
    chosen = [fold.right[at] for fold, at in zip(held, honest, strict=True)]
    scores = np.concatenate([fold.scores[best] for fold in held])
    factor = _calibrate(scores, np.concatenate([fold.targets for fold in held]))
    count = total.counts.sum()
    mean = sum(fold.weights @ right for fold, right in zip(held, chosen, strict=True)) / count
    chance = sum(fold.chance for fold in held) / count
    spread = _spread(folds, evidence, owner, chosen)
    accuracy = Accuracy(100 * float(mean), spread, 100 * float(chance), len(folds), len(evidence))
    return Validation(accuracy, PENALTIES[best], factor)


@dataclass(frozen=True, eq=False)
class _HeldOut:
    """A fold under heads that were fitted without it, one for each of P penalties."""

    scores: list[Frames]  # P times (N, C)
    targets: Ids  # (N,)
    weights: Floats  # (N,) labelled slots that each kept slot stands for
    right: list[npt.NDArray[np.bool_]]  # P times (N,)
    hits: Floats  # (P,) right slots, of classes that the other folds show, too
    chance: float  # slots of the class that is the most frequent one elsewhere


def _hold_out(total: Sums, fold: Sequence[Evidence]) -> _HeldOut:
    rest = total - add(each.sums for each in fold)
    frames, targets = np.concatenate([each.held for each in fold]), np.concatenate([each.targets for each in fold])
    weights = np.concatenate([np.full(len(e.targets), e.sums.counts.sum() / len(e.targets)) for e in fold])
    scores = [fitted.scores(frames) for fitted in rest.solve(PENALTIES)]
    right = [each.argmax(axis=1) == targets for each in scores]
    shared = weights * (rest.counts > 0.5)[targets]
    hits = np.array([shared @ each for each in right])
    chance = sum(float(each.sums.counts[rest.counts.argmax()]) for each in fold)
    return _HeldOut(scores, targets, weights, right, hits, chance)


def _choose(hits: Floats) -> int:
    """The penalty that gains the most right slots over the default, if that exceeds the noise; hits: (folds, P)."""
    default = PENALTIES.index(DEFAULT_PENALTY)
    gains = hits - hits[:, [default]]
    best = int(gains.sum(axis=0).argmax())
    if len(gains) < 2:
        return default
    noise = float(np.sqrt(len(gains)) * gains[:, best].std(ddof=1))
    return best if gains[:, best].sum() > STANDARD_ERRORS * noise else default


def _calibrate(scores: Frames, targets: Ids) -> float:
    stride = -(-len(targets) // CALIBRATION_SLOTS)
    return sharpness(scores[::stride], targets[::stride])


def add(sums: Iterable[Sums]) -> Sums:
    """The sum of at least one."""
    return reduce(operator.add, sums)


def _spread(
    folds: Sequence[Sequence[str]], evidence: Mapping[str, Evidence], owner: Mapping[str, str], right: Sequence[Array]
) -> float:
    """Standard deviation over groups of the accuracy (0-100) within each."""
    hits: dict[str, list[Array]] = {}
    for fold, found in zip(folds, right, strict=True):
        ends = np.cumsum([len(evidence[video].targets) for video in fold])[:-1]
        for video, part in zip(fold, np.split(found, ends), strict=True):
            hits.setdefault(owner[video], []).append(part)
    return 100 * float(np.std([np.concatenate(parts).mean() for parts in hits.values()], ddof=1))
