"""Per-video mean subtraction (running mean if causal), which removes differences of persons, places and lighting."""

from __future__ import annotations

import torch
from torch import Tensor


def centre(x: Tensor, valid: Tensor | None) -> Tensor:
    """Subtract the mean over each sequence's valid tokens from (B, N, D). valid: (B, N) bool; None if all are valid."""
    if valid is None:
        return x - x.mean(1, keepdim=True)
    weight = valid[..., None].to(x.dtype)
    return (x - (x * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)) * weight


def running_centre(x: Tensor, total: Tensor | None = None, count: Tensor | int = 0) -> tuple[Tensor, Tensor]:
    """Subtract the running mean, including the current token, from (B, N, D).

    Args:
        x: (B, N, D).
        total, count: sum (B, D) and number of the preceding tokens, one number for all or (B, 1, 1).

    Returns:
        The centred tokens, and the sum (B, D) to continue from. It is in float64, so that results do not depend on the
        chunking, even after hours.
    """
    sums = x.double().cumsum(1)  # (B, N, D)
    if total is not None:
        sums += total[:, None]  # in place: hours of float64 are large
    seen = count + torch.arange(1, x.shape[1] + 1, device=x.device)[:, None]
    return (x - sums / seen).to(x.dtype), sums[:, -1]
