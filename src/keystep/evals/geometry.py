"""Geometry of the representations of a video: do they form an ordered path over time?

The paper reports names and values of these measures, but not their definitions. Ours are documented at the fields of
`Geometry`; the values need not be comparable. (The paper's displacement, straightness and adjacent cosine distance are
consistent with unit vectors and about 17 steps in a video, so it seems to subsample videos; this is our inference.) All
measures depend on the number of frames, so longer videos are subsampled to a fixed number, and only values with equal
settings are comparable. They are descriptive and no evidence of quality: smoothing alone raises most of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from keystep.errors import InputError

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

_SAME = 1e-9  # unit vectors closer than this are equal
_TIE = 1e-12  # squared distances closer than this are equal up to rounding


LEAST_FRAMES = 3


@dataclass(frozen=True)
class Geometry:
    """The measures of a video, or their medians over videos.

    Let z_i be frames 0..n-1 scaled to unit length, s_i = z_(i+1) - z_i, and d = z_(n-1) - z_0. The progress p_i = <z_i
    - z_0, d> / |d|^2 is the position along the line from start to end. If d = 0, the progress is 0 everywhere, and so
    are the four measures based on d. Zero vectors are not scaled.
    """

    straightness: float
    """|d| / sum |s_i|: 1 for a straight line, near 0 for jitter."""
    time_progress_spearman: float
    """Spearman's rank correlation of p_i and i; ties have mean ranks."""
    progress_efficiency: float
    """|p_(n-1) - p_0| / sum |p_(i+1) - p_i|: 1 if the progress is monotonic."""
    monotonic_fraction: float
    """Share of steps with p_(i+1) > p_i."""
    adjacent_nearest_neighbours: float
    """Share of frames whose nearest other frame is i - 1 or i + 1; ties with other frames do not count."""
    adjacent_cosine_distance: float
    """Mean of 1 - <z_i, z_(i+1)>, computed as |s_i|^2 / 2 to avoid cancellation."""
    start_end_displacement: float
    """|d|, between 0 and 2."""


def median_geometry(videos: Sequence[Array], *, points: int = 256) -> Geometry:
    """The median of each measure over videos.

    Args:
        videos: (T_i, D) each.
        points: longer videos are subsampled to this number of evenly spaced frames. Memory grows with its square.

    Raises:
        InputError: no videos, fewer than three frames or points, or NaN or infinite values.
    """
    if not videos:
        raise InputError("geometry needs at least one video")
    each = [asdict(_named_geometry(video, points, f"video {index}")) for index, video in enumerate(videos)]
    return Geometry(**{name: float(np.median([numbers[name] for numbers in each])) for name in each[0]})


def _named_geometry(latents: Array, points: int, name: str) -> Geometry:
    unit = _unit_frames(latents, points, name)  # (n, D)
    steps = np.diff(unit, axis=0)
    path = float(np.linalg.norm(steps, axis=1).sum())
    direction = unit[-1] - unit[0]
    if np.linalg.norm(direction) < _SAME:
        direction = np.zeros_like(direction)
    displacement = float(np.linalg.norm(direction))
    along = (unit - unit[0]) @ direction  # |d|^2 times the progress; the factor cancels below
    moves = np.diff(along)
    return Geometry(
        straightness=_ratio(displacement, path),
        time_progress_spearman=_spearman(along),
        progress_efficiency=_ratio(abs(along[-1] - along[0]), np.abs(moves).sum()),
        monotonic_fraction=float((moves > 0).mean()),
        adjacent_nearest_neighbours=_adjacent_neighbours(unit),
        adjacent_cosine_distance=float((np.square(steps).sum(axis=1) / 2).mean()),
        start_end_displacement=displacement,
    )


def _unit_frames(latents: Array, points: int, name: str) -> Floats:
    """At most ``points`` evenly spaced frames, including the first and last, scaled to unit length (except zeros)."""
    frames = np.asarray(latents)
    if points < 3 or frames.ndim != 2 or len(frames) < LEAST_FRAMES:
        raise InputError(
            f"{name}: geometry needs (T, D) with at least 3 frames and 3 points, not {frames.shape} and {points}"
        )
    if len(frames) > points:
        frames = frames[np.linspace(0, len(frames) - 1, points).round().astype(int)]
    frames = frames.astype(np.float64)
    if not np.isfinite(frames).all():
        raise InputError(f"{name}: NaN or infinite values; remove or repair this video")
    lengths = np.linalg.norm(frames, axis=1, keepdims=True)
    unit: Floats = np.divide(frames, lengths, out=np.zeros_like(frames), where=lengths > 0)
    return unit


def _adjacent_neighbours(unit: Floats) -> float:
    """Share of frames for which an adjacent frame is strictly nearer than every other frame."""
    count = len(unit)
    squared = np.square(unit).sum(axis=1)
    distances = squared[:, None] + squared - 2 * unit @ unit.T  # (n, n), squared
    apart = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    nearest_adjacent = np.where(apart == 1, distances, np.inf).min(axis=1)
    nearest_other = np.where(apart > 1, distances, np.inf).min(axis=1)
    return float((nearest_adjacent < nearest_other - _TIE).mean())


def _spearman(progress: Floats) -> float:
    """Rank correlation with time; 0 if the progress is constant."""
    ranks = rankdata(progress) - (len(progress) + 1) / 2
    time = np.arange(len(progress)) - (len(progress) - 1) / 2
    return _ratio(float(ranks @ time), float(np.linalg.norm(ranks) * np.linalg.norm(time)))


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator > 0 else 0.0
