"""One pass over the training videos: are they readable and finite, and what do their channels look like?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from keystep.data.folder import FeatureFolder
from keystep.errors import InputError

SAMPLE_FRAMES = 50_000


@dataclass(frozen=True)
class Statistics:
    """mean, deviation: (D_in,) float32 over all frames. sample: (N, D_in) float32 frames for k-means."""

    mean: np.ndarray
    deviation: np.ndarray
    sample: np.ndarray


def measure(
    folder: FeatureFolder,
    videos: Iterable[str],
    seed: int,
    *,
    centred: bool = False,
    progress: Callable[[str], None] = lambda video: None,
) -> tuple[Statistics, tuple[str, ...]]:
    """Channel statistics, and the videos that could be read.

    Every frame is read once, so bad numbers show before training starts, not hours into it. Channels that never change
    get deviation 1. With ``centred``, each video's own mean is removed first, so that the deviation is that within
    videos and the sample holds centred frames.

    Raises:
        InputError: a bad video (unless the folder skips them), or no readable video at all.
    """
    rng = np.random.default_rng(seed)
    names = list(videos)
    share = max(1, SAMPLE_FRAMES // max(1, len(names)))
    count, total, squares = 0, np.zeros(folder.width), np.zeros(folder.width)
    samples, readable = [], []
    for name in names:
        frames = folder.problems.attempt(name, lambda name=name: folder.features(name))  # type: ignore[misc]
        if frames is not None:
            if centred:
                frames = frames - frames.mean(axis=0)
            count += len(frames)
            total += frames.sum(axis=0, dtype=np.float64)
            squares += np.square(frames, dtype=np.float64).sum(axis=0)
            samples.append(frames[np.sort(rng.permutation(len(frames))[:share])])
            readable.append(name)
        progress(name)
    if not readable:
        raise InputError(f"{folder.root}: none of {len(names)} videos can be read")
    mean = total / count
    variance = np.maximum(squares / count - np.square(mean), 0)
    deviation = np.where(variance > 1e-12, np.sqrt(variance), 1.0)
    statistics = Statistics(mean.astype(np.float32), deviation.astype(np.float32), np.concatenate(samples))
    return statistics, tuple(readable)
