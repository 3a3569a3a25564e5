"""Frames moved, averaged and standardised along the time of their videos; padding stays out of it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def shifted(targets: Tensor, shift: int, unknown: float) -> Tensor:
    """(B, T, K): at each frame the target ``shift`` frames later, or ``unknown``."""
    length = targets.shape[1]
    shift = max(-length, min(length, shift))
    moved = targets.roll(-shift, dims=1)
    if shift > 0:
        moved[:, length - shift :] = unknown
    elif shift < 0:
        moved[:, :-shift] = unknown
    return moved


def averaged(sums: Tensor, valid: Tensor, shift: int, width: int) -> Tensor:
    """(B, T, K): at each frame the mean over ``width`` frames around the one ``shift`` frames later.

    Over those that are valid; NaN where the one in the middle is not. sums: (B, 1 + T, K) float64, of the valid frames
    before each.
    """
    lengths = valid.sum(1)[:, None]  # (B, 1)
    middle = torch.arange(valid.shape[1], device=valid.device) + shift  # (T,)
    start = (middle - width // 2).clamp(min=0).expand(len(valid), -1).clamp(max=lengths)
    stop = (middle - width // 2 + width).clamp(min=0).expand(len(valid), -1).clamp(max=lengths)
    known = valid & (middle >= 0) & (middle < lengths)
    first, last = (sums.gather(1, index[..., None].expand(-1, -1, sums.shape[2])) for index in (start, stop))
    means = (last - first) / (stop - start).clamp(min=1)[..., None]
    return means.masked_fill(~known[..., None], float("nan"))


def smoothed(frames: Tensor, valid: Tensor, width: int) -> Tensor:
    """(B, T, D) averages over ``width`` frames around each, of those that are valid; zeros stay at padding."""

    def sums(x: Tensor) -> Tensor:
        return functional.avg_pool1d(x.transpose(1, 2), width, stride=1, padding=width // 2).transpose(1, 2)

    weight = valid[..., None].to(frames.dtype)
    return sums(frames * weight) / sums(weight).clamp(min=1e-6) * weight


def standardise_over_time(latents: Tensor, valid: Tensor) -> Tensor:
    """Each channel to mean 0 and deviation 1 over a video's valid frames."""
    weight = valid[..., None].float()
    count = weight.sum(1, keepdim=True).clamp(min=1)
    centred = (latents - (latents * weight).sum(1, keepdim=True) / count) * weight
    return centred / (centred.square().sum(1, keepdim=True) / count + 1e-5).sqrt()
