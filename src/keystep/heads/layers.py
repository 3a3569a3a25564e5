"""Convolutions along time as matrix products: frames at several distances side by side, times one matrix.

(With 64 channels on a CPU, a third faster than torch's own dilated convolution, and the layout is attention's.)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from keystep.nn.context import SequenceContext


def tapped(x: Tensor, distances: Sequence[int], context: SequenceContext, name: str) -> Tensor:
    """(B, n, D) -> (B, n, K D): for each frame those at K ascending distances, side by side; zeros where none is."""
    assert all(a < b for a, b in pairwise(distances))
    before, after = max(0, -distances[0]), max(0, distances[-1])
    known = context.around(name, x, before, after)
    starts = [before + distance for distance in distances]
    return torch.cat([known[:, start : start + x.shape[1]] for start in starts], dim=-1)


def three(dilation: int, causal: bool) -> tuple[int, int, int]:
    """Distances of a convolution of width 3."""
    return (-2 * dilation, -dilation, 0) if causal else (-dilation, 0, dilation)


class Dilated(nn.Linear):
    """A dilated convolution of width 3, D -> D; weight (D, 3 D), earliest frame first."""

    def __init__(self, dim: int, dilation: int, causal: bool) -> None:
        super().__init__(3 * dim, dim)  # torch's default initialisation is a convolution's, too
        self.distances = three(dilation, causal)

    def over(self, x: Tensor, context: SequenceContext, name: str) -> Tensor:
        """(B, n, D) -> (B, n, D)"""
        out: Tensor = self(tapped(x, self.distances, context, name))
        return out

    @property
    def reach(self) -> tuple[int, int]:
        """Frames before and after."""
        return -self.distances[0], self.distances[-1]
