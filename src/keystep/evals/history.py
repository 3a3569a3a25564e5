"""Controls with memory: running means, counts, maxima and exponential averages of a video, without learning.

Every function is causal; `both_ways` adds the reversed direction for offline use.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

from keystep.data.statistics import ChannelMoments
from keystep.evals.controls import Array, Frames, Transform, as_frames, check_positive, elapsed, progress

Floats = npt.NDArray[np.float64]


def both_ways(transform: Transform) -> Transform:
    """The transform concatenated with its application from the end of the video backwards. Not causal."""

    def there_and_back(features: Array) -> Frames:
        return np.concatenate([transform(features), transform(features[::-1])[::-1]], axis=1)

    return there_and_back


def mean_so_far(features: Array) -> Frames:
    """(T, D): mean of all frames up to and including each frame."""
    frames = as_frames(features)
    counts = np.arange(1, len(frames) + 1)[:, None]
    return np.asarray(np.cumsum(frames, axis=0, dtype=np.float64) / counts, dtype=np.float32)


def exponential_averages(features: Array, half_lives: Sequence[float]) -> Frames:
    """(T, half-lives x D): exponential moving averages.

    Weights are normalised to sum to 1 over the available frames, so the first frame is its own average.

    Args:
        features: (T, D) of one video.
        half_lives: in frames.
    """
    frames = as_frames(features).astype(np.float64)
    averages = []
    for half_life in half_lives:
        kept = 0.5 ** (1 / check_positive(half_life, "a half-life"))
        weights = 1 - kept ** np.arange(1, len(frames) + 1)
        averages.append(lfilter([1 - kept], [1, -kept], frames, axis=0) / weights[:, None])
    return np.concatenate(averages, axis=1, dtype=np.float32)


def clock(features: Array, tau: float, *, causal: bool) -> Frames:
    """Time features: (T, 2) elapsed time and its logarithm in units of ``tau`` frames.

    If not causal, (T, 5): also the progress, and the time until the end and its logarithm.
    """
    length = len(features)
    since = elapsed(length, tau)
    return since if causal else np.concatenate([since, progress(length), since[::-1]], axis=1)


@dataclass(frozen=True, eq=False)
class Amounts:
    """Non-negative channels derived from the features, which can be accumulated over time.

    A channel that is never negative in the training videos (a tool in view, a count, a rectified activation) is used as
    it is, in units of its standard deviation. Any other channel, such as a z-score or principal component, is split
    into its positive and negative part after standardisation: positive and negative values would cancel in a sum, and
    "has it ever been high" and "has it ever been low" are two questions.
    """

    mean: Floats  # (D,)
    deviation: Floats  # (D,), 1 where a channel never changes
    positive: npt.NDArray[np.bool_]  # (D,), never below 0
    much: Floats  # (amounts,): mean plus one standard deviation

    @classmethod
    def fit(cls, videos: Iterable[Array]) -> Amounts:
        """Fit to the training videos, (T_i, D) each, which are iterated twice, one at a time."""
        channels, positive = None, np.ones(1, dtype=bool)
        for frames in map(as_frames, videos):
            channels = channels or ChannelMoments(frames.shape[1])
            channels.add(frames)
            positive = positive & (frames >= 0).all(axis=0)
        assert channels is not None
        unfinished, amounts = cls(channels.mean, channels.deviation(), positive, np.empty(0)), None
        for some in map(unfinished.of, videos):
            amounts = amounts or ChannelMoments(some.shape[1])
            amounts.add(some)
        assert amounts is not None
        return cls(unfinished.mean, unfinished.deviation, positive, amounts.mean + amounts.deviation(0.0))

    def of(self, features: Array) -> Floats:
        """(T, D) -> (T, amounts): non-negative channels, then the positive and the negative parts of the others."""
        frames = as_frames(features).astype(np.float64)
        plain = (frames / self.deviation)[:, self.positive]
        signed = ((frames - self.mean) / self.deviation)[:, ~self.positive]
        return np.concatenate([np.maximum(plain, 0), np.maximum(signed, 0), np.maximum(-signed, 0)], axis=1)

    def log_counts(self, features: Array, tau: float) -> Frames:
        """(T, amounts): log(1 + cumulative sum), with time in units of ``tau`` frames.

        The logarithm separates one from two as well as ten from twenty, so that long videos do not hide early
        differences.
        """
        sums = np.cumsum(self.of(features), axis=0) / check_positive(tau, "tau")
        return np.log1p(sums).astype(np.float32)

    def seen_yet(self, features: Array) -> Frames:
        """(T, 2 x amounts): running maximum, and whether it exceeds the mean by one standard deviation (0 or 1)."""
        most = np.maximum.accumulate(self.of(features), axis=0)
        return np.concatenate([most, most > self.much], axis=1, dtype=np.float32)
