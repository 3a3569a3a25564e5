"""What heads are trained with: frame cross entropy, calm between frames, classes of unequal frequency, soft boundaries.

Frames labelled -100 count nowhere. Scores are (..., C), unnormalised; logarithms are natural.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from keystep.data.annotation import IGNORED


def frame_cross_entropy(*, scores: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over the labelled frames of -log p(label), a scalar; 0 where no frame is labelled.

    scores (..., C); labels (...) int64; weights (C,): the mean is then weighted by each frame's class.
    """
    flat = labels.flatten()
    total = cross_entropy(scores.flatten(0, -2), flat, weights, ignore_index=IGNORED, reduction="sum")
    known = flat != IGNORED
    counts = known if weights is None else weights[flat.masked_fill(~known, 0)] * known
    return total / _at_least_some(counts.sum())


def soft_cross_entropy(*, scores: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """The same for shares of classes, (..., C); a frame whose shares are all 0 counts nowhere.

    weights (C,) multiply the shares, in the sum and in what it is divided by.
    """
    shares = targets if weights is None else targets * weights
    return -(shares * scores.log_softmax(-1)).sum() / _at_least_some(shares.sum())


def soften_boundaries(*, labels: Tensor, classes: int, radius: int) -> Tensor:
    """(B, T) int64 labels -> (B, T, C) shares of the classes among the labelled frames within ``radius`` of a frame.

    So a label falls off linearly over the frames on both sides of a boundary, and is whole farther away. A frame
    without a label stays without: all its shares are 0.
    """
    known = labels != IGNORED
    single = one_hot(labels.masked_fill(~known, 0), classes) * known[..., None]  # (B, T, C)
    if not radius:
        return single.float()
    length = labels.shape[1]
    sums = torch.cat([torch.zeros_like(single[:, :1]), single.cumsum(1)], dim=1)  # (B, T + 1, C), whole numbers
    index = torch.arange(length, device=labels.device)
    counts = sums[:, (index + radius + 1).clamp(max=length)] - sums[:, (index - radius).clamp(min=0)]
    shares = counts / counts.sum(-1, keepdim=True).clamp(min=1)
    return shares * known[..., None]


def truncated_smoothing(*, scores: Tensor, valid: Tensor, threshold: float = 4.0) -> Tensor:
    """Mean over valid neighbours and classes of min(|log p_t - log p_{t-1}|, threshold)^2 (MS-TCN), a scalar.

    scores (..., B, T, C); valid (B, T) bool. As published, no gradient flows to the earlier frame of a pair.
    """
    logs = scores.log_softmax(-1)
    change = (logs[..., 1:, :] - logs[..., :-1, :].detach()).square().clamp(max=threshold**2)
    pairs = (valid[:, 1:] & valid[:, :-1])[..., None].expand(change.shape)
    return (change * pairs).sum() / pairs.sum().clamp(min=1)


def class_weights(
    *, counts: Tensor, rule: Literal["none", "inverse_root", "effective"], beta: float = 0.9999
) -> Tensor:
    """(C,) float32 weights from the classes' training frames (C,), with mean 1 over the classes that have any.

    ``inverse_root``: 1 / sqrt(n). ``effective``: (1 - beta) / (1 - beta^n), Cui et al., "Class-Balanced Loss Based on
    Effective Number of Samples", 2019. Classes without frames get 0.
    """
    numbers, there = counts.double(), counts > 0
    if rule == "none":
        raw = torch.ones_like(numbers)
    elif rule == "inverse_root":
        raw = numbers.clamp(min=1).rsqrt()
    else:
        raw = (1 - beta) / (1 - beta ** numbers.clamp(min=1))
    raw = raw * there
    return (raw * there.sum() / raw.sum().clamp(min=1e-12)).float()


def logit_adjustment(*, counts: Tensor, strength: float = 1.0) -> Tensor:
    """(C,) float32 to add to the scores in training: ``strength`` x log of the class's share of the frames.

    Menon et al., "Long-tail Learning via Logit Adjustment", 2021: the scores without it then favour no class for being
    frequent. A class without frames counts as one frame.
    """
    numbers = counts.double().clamp(min=1)
    return (strength * (numbers / numbers.sum()).log()).float()


def _at_least_some(total: Tensor) -> Tensor:
    """What a sum is divided by: itself, or 1 where it is 0."""
    return torch.where(total > 0, total, torch.ones_like(total))
