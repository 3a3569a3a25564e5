"""How far predictions are from their targets, over hidden and, weighted, over visible frames."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from keystep.config import ObjectiveConfig

UNKNOWN = -100
"""The class id of a target that does not exist, such as one beyond the end of the crop; among floats it is NaN."""


@dataclass(frozen=True)
class Shares:
    """What the last columns of float targets are: at each of some offsets, the share of each cluster.

    They are compared by cross-entropy, which counts ``weight`` times beside the distance of the other columns.
    """

    offsets: int
    clusters: int
    weight: float

    def split(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """(..., K + offsets x clusters) as (..., K) and (..., offsets, clusters)."""
        own = columns.shape[-1] - self.offsets * self.clusters
        return columns[..., :own], columns[..., own:].reshape(*columns.shape[:-1], self.offsets, self.clusters)


def frame_distance(
    predictions: Tensor, targets: Tensor, config: ObjectiveConfig, shares: Shares | None = None
) -> Tensor:
    """(B, T) distance of each frame, averaged over what is known of its targets; 0 where nothing is.

    Float targets (B, T, K), NaN where unknown, are compared by ``config.distance``, except for ``shares`` of clusters,
    which are predicted as logits. Integer targets, (B, T) or for n classes a frame (B, T, n), -100 where unknown, are
    compared by cross-entropy with predictions (B, T, n x classes).
    """
    predictions = predictions.float()
    if shares is not None:
        (predictions, logits), (targets, wanted) = shares.split(predictions), shares.split(targets)
        beside = shares.weight * _cross_entropy(logits, wanted)
        return frame_distance(predictions, targets, config) + beside
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
    """(B, T) of logits and shares (B, T, offsets, clusters), averaged over the offsets that are known."""
    known = ~shares[..., 0].isnan()
    distance = -(shares.nan_to_num(0.0).float() * functional.log_softmax(logits, dim=-1)).sum(-1)
    return distance.sum(-1) / known.sum(-1).clamp(min=1)


@dataclass(frozen=True)
class FrameSums:
    """Distances summed over the hidden and over the visible frames of a batch, two scalars."""

    hidden: Tensor
    visible: Tensor

    def loss(self, visible_weight: float, hidden_frames: Tensor, visible_frames: Tensor) -> Tensor:
        """``mean over hidden + visible_weight * mean over visible`` for the given total counts.

        Every frame weighs the same, whichever video or process it is in (the authors weigh frames, too).
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
    """Sum the distances over hidden and over visible frames of a batch; padding counts nowhere.

    predictions, targets and shares as in `frame_distance`; hidden, valid (B, T) bool.
    """
    padding = ~valid  # blanked before, not after: the gradient of a NaN times zero would still be NaN
    targets = targets.masked_fill(padding if targets.ndim == 2 else padding[..., None], 0)
    distance = frame_distance(predictions.masked_fill(padding[..., None], 0), targets, config, shares)
    hidden, visible = hidden & valid, ~hidden & valid
    return FrameSums(
        hidden=(distance * hidden).sum(),
        visible=(distance * visible).sum(),
    )


def count_frames(hidden: Tensor, valid: Tensor) -> Tensor:
    """(2,) float32: how many valid frames are hidden, and how many visible. What the sums are divided by, once the
    counts of all parts and processes are added up."""
    return torch.stack([(hidden & valid).sum(), (~hidden & valid).sum()]).float()
