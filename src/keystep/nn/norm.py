"""Normalisation of features by fixed statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelNorm(nn.Module):
    """Standardise each channel by statistics of the training videos; the identity until they are set."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    @property
    def width(self) -> int:
        """Number of channels, D."""
        return len(self.mean)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)"""
        return (x - self.mean) / self.deviation
