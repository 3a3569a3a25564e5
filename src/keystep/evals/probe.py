"""Linear probe: how much of the labels can one affine map a frame read from frozen representations?

A grid of heads (learning rate x weight decay) trains at once on the same minibatches. The heads share their input,
so their weights stand side by side and a step costs one matrix product, whatever the size of the grid. The head that
is best on the validation videos is returned; test videos never enter here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from keystep.data.annotation import IGNORED
from keystep.errors import InputError
from keystep.heads.linear import Affine, LinearHead, linear_head

Array = npt.NDArray[Any]

Rates = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
Decays = Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]

_ROWS = 16_384  # frames scored at once, so that the scores of a whole grid fit in memory
_BETAS = (0.9, 0.999)


class ProbeConfig(BaseModel):
    """How the heads are trained. The number of steps follows from the data: see `steps`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rates: Rates = (1e-3, 1e-2, 3e-2)
    """AdamW learning rates to try; the paper's is 1e-3, narrow inputs want more."""
    weight_decays: Decays = (0.0, 0.1, 1.0)
    """Decoupled weight decays to try with each rate; the paper's is 0. The bias never decays."""
    epochs: Count = 30
    """Passes over the labelled training frames, unless `max_frames` ends the training earlier."""
    max_frames: Count = 1_500_000
    """Training frames drawn at most, which bounds the cost on large sets."""
    min_steps: Count = 600
    """Steps at least, so that a small set is not left half trained."""
    batch_size: Count = 512
    """Frames a step, drawn without regard to videos (all of them where there are fewer)."""
    drops: tuple[Fraction, ...] = (1 / 6, 1 / 2)
    """Fractions of the training at which the rate falls to a tenth; the paper's epochs 5 and 15 of 30."""

    def steps(self, frames: int) -> int:
        """max(min_steps, min(epochs x frames, max_frames) / batch_size, rounded up)."""
        return max(self.min_steps, math.ceil(min(self.epochs * frames, self.max_frames) / self.batch_size))

    def rate_factor(self, step: int, steps: int) -> float:
        """What the learning rates are multiplied with at one step: a function of nothing else."""
        return float(0.1 ** sum(step >= drop * steps for drop in self.drops))


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """The chosen head, to be applied to representations as they are: the standardisation is folded in."""

    weight: npt.NDArray[np.float32]  # (D, C)
    bias: npt.NDArray[np.float32]  # (C,)
    learning_rate: float
    weight_decay: float
    valid_accuracy: float
    """Accuracy (0-100) over all labelled validation frames."""

    def scores(self, latents: Array) -> npt.NDArray[np.float32]:
        """(T, D) -> (T, C) unnormalised log-probabilities.

        Raises:
            InputError: another width than the probe was trained on, or a NaN or infinite number.
        """
        frames = _checked(latents, "the latents")
        if frames.shape[1] != len(self.weight):
            raise InputError(f"the probe reads width {len(self.weight)}, but the latents have {frames.shape[1]}")
        return np.asarray(frames @ self.weight + self.bias, dtype=np.float32)

    def head(self, names: Sequence[str] = (), origin: Mapping[str, str] | None = None) -> LinearHead:
        """The same as a head that can be saved and run on a stream."""
        steps = Affine(torch.from_numpy(self.weight).T.contiguous(), torch.from_numpy(self.bias))
        return linear_head(steps, names=tuple(names), origin=origin or {})

    def predict(self, latents: Array) -> npt.NDArray[np.int64]:
        """(T, D) -> (T,) class indices."""
        return np.asarray(self.scores(latents).argmax(axis=1), dtype=np.int64)


