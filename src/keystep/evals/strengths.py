"""The strength of each band: how far a probe may lean on it, chosen on the validation videos.

The weights of a band of strength s pay the penalty / s^2; those of strength 0 do not exist. Before any label is seen
all bands have the same say, whatever their widths: k standardised columns under one penalty move a score k^(1/2) times
as far as one does, so each column of a wide band pays more.
"""

from __future__ import annotations

from collections.abc import Sequence
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
"""One a band, nearest first; the largest is 1."""

WEAKER = 0.3
_STANDARD_ERRORS = 0.5
_ROWS = 16_384  # frames whose products are added up at once


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
    shares: (C,) of the frames. All float64.
    """

    gram: Tensor
    cross: Tensor
    shares: Tensor

    @classmethod
    def of(cls, frames: Array, targets: Array, classes: int) -> Moments:
        """Of frames (N, D) and their classes (N,)."""
        width, count = frames.shape[1], len(frames)
        shares = np.bincount(targets, minlength=classes) / count
        gram, cross = torch.zeros(width, width, dtype=torch.float64), torch.zeros(width, classes, dtype=torch.float64)
        for start in range(0, count, _ROWS):
            inputs = torch.from_numpy(np.ascontiguousarray(frames[start : start + _ROWS]))
            hot = np.eye(classes, dtype=np.float32)[targets[start : start + _ROWS]] - shares.astype(np.float32)
            gram += inputs.T @ inputs
            cross += inputs.T @ torch.from_numpy(hot)
        return cls(gram / count, cross / count, torch.from_numpy(shares))

    def best(
        self, scales: Array, penalties: Sequence[float], frames: Array, targets: Array
    ) -> tuple[npt.NDArray[np.float64], float, npt.NDArray[np.bool_]]:
        """The weights (D, C) that read other frames (V, D) of classes (V,) best, their penalty, and (V,) what is right.

        scales: (D,), what each column is multiplied by; those of 0 are left out. Penalties fall, and the first that
        loses ends the search; of equally good ones the strongest is taken.
        """
        columns = np.flatnonzero(scales)
        index, scale = torch.from_numpy(columns), torch.from_numpy(scales[columns])
        gram = self.gram[index][:, index] * scale[:, None] * scale
        cross, inputs = self.cross[index] * scale[:, None], torch.from_numpy(frames[:, columns])
        found: tuple[npt.NDArray[np.float64], float, npt.NDArray[np.bool_]] | None = None
        for penalty in penalties:
            penalised = gram.clone()
            penalised.diagonal().add_(penalty)
            solved = torch.cholesky_solve(cross, torch.linalg.cholesky(penalised)) * scale[:, None]
            said = torch.addmm(self.shares.float(), inputs, solved.float()).argmax(dim=1).numpy()
            right = said == targets
            if found is not None and right.sum() <= found[2].sum():
                if right.sum() < found[2].sum():
                    break
                continue
            weight = np.zeros((len(scales), len(self.shares)))
            weight[columns] = solved.numpy()
            found = weight, penalty, right
        assert found is not None
        return found


@dataclass(frozen=True, eq=False)
class Search:
    """Looks for the strengths by which the validation frames are read best.

    moments: of the training frames, all bands. frames: (V, D) validation frames, standardised as those are; targets:
    (V,) their classes; videos: (V,) the index of the video that each is of. widths: of the bands. penalties: falling.
    """

    moments: Moments
    frames: Array
    targets: Array
    videos: Array
    widths: Sequence[int]
    penalties: Sequence[float]
    _known: dict[Strengths, npt.NDArray[np.int64]] = field(default_factory=dict, init=False)

    def best(self) -> Strengths:
        """Choose the bands that are read, and then how strongly each of them is.

        Of all subsets of the bands, the one that is right in the most validation frames; of equally good ones the one
        with the fewest bands, and of as many the nearest. Then a band may be read more weakly where that gains more
        than noise.
        """
        count = len(self.widths)
        subsets = [
            tuple(float(band in read) for band in range(count))
            for size in range(1, count + 1)
            for read in combinations(range(count), size)
        ]
        best = max(subsets, key=lambda subset: self._right(subset).sum())  # the first of equally good ones
        for band in [band for band, strength in enumerate(best) if strength and sum(best) > 1]:
            weaker = (*best[:band], WEAKER, *best[band + 1 :])
            if max(weaker) == 1 and self._gains(weaker, best):
                best = weaker
        return best

    def beside(self, chosen: Strengths) -> Strengths:
        """Choose how strongly the last band is read, if at all, where the strengths of all others are known."""
        return max(((*chosen, strength) for strength in (0.0, WEAKER, 1.0)), key=lambda found: self._right(found).sum())

    def _gains(self, one: Strengths, other: Strengths) -> bool:
        """Whether one choice reads more frames than another beyond noise."""
        gain = self._right(one) - self._right(other)
        return bool(gain.sum() > _STANDARD_ERRORS * self._noise(gain))

    @cached_property
    def _penalty(self) -> float:
        """The best one where all bands are read, which all choices are compared by."""
        scales = column_scales(self.widths, (1.0,) * len(self.widths))
        return self.moments.best(scales, self.penalties, self.frames, self.targets)[1]

    def _right(self, strengths: Strengths) -> npt.NDArray[np.int64]:
        """(V,) 1 where the probe is right, else 0."""
        if strengths in self._known:
            return self._known[strengths]
        scales = column_scales(self.widths, strengths)
        right = self.moments.best(scales, [self._penalty], self.frames, self.targets)[2].astype(np.int64)
        self._known[strengths] = right
        return right

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
