"""Removing a video's mean: who films, where, with which light, and not what is done."""

from __future__ import annotations

import torch
from torch import Tensor


def centre(x: Tensor, valid: Tensor | None) -> Tensor:
    """(B, N, D) minus the mean over each sequence's real tokens; ``valid`` (B, N) bool, None when all are real."""
    if valid is None:
        return x - x.mean(1, keepdim=True)
    weight = valid[..., None].to(x.dtype)
    return (x - (x * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)) * weight


def running_centre(x: Tensor, total: Tensor | None = None, count: Tensor | int = 0) -> tuple[Tensor, Tensor]:
    """(B, N, D) minus the mean of the tokens so far, each token included; and the sum (B, D) float64 to continue from.

    Args:
        total, count: sum (B, D) and number of the tokens before these, one number for all or (B, 1, 1). Sums are
            float64, so that hours add up exactly enough for any chunking to give the same numbers.
    """
    sums = x.double().cumsum(1)  # (B, N, D)
    if total is not None:
        sums += total[:, None]  # in place: hours of float64 are large
    seen = count + torch.arange(1, x.shape[1] + 1, device=x.device)[:, None]
    return (x - sums / seen).to(x.dtype), sums[:, -1]
