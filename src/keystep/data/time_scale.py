"""The time scale tau of a data set: the decorrelation time of its features, the unit of all times in the defaults.

Gestures last two seconds, surgical phases minutes. Offsets, spans, crops and averages in seconds that suit one data set
are wrong by a factor of sixteen for the other; in units of tau they suit both (docs/quality.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from scipy.fft import next_fast_len

from keystep.errors import InputError

Frames = npt.NDArray[np.floating]

HALF = 0.5
RESAMPLES = 200
CHANNELS = 64
"""Maximum number of channels that are used; of wider features, evenly spaced ones."""


@dataclass(frozen=True)
class TimeScale:
    """The decorrelation time of a data set.

    Attributes:
        tau: lag in seconds at which the autocorrelation of the features falls to one half.
        low, high: its 95 % interval from a bootstrap over the videos.
    """

    tau: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"tau {self.tau:.3g} s ({self.low:.3g} to {self.high:.3g})"


def decorrelation_time(videos: Iterable[Frames], rate: float | Fraction, *, seed: int = 0) -> TimeScale:
    """Measure the lag at which the autocorrelation of the features falls to one half.

    Solves ``C(tau) = C(0) / 2`` with ``C(k) = mean over t, channels and videos of x[t] x[t + k]``, where ``x`` is the
    features less the mean of the video, divided by the channel's deviation within videos. The lag is interpolated
    linearly between frames.

    Args:
        videos: (T, D) each, finite. Iterated twice, one at a time.
        rate: frames per second.
        seed: of the bootstrap.

    Returns:
        The time scale in seconds.

    Raises:
        InputError: no videos, or constant features.
    """
    if isinstance(videos, Iterator):
        videos = list(videos)
    variance = _variance(videos)
    moving = variance > 0
    if not moving.any():
        raise InputError("the features are constant within videos, so they have no time scale; check the extraction")
    sums = [_lagged_products(_centre(video)[:, moving] / np.sqrt(variance[moving])) for video in videos]
    sums = [each for each in sums if each[0] > 0]  # videos of one frame, or constant ones, have no time scale
    drawn = np.random.default_rng(seed).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=RESAMPLES)
    weights = np.concatenate([np.ones((1, len(sums)), np.int64), drawn])  # the data themselves first
    products, pairs = np.zeros((2, len(weights), max(map(len, sums))))
    for weight, each in zip(weights.T, sums, strict=True):
        products[:, : len(each)] += weight[:, None] * each
        pairs[:, : len(each)] += weight[:, None] * np.arange(len(each), 0, -1)
    lag, *lags = map(_half_lag, products, pairs)
    low, high = np.percentile(lags, [2.5, 97.5])
    return TimeScale(*(float(frames / float(rate)) for frames in (lag, low, high)))


def _centre(video: Frames) -> npt.NDArray[np.float64]:
    """(T, D) -> (T, at most CHANNELS), less the mean of the video."""
    frames = _channels(video)
    return np.asarray(frames - frames.mean(axis=0))


def _channels(video: Frames) -> npt.NDArray[np.float64]:
    """(T, D) -> (T, at most CHANNELS), evenly spaced ones."""
    return np.asarray(video[:, :: -(-np.shape(video)[1] // CHANNELS)], dtype=np.float64)


def _variance(videos: Iterable[Frames]) -> npt.NDArray[np.float64]:
    """(D,) variance within videos; 0 if a channel changes by less than the precision of float32."""
    squares, largest, count = np.zeros(1), np.zeros(1), 0
    for video in videos:
        squares = squares + np.square(_centre(video)).sum(axis=0)
        largest = np.maximum(largest, np.abs(_channels(video)).max(axis=0))
        count += len(video)
    if not count:
        raise InputError("no videos to measure the decorrelation time of")
    variance = squares / count
    return np.asarray(np.where(variance > np.square(1e-7 * largest), variance, 0.0))


def _lagged_products(frames: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(T, D) -> (T,): mean over channels of the sums of products at each lag, by FFT in O(T log T)."""
    spectrum = np.fft.rfft(frames, next_fast_len(2 * len(frames), real=True), axis=0)
    products = np.fft.irfft(np.square(np.abs(spectrum)).mean(axis=1), next_fast_len(2 * len(frames), real=True))
    return np.asarray(products[: len(frames)])


def _half_lag(products: npt.NDArray[np.float64], pairs: npt.NDArray[np.float64]) -> float:
    """The first lag, in frames, at which ``products / pairs`` is half of its value at lag 0.

    It exists: products of centred frames sum to 0 over all lags, so some are negative.
    """
    correlation = np.divide(products, pairs, out=np.zeros_like(products), where=pairs > 0)
    relative = correlation / max(float(correlation[0]), 1e-300)
    after = int((relative <= HALF).argmax())
    upper, lower = float(relative[after - 1]), float(relative[after])
    return after - 1 + (upper - HALF) / (upper - lower)
