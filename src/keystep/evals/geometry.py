"""How the representations of one video lie in space: does time leave an ordered path?

The paper publishes names and values of these numbers, not their definitions. Ours are the natural ones, written out
at each field of `Geometry`; values of the two need not be comparable. (Its displacement, straightness and adjacent
cosine distance fit together if frames have unit length and a video has some 17 steps, so it seems to thin
videos out; that is our inference.) All of them depend on the number of frames, so every longer video is thinned to
the same number, and only values from equal settings compare. They describe; they do not show that anything is better:
smoothing alone raises most of them.
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
_TIE = 1e-12  # squared distances closer than this are equal: their rounding decides nothing


LEAST_FRAMES = 3


@dataclass(frozen=True)
class Geometry:
    """The numbers of one video, or their medians over videos.

    With z_i the frames 0..n-1 scaled to unit length, s_i = z_(i+1) - z_i, and d = z_(n-1) - z_0; progress is the
    position along the line from start to end, p_i = <z_i - z_0, d> / |d|^2. A video that ends where it began has no
    such line: its progress is 0 everywhere, and so are the four numbers made from d. Frames of length 0 stay 0.
    """

    straightness: float
    """|d| / sum |s_i|: 1 on a straight line, near 0 for jitter."""
    time_progress_spearman: float
    """Spearman's rank correlation of p_i and i, ties by mean ranks."""
    progress_efficiency: float
    """|p_(n-1) - p_0| / sum |p_(i+1) - p_i|: 1 if progress never turns back."""
    monotonic_fraction: float
    """Share of steps with p_(i+1) > p_i."""
    adjacent_nearest_neighbours: float
    """Share of frames whose nearest other frame is i - 1 or i + 1; a tie with a frame further away does not count."""
    adjacent_cosine_distance: float
    """Mean of 1 - <z_i, z_(i+1)>, computed as |s_i|^2 / 2, which does not cancel."""
    start_end_displacement: float
    """|d|, between 0 and 2."""


def measurable(videos: Sequence[Array]) -> list[Array]:
    """Those of some videos that are long enough for a geometry."""
    return [video for video in videos if len(video) >= LEAST_FRAMES]


def median_geometry(videos: Sequence[Array], *, points: int = 256) -> Geometry:
    """The median of each number over videos (T_i, D). Of more than ``points`` frames, that many evenly spaced ones.

    The nearest neighbours cost points x points distances, so memory does not grow with the videos.

    Raises:
        InputError: no video, fewer than three frames or points, or a NaN or infinite number.
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
    along = (unit - unit[0]) @ direction  # |d|^2 times progress; every use below is free of that factor
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
    """At most ``points`` evenly spaced frames, the first and last among them, scaled to length 1 (zeros stay)."""
    frames = np.asarray(latents)
    if points < 3 or frames.ndim != 2 or len(frames) < LEAST_FRAMES:
        raise InputError(f"{name}: geometry needs (T, D) with 3 frames or more, not {frames.shape}, points {points}")
    if len(frames) > points:
        frames = frames[np.linspace(0, len(frames) - 1, points).round().astype(int)]
    frames = frames.astype(np.float64)
    if not np.isfinite(frames).all():
        raise InputError(f"{name}: NaN or infinite numbers; remove or repair this video")
    lengths = np.linalg.norm(frames, axis=1, keepdims=True)
    unit: Floats = np.divide(frames, lengths, out=np.zeros_like(frames), where=lengths > 0)
    return unit


def _adjacent_neighbours(unit: Floats) -> float:
    """Share of frames to which a neighbour in time is strictly nearer than every other frame."""
    count = len(unit)
    squared = np.square(unit).sum(axis=1)
    distances = squared[:, None] + squared - 2 * unit @ unit.T  # (n, n), squared
    apart = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    nearest_adjacent = np.where(apart == 1, distances, np.inf).min(axis=1)
    nearest_other = np.where(apart > 1, distances, np.inf).min(axis=1)
    return float((nearest_adjacent < nearest_other - _TIE).mean())


def _spearman(progress: Floats) -> float:
    """Rank correlation with time; 0 where the ranks do not vary."""
    ranks = rankdata(progress) - (len(progress) + 1) / 2
    time = np.arange(len(progress)) - (len(progress) - 1) / 2
    return _ratio(float(ranks @ time), float(np.linalg.norm(ranks) * np.linalg.norm(time)))


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator > 0 else 0.0