def fit_probe(
    train: Sequence[Array],
    train_labels: Sequence[Array],
    valid: Sequence[Array],
    valid_labels: Sequence[Array],
    *,
    classes: int,
    config: ProbeConfig | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> LinearProbe:
    """Train the grid on the training videos and return the head that is best on the validation videos.

    train, valid: one (T_i, D) array a video; train_labels, valid_labels: one (T_i,) integer array a video, -100 where
    there is no label. A class without training frames is allowed. The weights start at zero, so the seed decides
    only the order of the frames; among equally good heads the first of the grid wins.

    Raises:
        InputError: nothing labelled, widths or lengths that disagree, a label outside of 0..classes-1, or a NaN or
            infinite number, always with the index of the video (counted from 0) and of the frame.
    """
    config = config or ProbeConfig()
    frames, targets = _labelled(train, train_labels, classes, "training")
    valid_frames, valid_targets = _labelled(valid, valid_labels, classes, "validation")
    if frames.shape[1] != valid_frames.shape[1]:
        raise InputError(f"training width {frames.shape[1]}, but validation width {valid_frames.shape[1]}")
    mean, inverse_std = _standardise(frames)  # in place, from here on frames have mean 0 and variance 1
    grid = [(rate, decay) for rate in config.learning_rates for decay in config.weight_decays]
    rates, decays = torch.tensor(grid, dtype=torch.float32, device=device).unbind(dim=1)
    inputs, wanted = torch.from_numpy(frames).to(device), torch.from_numpy(targets).to(device)
    weight, bias = _train(inputs, wanted, (rates, decays), classes=classes, config=config, seed=seed)
    heads = weight.double().cpu().numpy() * inverse_std[:, None, None]  # (D, G, C), for raw inputs
    biases = bias.double().cpu().numpy() - np.einsum("d,dgc->gc", mean, heads)  # (G, C)
    accuracies = _accuracies(valid_frames, valid_targets, heads.astype(np.float32), biases.astype(np.float32))
    best = int(accuracies.argmax())
    return LinearProbe(
        weight=np.ascontiguousarray(heads[:, best], dtype=np.float32),
        bias=biases[best].astype(np.float32),
        learning_rate=grid[best][0],
        weight_decay=grid[best][1],
        valid_accuracy=float(accuracies[best]),
    )


def _train(
    frames: Tensor, targets: Tensor, grid: tuple[Tensor, Tensor], *, classes: int, config: ProbeConfig, seed: int
) -> tuple[Tensor, Tensor]:
    """AdamW on every head of the grid: weight (D, G, C) and bias (G, C), for standardised frames (N, D).

    The loss is the sum of the heads' cross entropies; as they share no parameter, each gets its own gradient.
    """
    count, width = frames.shape
    rates, decays = grid[0][:, None], grid[1][:, None]  # (G, 1), beside (D, G, C) and (G, C)
    weight = frames.new_zeros(width, len(rates), classes, requires_grad=True)
    bias = frames.new_zeros(len(rates), classes, requires_grad=True)
    moments = [(torch.zeros_like(part), torch.zeros_like(part)) for part in (weight, bias)]
    steps = config.steps(count)
    for step, rows in enumerate(_batches(count, min(config.batch_size, count), steps, seed)):
        chosen = rows.to(frames.device)
        logits = (frames[chosen] @ weight.flatten(1)).view(-1, *bias.shape) + bias  # (n, G, C)
        wanted = targets[chosen, None].expand(-1, len(rates))  # (n, G)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="sum")
        gradients = torch.autograd.grad(loss / len(rows), (weight, bias))
        now = rates * config.rate_factor(step, steps)
        with torch.no_grad():
            weight.mul_(1 - now * decays)
            for part, gradient, state in zip((weight, bias), gradients, moments, strict=True):
                _adam_(part, gradient, state, now, step)
    return weight.detach(), bias.detach()


def _adam_(part: Tensor, gradient: Tensor, moments: tuple[Tensor, Tensor], rates: Tensor, step: int) -> None:
    """One Adam step in place with a learning rate for each head."""
    first, second = moments
    first.lerp_(gradient, 1 - _BETAS[0])
    second.lerp_(gradient.square(), 1 - _BETAS[1])
    root = (second / (1 - _BETAS[1] ** (step + 1))).sqrt_().add_(1e-8)
    part.sub_(first / root * (rates / (1 - _BETAS[0] ** (step + 1))))


def _batches(count: int, size: int, steps: int, seed: int) -> Iterator[Tensor]:
    """``steps`` times ``size`` of ``count`` indices: one shuffled pass after the other, no frame left out."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(count, generator=generator)
    for _ in range(steps):
        if len(order) < size:
            order = torch.cat([order, torch.randperm(count, generator=generator)])
        yield order[:size]
        order = order[size:]


def _standardise(frames: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Give every column of (N, D) mean 0 and variance 1, in place; returns the mean and 1 / standard deviation.

    A column that is constant to float32 precision carries nothing; its factor is 0 and it drops out.
    """
    mean = frames.mean(axis=0, dtype=np.float64)
    variance = np.zeros_like(mean)
    for start in range(0, len(frames), _ROWS):
        variance += np.square(frames[start : start + _ROWS] - mean).sum(axis=0)
    std = np.sqrt(variance / len(frames))
    varies = std > 1e-7 * np.abs(mean)
    inverse = np.divide(1.0, std, out=np.zeros_like(std), where=varies)
    for start in range(0, len(frames), _ROWS):
        frames[start : start + _ROWS] = (frames[start : start + _ROWS] - mean) * inverse
    return mean, inverse


def _accuracies(frames: Array, targets: Array, heads: Array, biases: Array) -> npt.NDArray[np.float64]:
    """(G,) frame accuracies (0-100) of heads (D, G, C) with biases (G, C)."""
    correct = np.zeros(len(biases), dtype=np.int64)
    flat = heads.reshape(len(heads), -1)
    for start in range(0, len(frames), _ROWS):
        scores = (frames[start : start + _ROWS] @ flat).reshape(-1, *biases.shape) + biases  # (n, G, C)
        correct += (scores.argmax(axis=2) == targets[start : start + _ROWS, None]).sum(axis=0)
    return 100 * correct / len(frames)


def _labelled(
    videos: Sequence[Array], labels: Sequence[Array], classes: int, part: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """All labelled frames of all videos: (N, D) float32, a copy, and (N,) classes."""
    if len(videos) != len(labels):
        raise InputError(f"{len(videos)} {part} videos, but labels for {len(labels)}")
    frames, targets = [], []
    for index, (video, raw) in enumerate(zip(videos, labels, strict=True)):
        name = f"{part} video {index}"
        values, wanted = _checked(video, name), np.asarray(raw)
        if wanted.shape != values.shape[:1] or not np.issubdtype(wanted.dtype, np.integer):
            raise InputError(
                f"{name}: {len(values)} frames need as many integer labels, not {wanted.dtype} {wanted.shape}"
            )
        known = wanted != IGNORED
        wrong = known & ((wanted < 0) | (wanted >= classes))
        if wrong.any():
            frame = int(wrong.argmax())
            raise InputError(f"{name}, frame {frame}: label {wanted[frame]} is outside of 0..{classes - 1}")
        frames.append(values[known])
        targets.append(wanted[known].astype(np.int64))
    if len(widths := {values.shape[1] for values in frames}) > 1:
        raise InputError(f"{part} videos of different widths: {sorted(widths)}")
    if not sum(map(len, targets)):
        raise InputError(f"no {part} frame has a label (of {len(videos)} videos)")
    return np.concatenate(frames), np.concatenate(targets)


def _checked(latents: Array, name: str) -> npt.NDArray[np.float32]:
    """(T, D) as float32, or a line that names what is wrong with it."""
    frames = np.asarray(latents, dtype=np.float32)
    if frames.ndim != 2:
        raise InputError(f"{name}: shape {frames.shape}; expected (T, D)")
    usable = np.isfinite(frames).all(axis=1)
    if not usable.all():
        raise InputError(f"{name}, frame {int((~usable).argmax())}: NaN or infinite; remove or repair this video")
    return frames
