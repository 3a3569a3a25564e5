"""The algorithm: forward, loss, step, EMA."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from keystep import schedules
from keystep.config import RunConfig, TrainConfig
from keystep.data.crops import TrainingBatch
from keystep.nn.attention import AttentionPattern
from keystep.objectives import frame_sums
from keystep.pjepa import PJEPA
from keystep.target import Target


@dataclass(frozen=True)
class Learner:
    """What a step works on. ``wrapped`` is the model as Fabric runs it (DDP when there are several processes)."""

    config: RunConfig
    fabric: Fabric
    model: PJEPA
    wrapped: nn.Module
    target: Target
    optimizer: Optimizer


@dataclass(frozen=True)
class StepResult:
    """Scalars of one step, over all processes: mean distances, the loss, and the gradient's norm before clipping."""

    loss: Tensor
    hidden: Tensor
    visible: Tensor
    gradient_norm: Tensor
    frames: Tensor


def train_step(learner: Learner, step: int, batches: Iterable[TrainingBatch]) -> StepResult:
    """One optimiser step (0-based) over ``accumulate`` batches."""
    config, fabric = learner.config, learner.fabric
    pattern = draw_pattern(step, config)
    totals = torch.zeros(5, device=fabric.device)
    for part, (batch, hidden) in enumerate(batches, start=1):
        batch, hidden = batch.to(fabric.device), hidden.to(fabric.device)
        waiting = part < config.train.accumulate
        with fabric.no_backward_sync(learner.wrapped) if waiting and fabric.world_size > 1 else nullcontext():  # type: ignore[arg-type]
            targets = learner.target(batch, pattern)
            predictions = learner.wrapped(batch, hidden, pattern).predictions
            sums = frame_sums(predictions, targets, hidden, batch.valid, config.objective)
            # Processes average their gradients, so each divides by its share of the frames of all processes.
            counts = torch.stack([sums.hidden_frames, sums.visible_frames]).float()
            shares = add_up(fabric, counts) / fabric.world_size
            loss = sums.loss(config.objective.visible_weight, *shares) / config.train.accumulate
            fabric.backward(loss)
        totals += torch.stack([loss.detach(), sums.hidden.detach(), sums.visible.detach(), *counts])
    norm = fabric.clip_gradients(learner.wrapped, learner.optimizer, max_norm=config.train.clip)
    for group in learner.optimizer.param_groups:
        group["lr"] = schedules.learning_rate(step, config.train)
    learner.optimizer.step()
    learner.optimizer.zero_grad()
    learner.target.follow(learner.model.encoder, schedules.momentum(step, config.train.steps, config.target))
    return _result(fabric, totals, norm)


def add_up(fabric: Fabric, values: Tensor) -> Tensor:
    """The sum over all processes."""
    total = fabric.all_reduce(values, reduce_op="sum")
    assert isinstance(total, Tensor)
    return total


def _result(fabric: Fabric, totals: Tensor, norm: Tensor | None) -> StepResult:
    loss, hidden, visible, hidden_frames, visible_frames = add_up(fabric, totals)
    assert norm is not None
    return StepResult(
        loss=loss / fabric.world_size,
        hidden=hidden / hidden_frames.clamp(min=1),
        visible=visible / visible_frames.clamp(min=1),
        gradient_norm=norm,
        frames=hidden_frames + visible_frames,
    )


def draw_pattern(step: int, config: RunConfig) -> AttentionPattern:
    """The encoder's attention in this step, the same in every process: the model's own, or its live one."""
    live = config.model.live_attention
    if live is None:
        return config.model.attention
    rng = np.random.default_rng((config.train.seed, 2, step))
    return live if rng.random() < config.train.live_share else config.model.attention


def build_optimizer(model: nn.Module, config: TrainConfig) -> AdamW:
    """AdamW; weight decay on matrices only, unless ``decay_all``."""

    def decays(name: str, parameter: Tensor) -> bool:
        return config.decay_all or (parameter.ndim == 2 and not name.endswith("bias"))

    named = list(model.named_parameters())
    groups = [
        {"params": [p for name, p in named if decays(name, p)], "weight_decay": config.weight_decay},
        {"params": [p for name, p in named if not decays(name, p)], "weight_decay": 0.0},
    ]
    return AdamW([group for group in groups if group["params"]], lr=config.learning_rate, betas=(0.9, 0.999))
