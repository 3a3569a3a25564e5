"""Multinomial logistic regression with an L2 penalty for each column, in few passes over the frames."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from torch import Tensor

Array = npt.NDArray[Any]

_FRAMES_FOR_GRAM = 20_000


@dataclass(frozen=True, eq=False)
class Regression:
    """What the classes of frames are regressed on.

    inputs: (N, D) float32, standardised; targets: (N,) classes; gram: (D, D) mean products of their columns;
    iterations: the most L-BFGS steps of one `solve`.
    """

    inputs: Tensor
    targets: Tensor
    gram: Tensor
    classes: int
    iterations: int

    @classmethod
    def on(cls, frames: Array, targets: Array, classes: int, iterations: int) -> Regression:
        """Of frames (N, D), whose Gram matrix is taken over evenly spaced ones where there are many."""
        inputs = torch.from_numpy(frames)
        some = inputs[:: -(-len(frames) // _FRAMES_FOR_GRAM)]
        return cls(inputs, torch.from_numpy(targets), some.T @ some / len(some), classes, iterations)

    def of(self, columns: Array) -> Regression:
        """The same on some of the columns, given by their indices."""
        index = torch.from_numpy(columns)
        return replace(self, inputs=self.inputs[:, index], gram=self.gram[index][:, index])

    def zero(self) -> Tensor:
        """The solution to begin with, (C, D + 1)."""
        return torch.zeros(self.classes, self.inputs.shape[1] + 1)

    def solve(self, penalties: Tensor, start: Tensor) -> Tensor:
        """Minimise mean cross entropy + half the sum of each column's penalty (D,) x its squared weights.

        start: (C, D + 1), the last column being the bias; returns the same. The weights are searched for in coordinates
        in which the curvature is about 1 in all directions (by Cholesky's root of Gram matrix / C + penalties), so
        that a dozen steps of L-BFGS suffice. Classes come first, as products with a few long rows are several times
        faster than those with a few long columns.
        """
        curvature = self.gram.double() / self.classes
        rounding = float(curvature.trace()) * torch.finfo(torch.float32).eps  # of directions that no frame moves along
        curvature.diagonal().add_(penalties.double().clamp(min=rounding + 1e-12))
        root = torch.linalg.cholesky(curvature)
        identity = torch.eye(len(root), dtype=torch.float64)
        back = torch.linalg.solve_triangular(root, identity, upper=False).float()  # (D, D)
        options = {"maxiter": self.iterations, "maxcor": self.iterations, "ftol": 1e-4, "gtol": 1e-5}

        def objective(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
            point = torch.from_numpy(flat.astype(np.float32)).view_as(start)
            loss, slopes = self._loss(point[:, :-1] @ back, point[:, -1:], penalties)
            return loss, torch.cat([slopes[:, :-1] @ back.T, slopes[:, -1:]], dim=1).flatten().double().numpy()

        begin = torch.cat([start[:, :-1] @ root.float(), start[:, -1:]], dim=1).flatten().double().numpy()
        found: Any = minimize(objective, begin, jac=True, method="L-BFGS-B", options=options)
        point = torch.from_numpy(found.x.astype(np.float32)).view_as(start)
        return torch.cat([point[:, :-1] @ back, point[:, -1:]], dim=1)

    def _loss(self, weight: Tensor, bias: Tensor, penalties: Tensor) -> tuple[float, Tensor]:
        """The loss at weight (C, D) and bias (C, 1), and its slopes, (C, D + 1)."""
        count = len(self.targets)
        rows = torch.arange(count)
        slopes = torch.log_softmax(torch.addmm(bias, weight, self.inputs.T), dim=0)  # (C, N)
        shrinking = penalties * weight
        loss = -slopes[self.targets, rows].sum(dtype=torch.float64) / count
        loss += (shrinking * weight).sum(dtype=torch.float64) / 2
        slopes.exp_()
        slopes[self.targets, rows] -= 1
        slopes /= count
        return float(loss), torch.cat([torch.addmm(shrinking, slopes, self.inputs), slopes.sum(1, keepdim=True)], dim=1)
