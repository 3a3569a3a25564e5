"""Losses of the heads: frame cross-entropy, smoothing, class weights, logit adjustment and soft boundaries.

Frames labelled -100 are ignored. Scores are unnormalised logits, (..., C).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from keystep.data.annotation import IGNORED


def frame_cross_entropy(*, scores: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy: mean over the labelled frames of ``-log p(label)``.

    Args:
        scores: (..., C).
        labels: (...) int64, -100 if unlabelled.
        weights: (C,) class weights of a weighted mean. None: equal weights.

    Returns:
        A scalar; 0 if no frame is labelled.
    """
    flat = labels.flatten()
    total = cross_entropy(scores.flatten(0, -2), flat, weights, ignore_index=IGNORED, reduction="sum")
    known = flat != IGNORED
    counts = known if weights is None else weights[flat.masked_fill(~known, 0)] * known
    return total / _nonzero(counts.sum())


def soft_cross_entropy(*, scores: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy with soft labels: ``-sum(targets * log p) / sum(targets)``.

    Args:
        scores: (..., C).
        targets: (..., C) class shares; all zeros if a frame is unlabelled.
        weights: (C,) factors of the shares. None: ones.

    Returns:
        A scalar; 0 if no frame is labelled.
    """
    shares = targets if weights is None else targets * weights
    return -(shares * scores.log_softmax(-1)).sum() / _nonzero(shares.sum())


def soften_boundaries(*, labels: Tensor, classes: int, radius: int) -> Tensor:
    """Compute the shares of the classes among the labelled frames within ``radius`` of each frame.

    Labels are thus linear over the frames around a boundary and hard elsewhere.

    Args:
        labels: (B, T) int64, -100 if unlabelled.
        classes: C.
        radius: in frames; 0 gives hard labels.

    Returns:
        (B, T, C) float32; all zeros at unlabelled frames.
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
    """Truncated smoothing loss of MS-TCN: mean over t and classes of ``min(|log p_t - log p_{t-1}|, threshold)^2``.

    As published, no gradient flows to the earlier frame of a pair.

    Args:
        scores: (..., B, T, C).
        valid: (B, T) bool; pairs with padding are ignored.
        threshold: tau of the paper.

    Returns:
        A scalar.
    """
    logs = scores.log_softmax(-1)
    change = (logs[..., 1:, :] - logs[..., :-1, :].detach()).square().clamp(max=threshold**2)
    pairs = (valid[:, 1:] & valid[:, :-1])[..., None].expand(change.shape)
    return (change * pairs).sum() / pairs.sum().clamp(min=1)


def class_weights(
    *, counts: Tensor, rule: Literal["none", "inverse_root", "effective"], beta: float = 0.9999
) -> Tensor:
    """Compute class weights from class frequencies.

    Args:
        counts: (C,) training frames n of each class.
        rule: ``inverse_root``: 1 / sqrt(n). ``effective``: (1 - beta) / (1 - beta^n), Cui et al., "Class-Balanced Loss
            Based on Effective Number of Samples", 2019. ``none``: equal weights.
        beta: of ``effective``.

    Returns:
        (C,) float32 with mean 1 over the classes that have frames, 0 for the others.
    """
    numbers, present = counts.double(), counts > 0
    if rule == "none":
        raw = torch.ones_like(numbers)
    elif rule == "inverse_root":
        raw = numbers.clamp(min=1).rsqrt()
    else:
        raw = (1 - beta) / (1 - beta ** numbers.clamp(min=1))
    raw = raw * present
    return (raw * present.sum() / raw.sum().clamp(min=1e-12)).float()


def logit_adjustment(*, counts: Tensor, strength: float = 1.0) -> Tensor:
    """Compute ``strength * log(share of the class)``, which is added to the scores in training only.

    Menon et al., "Long-tail Learning via Logit Adjustment", 2021: the unadjusted scores then do not favour frequent
    classes.

    Args:
        counts: (C,) training frames of each class; 0 counts as 1.
        strength: tau of the paper.

    Returns:
        (C,) float32.
    """
    numbers = counts.double().clamp(min=1)
    return (strength * (numbers / numbers.sum()).log()).float()


def _nonzero(total: Tensor) -> Tensor:
    """A divisor: ``total``, or 1 where it is 0."""
    return torch.where(total > 0, total, torch.ones_like(total))
