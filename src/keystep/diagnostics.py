"""Training monitors that detect collapse, which a falling loss does not show.

`Monitor` evaluates a few fixed videos with fixed masks, so its values are comparable over training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from keystep.config import ObjectiveConfig
from keystep.config.attention import AttentionPattern
from keystep.data.crops import TrainingBatch
from keystep.objectives import UNKNOWN, Shares, frame_distance
from keystep.pjepa import PJEPA
from keystep.target import Target

RANK_FRAMES = 4096
COLLAPSED_SHARE = 0.25
STILL_COSINE = 0.995


@dataclass(frozen=True)
class Health:
    """Values of the monitors at one step.

    Attributes:
        effective_rank: exp of the entropy of the latents' normalised singular values, over frames of all monitor
            videos; at most D.
        neighbour_cosine: mean cosine similarity of the latents of adjacent frames (centred over all videos); 1 means
            constant over time.
        hidden_loss: distance between predictions and targets at hidden frames.
        mean_loss: the same for the best constant prediction.
        copy_loss: the same for the target of the nearest visible frame; None for class targets.
        hidden_accuracy, copy_accuracy: the same as accuracies in percent; for class targets only.
        probe_accuracy: accuracy of a ridge classifier in percent, fitted on every other monitor video and tested on the
            rest; None without labels. It is never used for selection.
    """

    effective_rank: float
    neighbour_cosine: float
    hidden_loss: float
    mean_loss: float
    copy_loss: float | None = None
    hidden_accuracy: float | None = None
    copy_accuracy: float | None = None
    probe_accuracy: float | None = None

    def metrics(self) -> dict[str, float]:
        """The available values with names that start with ``monitor/``."""
        return {f"monitor/{name}": value for name, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        probe = "" if self.probe_accuracy is None else f", probe {self.probe_accuracy:.1f} %"
        return (
            f"hidden loss {self.hidden_loss:.3f} (constant {self.mean_loss:.3f}), effective rank "
            f"{self.effective_rank:.1f}, cosine of adjacent latents {self.neighbour_cosine:.3f}{probe}"
        )

    def warnings(self, start: Health, done: float = 1.0) -> dict[str, str]:
        """Warnings about signs of collapse, compared with the untrained model.

        Args:
            start: the values of the untrained model.
            done: completed share of the training. Early predictions are worse than a constant, so that is a warning
                only in the second half.

        Returns:
            Name of the value that is wrong -> a line about it.
        """
        lines = {}
        if self.effective_rank < COLLAPSED_SHARE * start.effective_rank:
            lines["effective_rank"] = (
                f"the latents are collapsing: effective rank {self.effective_rank:.1f}, "
                f"{start.effective_rank:.1f} before training"
            )
        if self.neighbour_cosine > STILL_COSINE:
            lines["neighbour_cosine"] = f"adjacent latents are nearly identical (cosine {self.neighbour_cosine:.4f})"
        if self.hidden_loss > self.mean_loss and done >= 0.5:
            lines["hidden_loss"] = (
                f"predictions (loss {self.hidden_loss:.3f}) are worse than a constant ({self.mean_loss:.3f})"
            )
        if None not in (self.probe_accuracy, start.probe_accuracy) and self.probe_accuracy < start.probe_accuracy - 2:  # type: ignore[operator]
            lines["probe_accuracy"] = (
                f"probe accuracy is {self.probe_accuracy:.1f} %, but {start.probe_accuracy:.1f} % with the untrained "
                "encoder"
            )
        return lines


@dataclass(frozen=True)
class Monitor:
    """Fixed crops with fixed masks, and their labels, if any (padded with -100)."""

    batches: Sequence[TrainingBatch]
    labels: Sequence[Tensor] | None
    objective: ObjectiveConfig

    @torch.no_grad()
    def look(self, model: PJEPA, target: Target, pattern: AttentionPattern) -> Health:
        """Evaluate the model on the monitor crops."""
        device = model.mask_token.device
        latents, predictions, targets, nearest = [], [], [], []
        cosines = []
        for batch, hidden in self.batches:
            batch, hidden = batch.to(device), hidden.to(device)
            goal = target(batch, pattern)
            prediction = model(batch, hidden, pattern).predictions
            latent = model.encoder.readout(model.encoder(batch, batch.valid, pattern))
            latents.append(latent[batch.valid].float())
            cosines.append((latent, batch.valid))
            predictions.append(prediction[hidden])
            targets.append(goal[hidden])
            copied = nearest_visible(hidden, batch.valid)
            rows = torch.arange(len(goal), device=device)[:, None]
            nearest.append(goal[rows, copied][hidden])
        everything = torch.cat(latents)
        return Health(
            effective_rank=effective_rank(everything[:: max(1, len(everything) // RANK_FRAMES)]),
            neighbour_cosine=_neighbour_cosine(cosines, everything.mean(0)),
            probe_accuracy=self._probe(cosines),
            **self._losses(torch.cat(predictions), torch.cat(targets), torch.cat(nearest), target.shares),
        )

    def _losses(self, predictions: Tensor, targets: Tensor, copies: Tensor, shares: Shares | None) -> dict[str, float]:
        """Losses at hidden frames of predictions (N, K), targets and copies (N, K), (N, n) or (N,)."""

        def distance(guess: Tensor) -> float:
            return float(frame_distance(guess[None], targets[None], self.objective, shares).mean())

        if targets.is_floating_point():
            constant = self._constant(targets, shares)
            copied = torch.where(copies.isnan(), constant, copies)
            return {
                "hidden_loss": distance(predictions),
                "mean_loss": distance(_as_logits(constant, constant, shares)),
                "copy_loss": distance(_as_logits(copied, constant, shares)),
            }
        targets, copies = (ids if ids.ndim == 2 else ids[:, None] for ids in (targets, copies))  # (N, n)
        scores = predictions.reshape(*targets.shape, -1)  # (N, n, classes)
        known = targets != UNKNOWN
        counts = torch.stack([torch.bincount(ids[ids >= 0], minlength=scores.shape[-1]) for ids in targets.T]).float()
        often = counts / counts.sum(1, keepdim=True).clamp(min=1)  # (n, classes)
        return {
            "hidden_loss": distance(predictions),
            "mean_loss": distance(often.clamp(min=1e-9).log().expand_as(scores).flatten(1)),
            "hidden_accuracy": 100 * float((scores.argmax(-1) == targets)[known].float().mean()),
            "copy_accuracy": 100 * float((copies == targets)[known].float().mean()),
        }

    def _constant(self, targets: Tensor, shares: Shares | None) -> Tensor:
        """(N, K): the best constant for float targets (N, K); the mean for cluster frequencies."""
        mean = targets.nanmean(0)
        middle = mean if self.objective.distance != "l1" else targets.nanmedian(0).values
        if shares is not None:
            own = len(mean) - shares.offsets * shares.clusters
            middle = torch.cat([middle[:own], mean[own:]])
        return middle.nan_to_num(0.0).expand_as(targets)  # a column may have no known target

    def _probe(self, encoded: Sequence[tuple[Tensor, Tensor]]) -> float | None:
        if self.labels is None:
            return None
        rows, labels = [], []
        for (latent, _), label in zip(encoded, self.labels, strict=True):
            for sequence, ids in zip(latent, label.to(latent.device), strict=True):
                if (ids >= 0).any():
                    rows.append(sequence[ids >= 0].float())
                    labels.append(ids[ids >= 0])
        if len(rows) < 2:
            return None
        return ridge_accuracy(
            torch.cat(rows[::2]), torch.cat(labels[::2]), torch.cat(rows[1::2]), torch.cat(labels[1::2])
        )


def _as_logits(guess: Tensor, constant: Tensor, shares: Shares | None) -> Tensor:
    """A guess (N, K) with its cluster frequencies as logits, averaged with the constant to keep the loss finite."""
    if shares is None:
        return guess
    (own, guessed), (_, mean) = shares.split(guess), shares.split(constant)
    return torch.cat([own, ((guessed + mean) / 2).clamp(min=1e-9).log().flatten(-2)], dim=-1)


def effective_rank(latents: Tensor) -> float:
    """exp(entropy) of the normalised singular values of the centred latents (N, D) (Roy and Vetterli, 2007).

    NaN if the latents are not finite.
    """
    if not bool(latents.isfinite().all()):
        return math.nan
    values = torch.linalg.svdvals((latents - latents.mean(0)).double())
    shares = values / values.sum().clamp(min=1e-12)
    return float(torch.exp(-(shares * shares.clamp(min=1e-12).log()).sum()))


def nearest_visible(hidden: Tensor, valid: Tensor) -> Tensor:
    """(B, T) int64 index of the nearest visible frame (ties: the earlier one); for visible frames, their own index."""
    length = hidden.shape[1]
    index = torch.arange(length, device=hidden.device).expand(hidden.shape)
    visible = valid & ~hidden
    before = torch.where(visible, index, -length).cummax(1).values
    after = torch.where(visible, index, 2 * length).flip(1).cummin(1).values.flip(1)
    return torch.where(index - before <= after - index, before, after).clamp(0, length - 1)


def ridge_accuracy(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """Test accuracy in percent of ridge regression onto one-hot labels; (N, D) frames, (N,) class ids."""
    mean, deviation = train.mean(0), train.std(0) + 1e-6
    inputs, asked = (torch.cat([(x - mean) / deviation, x.new_ones(len(x), 1)], 1).double() for x in (train, test))
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    goals = torch.nn.functional.one_hot(train_labels, classes).double()
    penalty = 1e-2 * len(inputs) * torch.eye(inputs.shape[1], dtype=torch.float64, device=inputs.device)
    weights = torch.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ goals)
    return 100 * float(((asked @ weights).argmax(1) == test_labels).float().mean())


def _neighbour_cosine(encoded: Sequence[tuple[Tensor, Tensor]], mean: Tensor) -> float:
    cosines = []
    for latent, valid in encoded:
        centred = latent.float() - mean
        both = valid[:, 1:] & valid[:, :-1]
        cosines.append(torch.cosine_similarity(centred[:, 1:], centred[:, :-1], dim=-1)[both])
    return float(torch.cat(cosines).mean())


def pad_labels(labels: Sequence[np.ndarray], length: int) -> Tensor:
    """(B, length) int64 class ids, padded with -100."""
    padded = torch.full((len(labels), length), -100)
    for row, ids in enumerate(labels):
        padded[row, : len(ids)] = torch.from_numpy(ids)
    return padded
