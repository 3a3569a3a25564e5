"""How far predictions are from their targets, over hidden and, weighted, over visible frames."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from keystep.config import ObjectiveConfig


def frame_distance(predictions: Tensor, targets: Tensor, config: ObjectiveConfig) -> Tensor:
    """(B, T) distance of each frame, averaged over channels.

    Integer targets (B, T) are classes and compared by cross-entropy; float targets (B, T, K) by ``config.distance``.
    """
    predictions = predictions.float()
    if not targets.is_floating_point():
        return functional.cross_entropy(predictions.transpose(1, 2), targets, reduction="none")
    distances = {"l1": functional.l1_loss, "l2": functional.mse_loss, "smooth_l1": functional.smooth_l1_loss}
    return distances[config.distance](predictions, targets.float(), reduction="none").mean(-1)


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
    predictions: Tensor, targets: Tensor, hidden: Tensor, valid: Tensor, config: ObjectiveConfig
) -> FrameSums:
    """Sum the distances over hidden and over visible frames of a batch; padding counts nowhere.

    predictions (B, T, K); targets (B, T, K) or (B, T) int64; hidden, valid (B, T) bool.
    """
    padding = ~valid  # blanked before, not after: the gradient of a NaN times zero would still be NaN
    targets = targets.masked_fill(padding[..., None] if targets.is_floating_point() else padding, 0)
    distance = frame_distance(predictions.masked_fill(padding[..., None], 0), targets, config)
    hidden, visible = hidden & valid, ~hidden & valid
    return FrameSums(
        hidden=(distance * hidden).sum(),
        visible=(distance * visible).sum(),
    )


def count_frames(hidden: Tensor, valid: Tensor) -> Tensor:
    """(2,) float32: how many valid frames are hidden, and how many visible. What the sums are divided by, once the
    counts of all parts and processes are added up."""
    return torch.stack([(hidden & valid).sum(), (~hidden & valid).sum()]).float()
