"""The training loop of all heads, which selects the best epoch on the validation videos.

Order, crops, dropout and learning rate are functions of the seed and the step, so that a resumed training is
bit-identical. Test videos are not used here.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import AdamW

from keystep import schedules
from keystep.errors import InputError
from keystep.heads import losses
from keystep.heads.checkpoints import Checkpoint
from keystep.heads.config import HeadConfig, TrainingConfig
from keystep.heads.description import describe
from keystep.heads.head import Head
from keystep.heads.registry import build_head
from keystep.heads.trial import try_head
from keystep.heads.videos import Videos, VideoStatistics, load_batch, measure_videos, plan_batches
from keystep.metrics import segmentation_scores
from keystep.plugins import HEADS
from keystep.train.skips import Skips

log = logging.getLogger(__name__)


MEASURED_IN_TRAINING = ("loss", "learning_rate", "skipped_steps")


class EpochCallback(Protocol):
    """Called after each epoch with its number (from 1), the number of epochs, and the measurements."""

    def __call__(self, epoch: int, epochs: int, measured: Mapping[str, float]) -> None: ...


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """A trained head.

    Attributes:
        head: the head of the best epoch, in eval mode.
        record: settings, scores and history of the training as plain values.
    """

    head: Head
    record: dict[str, Any]

    @property
    def valid_scores(self) -> dict[str, float]:
        """The validation scores (0-100) of the selected epoch."""
        return dict(self.record["valid_scores"])


@dataclass(eq=False)
class _TrainingState:
    """The state of a training."""

    head: Head
    optimizer: AdamW
    clip: float
    best: dict[str, Tensor]
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    skips: Skips = field(default_factory=Skips)

    @property
    def epochs(self) -> int:
        """Number of finished epochs."""
        return len(self.history)


def train_head(
    config: HeadConfig,
    train: Videos,
    valid: Videos,
    *,
    classes: int,
    training: TrainingConfig | None = None,
    seed: int = 0,
    background: Sequence[int] = (),
    names: Sequence[str] = (),
    origin: Mapping[str, str] | None = None,
    folder: Path | str | None = None,
    progress: EpochCallback | None = None,
    device: torch.device | str = "cpu",
) -> TrainedHead:
    """Train a head and select the epoch that is best on the validation videos.

    Args:
        config: settings of the head (`head_config`).
        train, valid: pairs of features (T, D) and class ids (T,), -100 if unlabelled.
        classes: number of classes; some may have no training frames.
        training: settings of the training. None: the defaults.
        seed: of weights, order, crops and dropout.
        background: classes that edit and F1 exclude when epochs are compared.
        names, origin: stored in the head as `Head.names` and `Head.origin`.
        folder: where a checkpoint is written after each epoch. The same call resumes an interrupted training, and loads
            a finished one. The trained head is its ``head.safetensors``. None: nothing is written.
        progress: called after each epoch.
        device: where to train.

    Raises:
        InputError: videos that do not fit (see `measure_videos`), a folder of another training, or `MOST_IN_A_ROW`
            consecutive steps without a finite gradient.
    """
    training, folder = training or TrainingConfig(), None if folder is None else Path(folder)
    known = measure_videos(train, classes, "training")
    held_out = measure_videos(valid, classes, "validation")
    if known.mean.shape != held_out.mean.shape:
        raise InputError(f"training width {len(known.mean)}, but validation width {len(held_out.mean)}")
    identity = {
        "head": config.model_dump(mode="json"),
        "training": training.model_dump(mode="json"),
        "classes": classes,
        "background": sorted(background),
        "seed": seed,
        "videos": [known.fingerprint, held_out.fingerprint],
    }
    run = _start_training(config, training, known, classes, seed, device)
    checkpoint = None if folder is None else Checkpoint(folder, identity)
    if checkpoint is not None and (state := checkpoint.load(run.head, run.optimizer)) is not None:
        run.best, run.history, run.best_epoch = state.best, state.history, state.best_epoch
        run.skips.total = int(sum(epoch.get("skipped_steps", 0) for epoch in run.history))
    while not _is_finished(run, training):
        measured = _run_epoch(run, train, known, training, seed, classes)
        measured |= _validate(run.head, valid, held_out.lengths, training, classes, background)
        run.history.append(measured)
        best = run.history[run.best_epoch - 1]["selection"] if run.best_epoch else -1.0
        if measured["selection"] > best:  # of equally good epochs the first
            run.best_epoch, run.best = run.epochs, copy.deepcopy(run.head.state_dict())
        if checkpoint is not None:
            checkpoint.save(run.head, run.optimizer, run.best, run.history, run.best_epoch)
        if progress is not None:
            progress(run.epochs, training.epochs, measured)
    if run.skips.total:
        log.warning("%s head: %s", config.kind, run.skips.summary())
    run.head.load_state_dict(run.best)
    head = run.head.eval()
    head.names, head.origin = tuple(names), dict(origin or {})
    if folder is not None:
        head.save(folder / "head.safetensors")
    return TrainedHead(head, _record(run, identity, training))


def rate_factor(step: int, steps: int, warmup: int, schedule: str) -> float:
    """Factor of the learning rate: linear warm-up, then constant or cosine decay to 0.

    Args:
        step: from 0.
        steps: total number.
        warmup: steps of the warm-up.
        schedule: ``constant`` or ``cosine``.
    """
    rise = schedules.warmup(step, warmup)
    return rise if schedule == "constant" else rise * schedules.cosine_decay(step, warmup, steps)


def _start_training(
    config: HeadConfig,
    training: TrainingConfig,
    known: VideoStatistics,
    classes: int,
    seed: int,
    device: torch.device | str,
) -> _TrainingState:
    head = build_head(config, len(known.mean), classes, seed)
    if config.kind not in HEADS.own:
        try_head(head)
    if training.standardise:
        head.standardise.mean.copy_(known.mean)
        head.standardise.deviation.copy_(known.deviation)
    head.to(device)
    matrices = [p for p in head.parameters() if p.ndim == 2]
    others = [p for p in head.parameters() if p.ndim != 2]
    groups = [{"params": matrices, "weight_decay": training.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = AdamW(groups, lr=training.rate(config.kind))
    return _TrainingState(head, optimizer, training.clip, copy.deepcopy(head.state_dict()))


def _is_finished(run: _TrainingState, training: TrainingConfig) -> bool:
    waited = run.epochs - run.best_epoch
    return run.epochs >= training.epochs or (training.patience is not None and waited >= training.patience)


def _run_epoch(
    run: _TrainingState, videos: Videos, known: VideoStatistics, training: TrainingConfig, seed: int, classes: int
) -> dict[str, float]:
    """Run one epoch; returns the mean loss of the steps taken, the last learning rate, and the skipped steps."""
    run.head.train()
    loss_of = HeadLoss(training, known.counts.to(run.head.standardise.mean.device))
    epoch, plan, total = run.epochs, plan_batches(known.lengths, training.batch_videos, seed, run.epochs), 0.0
    steps, warmup = len(plan) * training.epochs, round(training.warmup * len(plan))
    skipped = run.skips.total
    for number, chosen in enumerate(plan):
        step = epoch * len(plan) + number
        batch = load_batch(videos, chosen, classes, "training", training.crop, (seed, 1, epoch))
        for group in run.optimizer.param_groups:
            group["lr"] = training.rate(run.head.config.kind) * rate_factor(step, steps, warmup, training.schedule)
        loss = _step(run, batch, loss_of, _dropout_seed(seed, step))
        run.skips.check(f"step {step + 1} (epoch {epoch + 1})", "lower learning_rate")
        total += loss or 0.0
    skipped = run.skips.total - skipped
    mean = {"loss": total / (len(plan) - skipped)} if skipped < len(plan) else {}
    return {**mean, "learning_rate": run.optimizer.param_groups[0]["lr"], "skipped_steps": skipped}


def _step(run: _TrainingState, batch: tuple[Tensor, Tensor, Tensor], loss_of: HeadLoss, seed: int) -> float | None:
    """Run one optimiser step; returns the loss. None: it was skipped, because loss or gradient is not finite."""
    device = run.head.standardise.mean.device
    features, labels, valid = (part.to(device) for part in batch)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        scores = run.head(features, valid)
    loss = loss_of(scores, labels, valid)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(run.head.parameters(), run.clip)
    value = loss.item()
    return value if run.skips.step(run.optimizer, math.isfinite(value) and bool(norm.isfinite())) else None


class HeadLoss:
    """Sum over the stages of ``cross-entropy + smoothing * truncated smoothing loss`` (MS-TCN).

    Args:
        training: weights and options of the losses.
        counts: (C,) training frames of each class.
    """

    def __init__(self, training: TrainingConfig, counts: Tensor) -> None:
        self.training = training
        self.weights = losses.class_weights(counts=counts, rule=training.class_weights, beta=training.effective_beta)
        self.shift = losses.logit_adjustment(counts=counts, strength=training.logit_adjustment)

    def __call__(self, scores: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        """Scores (S, B, T, C), labels (B, T) with -100 if unknown, valid (B, T) bool -> a scalar."""
        total, radius = scores.new_zeros(()), self.training.boundary_radius
        soft = losses.soften_boundaries(labels=labels, classes=scores.shape[-1], radius=radius) if radius else None
        for stage in scores:
            moved = stage + self.shift
            if soft is None:
                total = total + losses.frame_cross_entropy(scores=moved, labels=labels, weights=self.weights)
            else:
                total = total + losses.soft_cross_entropy(scores=moved, targets=soft, weights=self.weights)
            if self.training.smoothing:
                calm = losses.truncated_smoothing(scores=stage, valid=valid, threshold=self.training.truncation)
                total = total + self.training.smoothing * calm
        return total


def _validate(
    head: Head,
    videos: Videos,
    lengths: Sequence[int],
    training: TrainingConfig,
    classes: int,
    background: Sequence[int],
) -> dict[str, float]:
    """Scores on the validation videos, and ``selection``, by which the epoch is selected."""
    head.eval()
    device = head.standardise.mean.device
    predictions, truths = [], []
    for index in range(len(lengths)):
        features, labels, _ = load_batch(videos, [index], classes, "validation")
        predictions.append(head.predict(features.to(device))[0].cpu().numpy())
        truths.append(labels[0].numpy())
    scores = segmentation_scores(predictions, truths, background)
    parts = ("accuracy",) if training.selection == "accuracy" else ("accuracy", "edit", "f1@10", "f1@25", "f1@50")
    return {**scores, "selection": sum(scores[part] for part in parts) / len(parts)}


def _record(run: _TrainingState, identity: Mapping[str, Any], training: TrainingConfig) -> dict[str, Any]:
    best = run.history[run.best_epoch - 1]
    rule = {
        "average": "highest mean of frame accuracy, edit, F1@10, F1@25 and F1@50 on the validation videos",
        "accuracy": "highest frame accuracy on the validation videos",
    }
    return {
        **identity,
        "selection": rule[training.selection],
        "best_epoch": run.best_epoch,
        "epochs": run.epochs,
        "valid_scores": {name: value for name, value in best.items() if name not in MEASURED_IN_TRAINING},
        "skipped_steps": run.skips.total,
        "parameters": describe(run.head).parameters,
        "history": run.history,
    }


def _dropout_seed(seed: int, step: int) -> int:
    """A seed for each step, independent of earlier draws."""
    return (seed * 1_000_003 + step * 7_919 + 17) % 2**63
