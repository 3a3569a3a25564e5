"""Channel statistics, principal components and clusters of the training features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter1d

from keystep.data.folder import FeatureFolder
from keystep.errors import InputError

SAMPLE_FRAMES = 50_000
PRODUCT_FRAMES = 8_192
"""Frames that are converted to float64 at a time."""


@dataclass(frozen=True)
class Statistics:
    """Channel statistics of some videos.

    Attributes:
        mean, deviation: (D,) float32 over all frames, or over all tokens of all frames.
        sample: (N, D_in) float32 frames for k-means and PCA, with D_in = tokens x D.
        level: (D,) float32 mean of the frames before centring. None: equal to ``mean``.
    """

    mean: np.ndarray
    deviation: np.ndarray
    sample: np.ndarray
    level: np.ndarray | None = None

    @property
    def input_dim(self) -> int:
        """Width of the frames, D_in."""
        width: int = self.sample.shape[1]
        return width


def measure(
    folder: FeatureFolder,
    videos: Iterable[str],
    seed: int,
    *,
    centred: bool = False,
    smooth: int = 1,
    progress: Callable[[str], None] = lambda video: None,
) -> tuple[Statistics, tuple[str, ...]]:
    """Measure channel statistics in one pass over all frames, which also finds invalid numbers before training.

    Args:
        folder: the data set.
        videos: names.
        seed: of the sample.
        centred: subtract the mean of each video first, so that ``deviation`` is that within videos and ``sample``
            contains centred frames.
        smooth: width in frames of a moving average over the frames of ``sample``.
        progress: called with the name of each video.

    Returns:
        The statistics, and the names of the readable videos. Constant channels have deviation 1.

    Raises:
        InputError: a bad video (unless the folder skips them), or no readable video.
    """
    rng = np.random.default_rng(seed)
    names = list(videos)
    share = max(1, SAMPLE_FRAMES // folder.tokens // max(1, len(names)))
    width = folder.token_width
    moments = ChannelMoments(width)
    samples, readable = [], []
    for name in names:
        frames = folder.problems.attempt(name, lambda name=name: folder.features(name))  # type: ignore[misc]
        if frames is not None:
            own_mean = moments.add(frames.reshape(-1, width), centred)
            if centred and folder.tokens > 1:
                own_mean = frames.mean(axis=0, dtype=np.float64)  # of each place of a token
            if centred:
                frames = (frames - own_mean).astype(np.float32)
            if smooth > 1:
                frames = moving_average(frames, smooth)
            samples.append(frames[np.sort(rng.permutation(len(frames))[:share])])
            readable.append(name)
        progress(name)
    if not readable:
        raise InputError(f"{folder.root}: none of {len(names)} videos can be read")
    mean, level, deviation = (
        values.astype(np.float32) for values in (moments.mean, moments.level, moments.deviation())
    )
    statistics = Statistics(mean, deviation, np.concatenate(samples), level)
    return statistics, tuple(readable)


def moving_average(frames: np.ndarray, width: int) -> np.ndarray:
    """Centred moving average over ``width`` frames of (T, D), shortened at the ends."""
    share = uniform_filter1d(np.ones(len(frames), np.float32), width, mode="constant")
    averages: np.ndarray = uniform_filter1d(frames, width, axis=0, mode="constant") / share[:, None]
    return averages


def principal_components(
    parts: Iterable[np.ndarray], mean: np.ndarray, deviation: np.ndarray | np.float32 | float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Compute principal components of ``(x - mean) / deviation`` over all rows.

    Args:
        parts: arrays (N_i, D), iterated once.
        mean: (D,).
        deviation: (D,) or a scalar.

    Returns:
        Variances (D,) in descending order, and orthonormal directions (D, D) as columns, with arbitrary signs.
    """
    count, covariance = 0, np.zeros((len(mean), len(mean)))
    for part in parts:
        for start in range(0, len(part), PRODUCT_FRAMES):
            scaled = ((part[start : start + PRODUCT_FRAMES] - mean) / deviation).astype(np.float64)
            covariance += scaled.T @ scaled
        count += len(part)
    values, vectors = np.linalg.eigh(covariance / count)
    return values[::-1], vectors[:, ::-1]


def principal_colours(videos: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Colour frames by the three leading principal components of all videos: (T, D) -> (T, 3) uint8 RGB per video.

    Every video is read three times, one at a time.
    """
    mean = sum(video.sum(0, dtype=np.float64) for video in videos.values()) / sum(map(len, videos.values()))
    components = principal_components(videos.values(), mean)[1][:, :3]
    projected = {name: (video - mean) @ components for name, video in videos.items()}
    low, high = np.percentile(np.concatenate(list(projected.values())), [2, 98], axis=0)
    span = np.maximum(high - low, 1e-9)
    missing = ((0, 0), (0, 3 - components.shape[1]))
    return {
        name: (255 * np.pad(np.clip((rows - low) / span, 0, 1), missing)).astype(np.uint8)
        for name, rows in projected.items()
    }


class ChannelMoments:
    """Mean and deviation of channels, accumulated over parts without cancellation (Chan et al., 1979).

    Attributes:
        mean: (D,) float64 mean; zeros if each part was centred.
        level: (D,) float64 mean of the frames before centring.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean, self.level, self.squares, self.largest = np.zeros((4, width))

    def add(self, frames: np.ndarray, centred: bool = False) -> np.ndarray:
        """Add (T, D) frames, less their own mean if ``centred``; returns that mean, (D,) float64."""
        own_mean: np.ndarray = frames.mean(axis=0, dtype=np.float64)
        difference = frames - own_mean
        own_squares = np.einsum("td,td->d", difference, difference)
        step = -self.mean if centred else own_mean - self.mean
        total = self.count + len(frames)
        self.mean += step * (len(frames) / total)
        self.level += (own_mean - self.level) * (len(frames) / total)
        self.squares += own_squares + np.square(step) * (self.count * len(frames) / total)
        self.count = total
        self.largest = np.maximum(self.largest, np.abs(frames).max(axis=0))
        return own_mean

    def deviation(self, constant: float = 1.0) -> np.ndarray:
        """(D,) float64 deviation; ``constant`` for channels that change by less than the precision of float32."""
        deviation = np.sqrt(self.squares / self.count)
        return np.where(deviation > 1e-7 * self.largest, deviation, constant)


def k_means(sample: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Fit k-means to a sample (N, D_in).

    Args:
        sample: the frames.
        clusters: K.
        seed: of the initialisation.

    Returns:
        (K, D_in) float32 centres.

    Raises:
        InputError: fewer frames than clusters.
    """
    from sklearn.cluster import MiniBatchKMeans

    if len(sample) < clusters:
        raise InputError(f"{len(sample)} frames cannot form {clusters} clusters; set target.clusters lower")
    fitted = MiniBatchKMeans(clusters, random_state=seed, n_init=3, batch_size=4096).fit(sample)
    centres: np.ndarray = fitted.cluster_centers_.astype(np.float32)
    return centres
