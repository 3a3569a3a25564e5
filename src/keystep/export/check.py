"""Whether an exported step gives the numbers of `keystep.stream`, from the start and with full buffers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import keystep.stream as stream
from keystep.export.step import ExportedStep
from keystep.nn.encoder import ChannelNorm
from keystep.pjepa import PJEPA

StepFunction = Callable[..., Sequence[Tensor]]
"""Features and state in, outputs and state out."""

TOLERANCE = 1e-4
"""Largest difference that is passed as rounding, in units of the largest latent (or of 1)."""
CALLS = 32
"""Calls from the start, and as many once the buffers are full."""
LONGEST_PAST = 4096
"""Frames that fill the buffers for the second part, at most."""


@dataclass(frozen=True)
class Difference:
    """How far two runs are apart, over ``frames`` frames of every stream.

    scale: the largest number of the run that they are compared with.
    """

    largest: float
    mean: float
    scale: float
    frames: int

    @property
    def is_rounding(self) -> bool:
        return self.largest <= TOLERANCE * max(1.0, self.scale)  # False for NaN


@dataclass(frozen=True, eq=False)
class Check:
    """Random frames, where each part of them begins, and the latents that are right."""

    parts: list[tuple[Tensor, tuple[Tensor, ...]]]
    latents: Tensor

    def run(self, function: StepFunction, frames: int) -> Tensor:
        """(B, T, D) latents of all parts."""
        latents = []
        for features, state in self.parts:
            for chunk in torch.split(features, frames, dim=1):
                outputs = function(chunk, *state)
                latents.append(outputs[0])
                state = tuple(outputs[-len(state) :])
        return torch.cat(latents, dim=1)

    def difference(self, got: Tensor, right: Tensor | None = None) -> Difference:
        """Of ``got`` from the latents that are right, or from another run's."""
        right = self.latents if right is None else right
        apart = (got - right).abs()
        return Difference(float(apart.max()), float(apart.mean()), float(right.abs().max()), right.shape[1])


def prepare(model: PJEPA, step: ExportedStep, seed: int = 0) -> Check:
    """What `keystep.stream` gives for random frames that look like the model's training videos as far as it knows."""
    size = CALLS * step.frames
    past = min(step.columns.reach, LONGEST_PAST) // step.frames * step.frames + step.frames
    features = _frames(model, step, past + size, seed)
    first, _ = stream.step(model, features[:, :size], stream.init(model, step.streams))
    _, full = stream.step(model, features[:, :past], stream.init(model, step.streams))
    later, _ = stream.step(model, features[:, past:], full)
    parts = [(features[:, :size], step.initial()), (features[:, past:], step.taken_over(full))]
    return Check(parts, torch.cat([first, later], dim=1))


def _frames(model: PJEPA, step: ExportedStep, count: int, seed: int) -> Tensor:
    streams, _, width = step.input_shape
    frames = torch.randn(streams, count, width, generator=torch.Generator().manual_seed(seed))
    norm = model.encoder.proj[0]
    return frames * norm.deviation + norm.mean if isinstance(norm, ChannelNorm) else frames
