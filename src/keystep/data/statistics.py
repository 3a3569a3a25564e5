"""One pass over the training videos: are they readable and finite, and what do their channels look like?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter1d

from keystep.data.folder import FeatureFolder
from keystep.errors import InputError

SAMPLE_FRAMES = 50_000


@dataclass(frozen=True)
class Statistics:
    """mean, deviation: (D,) float32 over all frames, or over all tokens of all frames where a frame has several.

    sample: (N, D_in) float32 whole frames for k-means and PCA, D_in being tokens x D.
    level: (D,) float32 mean over all frames as they are, where ``mean`` is that of centred ones; None: ``mean`` itself.
    """

    mean: np.ndarray
    deviation: np.ndarray
    sample: np.ndarray
    level: np.ndarray | None = None


def measure(
    folder: FeatureFolder,
    videos: Iterable[str],
    seed: int,
    *,
    tokens: int = 1,
    centred: bool = False,
    smooth: int = 1,
    progress: Callable[[str], None] = lambda video: None,
) -> tuple[Statistics, tuple[str, ...]]:
    """Channel statistics, and the videos that could be read.

    Every frame is read once, so bad numbers show before training starts, not hours into it. Channels that never change
    (but for rounding) get deviation 1. With ``centred``, each video's own mean is removed first, so that the deviation
    is that within videos and the sample holds centred frames. The sample's frames are averages over ``smooth`` frames.

    Raises:
        InputError: a bad video (unless the folder skips them), or no readable video at all.
    """
    rng = np.random.default_rng(seed)
    names = list(videos)
    share = max(1, SAMPLE_FRAMES // tokens // max(1, len(names)))
    width = folder.width // tokens
    moments = ChannelMoments(width)
    samples, readable = [], []
    for name in names:
        frames = folder.problems.attempt(name, lambda name=name: folder.features(name))  # type: ignore[misc]
        if frames is not None:
            own_mean = moments.add(frames.reshape(-1, width), centred)
            if centred and tokens > 1:
                own_mean = frames.mean(axis=0, dtype=np.float64)  # of each place of a token
            if centred:
                frames = (frames - own_mean).astype(np.float32)
            if smooth > 1:
                frames = smoothed(frames, smooth)
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


def smoothed(frames: np.ndarray, width: int) -> np.ndarray:
    """(T, D) averages over ``width`` frames around each; at the ends, over those that exist."""
    share = uniform_filter1d(np.ones(len(frames), np.float32), width, mode="constant")
    averages: np.ndarray = uniform_filter1d(frames, width, axis=0, mode="constant") / share[:, None]
    return averages


def principal_components(
    parts: Sequence[np.ndarray], mean: np.ndarray, deviation: np.ndarray | np.float32 | float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of the rows (N_i, D) of all ``parts`` together, less ``mean``, divided by ``deviation``.

    Returns:
        Variances (D,) and orthonormal directions (D, D), one a column, by falling variance. Signs are arbitrary.
    """
    count = sum(map(len, parts))
    covariance = np.zeros((len(mean), len(mean)))
    for part in parts:
        scaled = ((part - mean) / deviation).astype(np.float64)
        covariance += scaled.T @ scaled / count
    values, vectors = np.linalg.eigh(covariance)
    return values[::-1], vectors[:, ::-1]


def principal_colours(videos: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """(T, 3) uint8 for each video (T, D): the three leading components over all of them as red, green and blue."""
    frames = np.concatenate(list(videos.values())).astype(np.float64)
    mean = frames.mean(0)
    components = principal_components([frames], mean)[1][:, :3]
    low, high = np.percentile((frames - mean) @ components, [2, 98], axis=0)
    span = np.maximum(high - low, 1e-9)
    missing = ((0, 0), (0, 3 - components.shape[1]))
    return {
        name: (255 * np.pad(np.clip(((video - mean) @ components - low) / span, 0, 1), missing)).astype(np.uint8)
        for name, video in videos.items()
    }


class ChannelMoments:
    """Mean and deviation of each channel, put together part by part without cancellation (Chan et al., 1979).

    Attributes:
        mean: (D,) float64 of all frames; zeros where each part was centred.
        level: (D,) float64 mean of all frames as they are.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean, self.level, self.squares, self.largest = np.zeros((4, width))

    def add(self, frames: np.ndarray, centred: bool = False) -> np.ndarray:
        """Count (T, D) frames, after removing their own mean if ``centred``; returns that mean, (D,) float64."""
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
        """(D,) float64; ``constant`` where a channel moves by no more than float32 can tell at its size."""
        deviation = np.sqrt(self.squares / self.count)
        return np.where(deviation > 1e-7 * self.largest, deviation, constant)


def k_means(sample: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """(K, D_in) float32 centres of the clusters of a sample (N, D_in)."""
    from sklearn.cluster import MiniBatchKMeans

    if len(sample) < clusters:
        raise InputError(f"{len(sample)} frames cannot make {clusters} clusters; set target.clusters lower")
    fitted = MiniBatchKMeans(clusters, random_state=seed, n_init=3, batch_size=4096).fit(sample)
    centres: np.ndarray = fitted.cluster_centers_.astype(np.float32)
    return centres
