"""What can be remembered of a video without learning: how much there was of each thing, what has been seen, averages.

Every function is causal; `both_ways` adds what is still to come, for whoever has the whole video.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

from keystep.evals.controls import Array, Frames, Transform, above_zero, as_frames, elapsed, progress

Floats = npt.NDArray[np.float64]


def both_ways(transform: Transform) -> Transform:
    """The same beside itself from the end of the video backwards. Not causal."""

    def there_and_back(features: Array) -> Frames:
        return np.concatenate([transform(features), transform(features[::-1])[::-1]], axis=1)

    return there_and_back


def mean_so_far(features: Array) -> Frames:
    """(T, D) means of the frames up to each, this one included."""
    frames = as_frames(features)
    counts = np.arange(1, len(frames) + 1)[:, None]
    return np.asarray(np.cumsum(frames, axis=0, dtype=np.float64) / counts, dtype=np.float32)


def exponential_averages(features: Array, half_lives: Sequence[float]) -> Frames:
    """(T, half-lives x D) averages of the past in which a frame counts half as much after ``half_lives`` frames.

    The weights of the frames that there are add up to 1, so the first frame is its own average.
    """
    frames = as_frames(features).astype(np.float64)
    averages = []
    for half_life in half_lives:
        kept = 0.5 ** (1 / above_zero(half_life, "a half-life"))
        weights = 1 - kept ** np.arange(1, len(frames) + 1)
        averages.append(lfilter([1 - kept], [1, -kept], frames, axis=0) / weights[:, None])
    return np.concatenate(averages, axis=1, dtype=np.float32)


def clock(features: Array, tau: float, *, causal: bool) -> Frames:
    """(T, 2) time and log-time since the start in units of ``tau`` frames; not causal: (T, 5), with progress and the
    same until the end."""
    length = len(features)
    since = elapsed(length, tau)
    return since if causal else np.concatenate([since, progress(length), since[::-1]], axis=1)


@dataclass(frozen=True, eq=False)
class Amounts:
    """How much there is of each thing in a frame, as numbers that are never negative, so that they can be counted.

    A channel that is never below 0 in the training videos (a tool in view, a count, a rectified activation) is an
    amount as it is, in units of its deviation. Others, such as z-scores and principal components, are two: how far the
    channel lies above its mean, and how far below, in deviations. Their plain sum would let one cancel the other, and
    "has it ever been high" and "ever been low" are two questions.
    """

    mean: Floats  # (D,)
    deviation: Floats  # (D,), 1 where a channel never changes
    positive: npt.NDArray[np.bool_]  # (D,), never below 0
    much: Floats  # (amounts,): mean plus one deviation of each

    @classmethod
    def fit(cls, videos: Sequence[Array]) -> Amounts:
        """From the training videos, (T_i, D) each."""
        frames = np.concatenate([as_frames(video) for video in videos]).astype(np.float64)
        deviation = frames.std(axis=0)
        moving = deviation > 1e-7 * np.abs(frames).max(axis=0)
        unfinished = cls(frames.mean(axis=0), np.where(moving, deviation, 1.0), frames.min(axis=0) >= 0, np.empty(0))
        amounts = unfinished.of(frames)
        return cls(
            unfinished.mean, unfinished.deviation, unfinished.positive, amounts.mean(axis=0) + amounts.std(axis=0)
        )

    def of(self, features: Array) -> Floats:
        """(T, D) -> (T, amounts): the channels that are never below 0, then the others' high and low sides."""
        frames = as_frames(features).astype(np.float64)
        plain = (frames / self.deviation)[:, self.positive]
        signed = ((frames - self.mean) / self.deviation)[:, ~self.positive]
        return np.concatenate([np.maximum(plain, 0), np.maximum(signed, 0), np.maximum(-signed, 0)], axis=1)

    def log_counts(self, features: Array, tau: float) -> Frames:
        """(T, amounts): log(1 + the sum so far), time in units of ``tau`` frames.

        The logarithm tells one from two as well as ten from twenty, and an hour does not drown the first minute.
        """
        sums = np.cumsum(self.of(features), axis=0) / above_zero(tau, "tau")
        return np.log1p(sums).astype(np.float32)

    def seen_yet(self, features: Array) -> Frames:
        """(T, 2 x amounts): the most so far, and whether that is more than one deviation above the mean (0 or 1)."""
        most = np.maximum.accumulate(self.of(features), axis=0)
        return np.concatenate([most, most > self.much], axis=1, dtype=np.float32)
