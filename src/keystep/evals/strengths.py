"""The strength of each band: how far a probe may lean on it, chosen on the validation videos.

The weights of a band of strength s pay the penalty / s^2; those of strength 0 do not exist. Before any label is seen
all bands have the same say, whatever their widths: k standardised columns under one penalty move a score k^(1/2) times
as far as one does, so each column of a wide band pays more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any]
Strengths = tuple[float, ...]
"""One a band, nearest first; the largest is 1."""

TRIED = (1.0, 0.3, 0.0)
_SWEEPS = 2
_STANDARD_ERRORS = 1.0
_PENALTIES = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
_FRAMES = 20_000


def column_scales(widths: Sequence[int], strengths: Strengths) -> npt.NDArray[np.float64]:
    """(D,) square root of the factor that each column's penalty is divided by; 0 for the columns of dropped bands.

    Those of the nearest band that is not dropped are its strength, whatever else is there.
    """
    first = next(width for width, strength in zip(widths, strengths, strict=True) if strength)
    scales = [strength * (first / width) ** 0.5 for width, strength in zip(widths, strengths, strict=True)]
    return np.repeat(scales, widths)


@dataclass(frozen=True, eq=False)
class Moments:
    """What a ridge regression onto classes needs to know of standardised frames.

    gram: (D, D) mean products of columns. cross: (D, C) the same with the classes, one column each, less their shares.
    shares: (C,) of the frames.
    """

    gram: Tensor
    cross: Tensor
    shares: Tensor

    @classmethod
    def of(cls, frames: Array, targets: Array, classes: int) -> Moments:
        """Of frames (N, D) and their classes (N,); of evenly spaced ones where there are many."""
        step = -(-len(frames) // _FRAMES)
        inputs, wanted = torch.from_numpy(frames[::step]), torch.from_numpy(targets[::step])
        hot = torch.nn.functional.one_hot(wanted, classes).float()
        shares = hot.mean(dim=0)
        return cls(inputs.T @ inputs / len(inputs), inputs.T @ (hot - shares) / len(inputs), shares)

    def scaled(self, columns: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """(gram, cross) of some columns, each multiplied by its scale."""
        return self.gram[columns][:, columns] * scale[:, None] * scale, self.cross[columns] * scale[:, None]


@dataclass(frozen=True, eq=False)
class Search:
    """Looks for the strengths that the validation frames ask for beyond their noise.

    Strengths are compared by ridge regressions onto the classes: dozens of them cost less than one logistic regression.

    moments: of the training frames, all bands. frames: (V, D) validation frames, standardised as those are; targets:
    (V,) their classes; videos: (V,) the index of the video that each is of. widths: of the bands.
    """

    moments: Moments
    frames: Array
    targets: Array
    videos: Array
    widths: Sequence[int]
    _known: dict[Strengths, npt.NDArray[np.int64]] = field(default_factory=dict, init=False)

    def best(self) -> Strengths:
        """All 1, unless others gain more than noise.

        Tried are the nearest bands, from one to all but one, and the last alone, then each band's strength in turn.
        """
        count = len(self.widths)
        cumulative = [(1.0,) * kept + (0.0,) * (count - kept) for kept in range(1, count)]
        chosen = self._better((1.0,) * count, [*cumulative, (0.0,) * (count - 1) + (1.0,)])
        for _ in range(_SWEEPS):
            before = chosen
            for band in reversed(range(count)):
                others = ((*chosen[:band], strength, *chosen[band + 1 :]) for strength in TRIED)
                chosen = self._better(chosen, [other for other in others if max(other) == 1])
            if chosen == before:
                break
        return chosen

    def _better(self, chosen: Strengths, others: Sequence[Strengths]) -> Strengths:
        """The best of ``others`` if its gain on ``chosen`` is more than noise, otherwise ``chosen``."""
        best = max(others, key=lambda other: self._right(other).sum())  # the first of equally good ones
        gain = self._right(best) - self._right(chosen)
        return best if gain.sum() > _STANDARD_ERRORS * self._noise(gain) else chosen

    def _right(self, strengths: Strengths) -> npt.NDArray[np.int64]:
        """(V,) 1 where the best ridge regression of the path of penalties is right, else 0."""
        if strengths in self._known:
            return self._known[strengths]
        scales = column_scales(self.widths, strengths)
        columns = np.flatnonzero(scales)
        scale, frames = torch.from_numpy(scales[columns]).float(), torch.from_numpy(self.frames[:, columns])
        gram, cross = self.moments.scaled(torch.from_numpy(columns), scale)
        best = np.full(len(frames), -1)
        for penalty in _PENALTIES:
            root, failed = torch.linalg.cholesky_ex(gram + penalty * torch.eye(len(gram)))
            if failed:  # no digits are left
                break
            weight = torch.cholesky_solve(cross, root) * scale[:, None]
            said = torch.addmm(self.moments.shares, frames, weight).argmax(dim=1).numpy()
            right = (said == self.targets).astype(np.int64)
            if right.sum() <= best.sum():
                break
            best = right
        self._known[strengths] = best
        return best

    @cached_property
    def _segments(self) -> npt.NDArray[np.int64]:
        """(V,) the index of the stretch of one class in one video that each frame is of."""
        ends = (np.diff(self.targets) != 0) | (np.diff(self.videos) != 0)
        return np.concatenate([[0], np.cumsum(ends)])

    def _noise(self, gain: Array) -> float:
        """Standard error of the sum of a gain (V,), as videos vary or as segments do: the larger, as videos are few."""
        errors = []
        for units in (self.videos, self._segments):
            frames = np.bincount(units)
            off = np.bincount(units, gain) - gain.mean() * frames
            count = np.count_nonzero(frames)
            errors.append(float(np.sqrt((off**2).sum() * count / max(count - 1, 1))))
        return max(errors)
