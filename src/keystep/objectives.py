"""The training objective: distance between predictions and targets at hidden and (weighted) visible frames."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from keystep.config import ObjectiveConfig

UNKNOWN = -100
"""Class id of a missing target, such as one beyond the end of the crop; for float targets it is NaN."""


@dataclass(frozen=True)
class Shares:
    """The last columns of float targets: the cluster frequencies around each frame, at several offsets.

    They are compared by cross-entropy, which is added with the given weight to the distance of the other columns.
    """

    offsets: int
    clusters: int
    weight: float

    def split(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """(..., K + offsets x clusters) -> (..., K) and (..., offsets, clusters)."""
        own = columns.shape[-1] - self.offsets * self.clusters
        return columns[..., :own], columns[..., own:].reshape(*columns.shape[:-1], self.offsets, self.clusters)


def frame_distance(
    predictions: Tensor, targets: Tensor, config: ObjectiveConfig, shares: Shares | None = None
) -> Tensor:
    """Distance of each frame, averaged over its known targets; 0 if there are none.

    Args:
        predictions: (B, T, K); for class targets (B, T, n x classes) logits.
        targets: (B, T, K) float, NaN if unknown; or (B, T) or (B, T, n) class ids, -100 if unknown.
        config: its ``distance`` is used for float targets. Class targets use cross-entropy.
        shares: describes columns that are cluster frequencies, which are predicted as logits.

    Returns:
        (B, T).
    """
    predictions = predictions.float()
    if shares is not None:
        (predictions, logits), (targets, wanted) = shares.split(predictions), shares.split(targets)
        cross_entropy = shares.weight * _cross_entropy(logits, wanted)
        return frame_distance(predictions, targets, config) + cross_entropy
    if targets.is_floating_point():
        known = ~targets.isnan()
        wanted = torch.where(known, targets.float(), predictions.detach())
        distances = {"l1": functional.l1_loss, "l2": functional.mse_loss, "smooth_l1": functional.smooth_l1_loss}
        distance = distances[config.distance](predictions, wanted, reduction="none")
    else:
        targets = targets if targets.ndim == predictions.ndim else targets[..., None]
        known = targets != UNKNOWN
        scores = predictions.reshape(targets.numel(), -1)  # (B x T x n, classes)
        distance = functional.cross_entropy(scores, targets.flatten(), reduction="none", ignore_index=UNKNOWN)
        distance = distance.view(targets.shape)
    return distance.sum(-1) / known.sum(-1).clamp(min=1)


def _cross_entropy(logits: Tensor, shares: Tensor) -> Tensor:
    """(B, T) cross-entropy of logits and frequencies (B, T, offsets, clusters), averaged over the known offsets."""
    known = ~shares[..., 0].isnan()
    distance = -(shares.nan_to_num(0.0).float() * functional.log_softmax(logits, dim=-1)).sum(-1)
    return distance.sum(-1) / known.sum(-1).clamp(min=1)


@dataclass(frozen=True)
class FrameSums:
    """Sums of the distances over the hidden and the visible frames of a batch, as scalars."""

    hidden: Tensor
    visible: Tensor

    def loss(self, visible_weight: float, hidden_frames: Tensor, visible_frames: Tensor) -> Tensor:
        """``mean over hidden + visible_weight * mean over visible``, with the given total counts.

        Every frame has the same weight, independently of its video or process, as in the authors' code.
        """
        return self.hidden / hidden_frames.clamp(min=1) + visible_weight * self.visible / visible_frames.clamp(min=1)


def frame_sums(
    predictions: Tensor,
    targets: Tensor,
    hidden: Tensor,
    valid: Tensor,
    config: ObjectiveConfig,
    shares: Shares | None = None,
) -> FrameSums:
    """Sum the distances over the hidden and the visible frames of a batch, excluding padding.

    Args:
        predictions, targets, config, shares: as in `frame_distance`.
        hidden, valid: (B, T) bool.
    """
    padding = ~valid  # masked before the distance, because the gradient of NaN * 0 is NaN
    targets = targets.masked_fill(padding if targets.ndim == 2 else padding[..., None], 0)
    distance = frame_distance(predictions.masked_fill(padding[..., None], 0), targets, config, shares)
    hidden, visible = hidden & valid, ~hidden & valid
    return FrameSums(
        hidden=(distance * hidden).sum(),
        visible=(distance * visible).sum(),
    )


def count_frames(hidden: Tensor, valid: Tensor) -> Tensor:
    """(2,) float32: number of hidden and of visible valid frames.

    Loss sums are divided by these after adding up all accumulation steps and processes.
    """
    return torch.stack([(hidden & valid).sum(), (~hidden & valid).sum()]).float()
