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

from keystep.evals.regression import Regression

Array = npt.NDArray[Any]
Strengths = tuple[float, ...]
"""One a band, nearest first; the largest is 1."""

TRIED = (1.0, 0.3, 0.0)
_SWEEPS = 2
_STANDARD_ERRORS = 0.5


def column_scales(widths: Sequence[int], strengths: Strengths) -> npt.NDArray[np.float64]:
    """(D,) square root of the factor that each column's penalty is divided by; 0 for the columns of dropped bands.

    Those of the nearest band that is not dropped are its strength, whatever else is there.
    """
    first = next(width for width, strength in zip(widths, strengths, strict=True) if strength)
    scales = [strength * (first / width) ** 0.5 for width, strength in zip(widths, strengths, strict=True)]
    return np.repeat(scales, widths)


@dataclass(frozen=True, eq=False)
class Search:
    """Looks for the strengths that the validation frames ask for beyond their noise.

    regression: of the training frames, all bands. frames: (V, D) validation frames, standardised as those are; targets:
    (V,) their classes; videos: (V,) the index of the video that each is of. widths: of the bands. penalties: falling.
    """

    regression: Regression
    frames: Array
    targets: Array
    videos: Array
    widths: Sequence[int]
    penalties: Sequence[float]
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
        """(V,) 1 where the best probe of the path of penalties is right, else 0."""
        if strengths in self._known:
            return self._known[strengths]
        scales = column_scales(self.widths, strengths)
        columns = np.flatnonzero(scales)
        part, frames = self.regression.of(columns), torch.from_numpy(self.frames[:, columns])
        shrinking = torch.from_numpy(scales[columns] ** -2).float()
        solution, best = part.zero(), np.full(len(frames), -1)
        for penalty in self.penalties:
            solution = part.solve(penalty * shrinking, solution)
            said = torch.addmm(solution[:, -1:], solution[:, :-1], frames.T).argmax(dim=0).numpy()
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
