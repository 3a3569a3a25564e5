"""Band strengths: how much a probe may rely on each band, selected on the validation videos.

The weights of a band with strength s have the penalty divided by s^2; bands of strength 0 are dropped. Columns are
scaled so that all bands have equal influence a priori, whatever their widths: k standardised columns under one penalty
move a score k^(1/2) times as far as a single column, so each column of a wide band has a larger penalty.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any]
Strengths = tuple[float, ...]
"""One strength for each band, nearest first; the largest is 1."""

WEAKER = 0.3
_STANDARD_ERRORS = 0.5
_ROWS = 16_384  # frames per matrix product


def column_scales(widths: Sequence[int], strengths: Strengths) -> npt.NDArray[np.float64]:
    """(D,) square root of the factor by which each column's penalty is divided; 0 for the columns of dropped bands.

    The columns of the nearest band that is not dropped have its strength.
    """
    first = next(width for width, strength in zip(widths, strengths, strict=True) if strength)
    scales = [strength * (first / width) ** 0.5 for width, strength in zip(widths, strengths, strict=True)]
    return np.repeat(scales, widths)


@dataclass(frozen=True, eq=False)
class Moments:
    """Sufficient statistics of standardised frames for ridge regression onto classes, in float64.

    gram: (D, D) mean products of columns. cross: (D, C) mean products with centred one-hot classes. shares: (C,) class
    frequencies.
    """

    gram: Tensor
    cross: Tensor
    shares: Tensor

    @classmethod
    def of(cls, blocks: Iterable[tuple[Array, Array]], shares: Array) -> Moments:
        """Compute them from blocks of frames (n, D) and classes (n,). shares: (C,) frequencies of the classes."""
        sums: tuple[Tensor, Tensor] | None = None
        one_hot, count = np.eye(len(shares), dtype=np.float32) - shares.astype(np.float32), 0
        for frames, targets in blocks:
            if sums is None:
                size = frames.shape[1], len(shares)
                sums = torch.zeros(size[0], size[0], dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
            for start in range(0, len(frames), _ROWS):
                inputs = torch.from_numpy(np.ascontiguousarray(frames[start : start + _ROWS]))
                sums[0].add_(inputs.T @ inputs)
                sums[1].add_(inputs.T @ torch.from_numpy(one_hot[targets[start : start + _ROWS]]))
            count += len(frames)
        assert sums is not None
        return cls(sums[0] / count, sums[1] / count, torch.from_numpy(shares))

    def best(
        self, scales: Array, penalties: Sequence[float], blocks: Iterable[tuple[Array, Array]]
    ) -> tuple[npt.NDArray[np.float64], float, npt.NDArray[np.bool_]]:
        """Solve for each penalty and select the best on other frames.

        Args:
            scales: (D,) factor of each column; columns with 0 are dropped.
            penalties: in decreasing order. Those behind the first that is worse do not count; ties go to the strongest
                penalty.
            blocks: validation frames (n, D) and their classes (n,). Iterated once.

        Returns:
            The weights (D, C), their penalty, and which of the V frames are classified correctly, (V,).
        """
        columns = np.flatnonzero(scales)
        index, scale = torch.from_numpy(columns), torch.from_numpy(scales[columns])
        gram = self.gram[index][:, index] * scale[:, None] * scale
        cross = self.cross[index] * scale[:, None]
        solved = []
        for penalty in penalties:
            penalised = gram.clone()
            penalised.diagonal().add_(penalty)
            solved.append(torch.cholesky_solve(cross, torch.linalg.cholesky(penalised)) * scale[:, None])
        right = np.concatenate([self._right(solved, frames[:, columns], targets) for frames, targets in blocks], axis=1)
        counts, chosen = right.sum(axis=1), 0
        for place in range(1, len(penalties)):
            if counts[place] < counts[chosen]:
                break
            chosen = place if counts[place] > counts[chosen] else chosen
        weight = np.zeros((len(scales), len(self.shares)))
        weight[columns] = solved[chosen].numpy()
        return weight, penalties[chosen], right[chosen]

    def _right(self, weights: Sequence[Tensor], frames: Array, targets: Array) -> npt.NDArray[np.bool_]:
        """(weights, n): whether each frame is classified correctly with each of some weights (D, C)."""
        inputs, bias = torch.from_numpy(frames), self.shares.float()
        return np.stack([torch.addmm(bias, inputs, w.float()).argmax(dim=1).numpy() == targets for w in weights])


@dataclass(frozen=True, eq=False)
class Search:
    """Searches for the band strengths with the best validation accuracy.

    Args:
        moments: of the training frames, all bands.
        frames: (V, D) validation frames, standardised like the training frames.
        targets: (V,) their classes.
        videos: (V,) index of their video.
        widths: of the bands.
        penalties: in decreasing order.
    """

    moments: Moments
    frames: Array
    targets: Array
    videos: Array
    widths: Sequence[int]
    penalties: Sequence[float]
    _known: dict[Strengths, npt.NDArray[np.int64]] = field(default_factory=dict, init=False)

    def select(self, chosen: Strengths = ()) -> Strengths:
        """The best strengths, or only that of the last band if those of the others are given."""
        return self.select_last(chosen) if chosen else self.best()

    def best(self) -> Strengths:
        """Select the subset of bands, then reduce the strength of single bands.

        The best subset is the one with the most correct validation frames; ties go to fewer bands, then to nearer ones.
        The strength of each selected band is then reduced if the gain exceeds the noise.
        """
        count = len(self.widths)
        subsets = [
            tuple(float(band in read) for band in range(count))
            for size in range(1, count + 1)
            for read in combinations(range(count), size)
        ]
        best = max(subsets, key=lambda subset: self._right(subset).sum())  # ties: the first
        for band in [band for band, strength in enumerate(best) if strength and sum(best) > 1]:
            weaker = (*best[:band], WEAKER, *best[band + 1 :])
            if max(weaker) == 1 and self._gains(weaker, best):
                best = weaker
        return best

    def select_last(self, chosen: Strengths) -> Strengths:
        """Select the strength of the last band (0 to drop it), given the strengths of all others.

        All are compared under the penalty that is best when every band is read, as in `best`.
        """
        return max(((*chosen, strength) for strength in (0.0, WEAKER, 1.0)), key=lambda found: self._right(found).sum())

    def _gains(self, one: Strengths, other: Strengths) -> bool:
        """Whether ``one`` gains more than half a standard error over ``other``."""
        gain = self._right(one) - self._right(other)
        return bool(gain.sum() > _STANDARD_ERRORS * self._noise(gain))

    @cached_property
    def _penalty(self) -> float:
        """The best penalty with all bands, at which all choices are compared."""
        scales = column_scales(self.widths, (1.0,) * len(self.widths))
        return self.moments.best(scales, self.penalties, [(self.frames, self.targets)])[1]

    def _right(self, strengths: Strengths) -> npt.NDArray[np.int64]:
        """(V,) 1 for frames that are classified correctly, else 0."""
        if strengths in self._known:
            return self._known[strengths]
        scales = column_scales(self.widths, strengths)
        right = self.moments.best(scales, [self._penalty], [(self.frames, self.targets)])[2].astype(np.int64)
        self._known[strengths] = right
        return right

    @cached_property
    def _segments(self) -> npt.NDArray[np.int64]:
        """(V,) index of the segment (run of one class in one video) of each frame."""
        ends = (np.diff(self.targets) != 0) | (np.diff(self.videos) != 0)
        return np.concatenate([[0], np.cumsum(ends)])

    def _noise(self, gain: Array) -> float:
        """Standard error of the sum of a gain (V,), clustered by video or by segment, whichever is larger."""
        errors = []
        for units in (self.videos, self._segments):
            frames = np.bincount(units)
            off = np.bincount(units, gain) - gain.mean() * frames
            count = np.count_nonzero(frames)
            errors.append(float(np.sqrt((off**2).sum() * count / max(count - 1, 1))))
        return max(errors)
