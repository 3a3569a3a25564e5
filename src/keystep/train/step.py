"""The algorithm: forward, loss, step, EMA."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from keystep import schedules
from keystep.config import RunConfig, TrainConfig
from keystep.config.attention import AttentionPattern
from keystep.data.crops import TrainingBatch
from keystep.objectives import count_frames, frame_sums
from keystep.pjepa import PJEPA
from keystep.target import Target
from keystep.train.skips import Skips


@dataclass(frozen=True)
class Learner:
    """The objects that a step changes.

    Attributes:
        config: all settings, complete (`keystep.train.setup.settle_config`).
        fabric: runs the processes.
        model: the trained model.
        wrapped: the same model as Fabric runs it (DDP if there are several processes).
        target: makes the targets.
        optimizer: of the model's parameters.
        skips: counts the skipped steps.
    """

    config: RunConfig
    fabric: Fabric
    model: PJEPA
    wrapped: nn.Module
    target: Target
    optimizer: Optimizer
    skips: Skips = field(default_factory=Skips)


@dataclass(frozen=True)
class StepResult:
    """Scalars of one step over all processes.

    Attributes:
        loss: the objective.
        hidden, visible: mean distance of the predictions at hidden and at visible frames.
        gradient_norm: before clipping.
        frames: number of valid frames.
        taken: whether loss and gradient were finite; if not, weights, moments and target are unchanged.
    """

    loss: Tensor
    hidden: Tensor
    visible: Tensor
    gradient_norm: Tensor
    frames: Tensor
    taken: bool


def train_step(learner: Learner, step: int, batches: Iterable[TrainingBatch]) -> StepResult:
    """Run one optimiser step: forward, loss, backward, clip, AdamW, EMA of the target encoder.

    The loss is ``mean over hidden of d(prediction, target) + visible_weight * mean over visible of d(...)``, over the
    frames of all batches and processes (`keystep.objectives`).

    Args:
        learner: changed in place.
        step: its number, from 0.
        batches: ``accumulate`` batches with their hidden frames, (B, T) bool; fewer at the end of an epoch.
    """
    config, fabric = learner.config, learner.fabric
    pattern = draw_pattern(step, config)
    batches = [(batch.to(fabric.device), hidden.to(fabric.device)) for batch, hidden in batches]
    # Processes average their gradients, so each divides by its share of the frames of all processes.
    counts = torch.stack([count_frames(hidden, batch.valid) for batch, hidden in batches])  # (parts, 2)
    counts = sum_over_processes(fabric, counts)
    total_counts = counts.sum(0)
    by_parts = config.objective.average == "parts"
    weights = counts * config.train.accumulate if by_parts else total_counts.expand_as(counts)
    shares = weights / fabric.world_size
    totals = torch.zeros(3, device=fabric.device)
    for part, (batch, hidden) in enumerate(batches, start=1):
        waiting = part < len(batches)
        with fabric.no_backward_sync(learner.wrapped) if waiting and fabric.world_size > 1 else nullcontext():  # type: ignore[arg-type]
            targets = learner.target(batch, pattern)
            predictions = learner.wrapped(batch, hidden, pattern).predictions
            sums = frame_sums(predictions, targets, hidden, batch.valid, config.objective, learner.target.shares)
            loss = sums.loss(config.objective.visible_weight, *shares[part - 1])
            fabric.backward(loss)
        totals += torch.stack([loss.detach(), sums.hidden.detach(), sums.visible.detach()])
    norm = fabric.clip_gradients(
        learner.wrapped, learner.optimizer, max_norm=config.train.clip, error_if_nonfinite=False
    )
    assert norm is not None
    broken = ~(norm.isfinite() & totals.isfinite().all())
    *sums_of_all, broken = sum_over_processes(fabric, torch.cat([totals, broken.float()[None]]))  # all decide the same
    for group in learner.optimizer.param_groups:
        group["lr"] = schedules.learning_rate(step, config.train)
    taken = learner.skips.step(learner.optimizer, finite=not bool(broken))
    if taken:
        learner.target.follow(learner.model.encoder, schedules.momentum(step, config.train.steps, config.target))
    loss, hidden_sum, visible_sum = sums_of_all
    hidden_frames, visible_frames = total_counts.clamp(min=1)
    return StepResult(
        loss=loss / fabric.world_size,
        hidden=hidden_sum / hidden_frames,
        visible=visible_sum / visible_frames,
        gradient_norm=norm,
        frames=total_counts.sum(),
        taken=taken,
    )


def sum_over_processes(fabric: Fabric, values: Tensor) -> Tensor:
    """Sum of a tensor over all processes."""
    total = fabric.all_reduce(values, reduce_op="sum")
    assert isinstance(total, Tensor)
    return total


def draw_pattern(step: int, config: RunConfig) -> AttentionPattern:
    """The encoder's attention in this step: the live one with probability ``live_share``, the same in all processes."""
    live = config.model.live_attention
    if live is None:
        return config.model.attention
    rng = np.random.default_rng((config.train.seed, 2, step))
    return live if rng.random() < config.train.live_share else config.model.attention


def build_optimizer(model: nn.Module, config: TrainConfig) -> AdamW:
    """Create AdamW (betas 0.9 and 0.999) with weight decay on matrices only, unless ``decay_all``.

    Args:
        model: whose parameters are optimised.
        config: learning rate and weight decay.
    """

    def decays(name: str, parameter: Tensor) -> bool:
        return config.decay_all or (parameter.ndim == 2 and not name.endswith("bias"))

    named = list(model.named_parameters())
    groups = [
        {"params": [p for name, p in named if decays(name, p)], "weight_decay": config.weight_decay},
        {"params": [p for name, p in named if not decays(name, p)], "weight_decay": 0.0},
    ]
    return AdamW([group for group in groups if group["params"]], lr=config.learning_rate, betas=(0.9, 0.999))
