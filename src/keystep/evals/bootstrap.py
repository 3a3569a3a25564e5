"""Paired bootstrap over videos and seeds for the difference between two representations.

Videos are resampled with replacement, with the same draw for both sides and all seeds, because the frames of a video
are not independent. To include the variance between training runs, the seeds of each side are resampled as well,
independently of the other side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keystep.errors import InputError

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """A score of a minus that of b, in points (0-100) or its own unit, with its 95 % percentile interval."""

    mean: float
    low: float
    high: float
    seeds: tuple[int, int]
    """Number of seeds of a and of b."""
    videos: int


def paired_bootstrap(
    correct_a: Array, correct_b: Array, frames: Array, *, resamples: int = 5000, seed: int = 0
) -> Difference:
    """Compare the frame accuracies of two representations on the same videos.

    The accuracy of a seed is pooled over all videos (correct frames / frames), then averaged over seeds. A side with a
    single seed contributes no seed variance: this is right for a deterministic control, but for a model that was
    trained once the interval is too narrow. With S seeds, the seed part is too narrow by about sqrt(1 - 1/S). With
    fewer than ten videos, the video part is too narrow too.

    Args:
        correct_a: (seeds of a, videos) number of correct frames.
        correct_b: (seeds of b, videos).
        frames: (videos,) number of scored frames.
        resamples: number of bootstrap samples.
        seed: of the random generator.

    Raises:
        InputError: inconsistent shapes, fewer than two videos, or counts that are not between 0 and the frames.
    """
    totals = np.asarray(frames, dtype=np.float64)
    if totals.ndim != 1 or len(totals) < 2:
        raise InputError(f"frames have shape {totals.shape}; expected (videos,) with at least 2 videos")
    if not (np.isfinite(totals) & (totals > 0)).all():
        raise InputError(f"every video needs at least one scored frame, not {totals.tolist()}")
    if resamples < 100:
        raise InputError(f"resamples must be at least 100, not {resamples}")
    sides = (_validate_counts(correct_a, totals, "correct_a"), _validate_counts(correct_b, totals, "correct_b"))
    a, b = (RatioSums(right, np.broadcast_to(totals, right.shape)) for right in sides)
    return paired_ratios(a, b, resamples=resamples, seed=seed)


@dataclass(frozen=True, eq=False)
class RatioSums:
    """A score as a ratio of sums over videos, for every seed and video: numerators and denominators, (seeds, videos)
    each. With a leading axis of kinds, such as classes, the score is the mean over the kinds that occur.

    Pooled frame accuracy: correct frames and frames. Pooled F1: 2 tp and 2 tp + fp + fn. Mean over videos: score and 1.
    Recall averaged over classes: correct frames and frames of each class, (classes, seeds, videos).
    """

    parts: Array
    wholes: Array

    def scores(self, draws: Array) -> Floats:
        """The score of every seed, (..., seeds), if each video occurs as often as ``draws`` (..., videos) says."""
        parts, wholes = (draws @ np.swapaxes(sums, -1, -2) for sums in (self.parts, self.wholes))
        ratios = _ratio(parts, wholes)
        if self.parts.ndim == 2:
            return ratios
        return _ratio(ratios.sum(axis=0), (wholes > 0).sum(axis=0))

    def overall(self) -> Floats:
        """(seeds,) scores of all videos."""
        scores: Floats = self.scores(np.ones((1, self.parts.shape[-1])))[0]
        return scores


def paired_ratios(
    a: RatioSums, b: RatioSums, *, resamples: int = 5000, seed: int = 0, scale: float = 100.0
) -> Difference:
    """`paired_bootstrap` for any ratio of sums over videos, times ``scale``. A resample with denominator 0 counts as 0.

    Raises:
        InputError: inconsistent shapes, or fewer than two videos.
    """
    sides, generator = [a, b], np.random.default_rng(seed)
    videos = a.parts.shape[-1]
    if videos < 2 or any(x.ndim not in (2, 3) or x.shape[-1] != videos for s in sides for x in (s.parts, s.wholes)):
        shapes = [x.shape for s in sides for x in (s.parts, s.wholes)]
        raise InputError(f"parts and wholes have shapes {shapes}; expected (seeds, videos) of at least 2 videos")
    draws, drawn, observed = _draw_counts(generator, videos, resamples), [], []
    for side in sides:
        ratios = side.scores(draws)  # (resamples, seeds)
        seeds = ratios.shape[1]
        drawn.append((ratios * _draw_counts(generator, seeds, resamples)).sum(axis=1) / seeds)
        observed.append(float(side.overall().mean()))
    low, high = np.percentile(scale * (drawn[0] - drawn[1]), [2.5, 97.5])
    mean = scale * (observed[0] - observed[1])
    return Difference(mean, float(low), float(high), (a.parts.shape[-2], b.parts.shape[-2]), videos)


def _ratio(parts: Array, wholes: Array) -> Floats:
    return np.divide(parts, wholes, out=np.zeros(np.shape(parts), np.float64), where=np.asarray(wholes) > 0)


def _draw_counts(generator: np.random.Generator, count: int, resamples: int) -> Floats:
    """(resamples, count): how often each of ``count`` items is drawn in ``count`` draws with replacement."""
    return generator.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)


def _validate_counts(correct: Array, totals: Floats, name: str) -> Floats:
    """Counts as (seeds, videos) float64; InputError if they are invalid."""
    counts = np.asarray(correct, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[1] != len(totals) or not len(counts):
        raise InputError(f"{name} has shape {counts.shape}; expected (seeds, {len(totals)} videos)")
    usable = (counts >= 0) & (counts <= totals)
    if not usable.all():
        row, video = np.argwhere(~usable)[0]
        raise InputError(
            f"{name}, seed {row}, video {video}: {counts[row, video]:g} correct frames of {totals[video]:g}"
        )
    return counts
