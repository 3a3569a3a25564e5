"""Whether an exported step gives the numbers of `keystep.stream`, from the start and with full buffers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import keystep.stream as stream
from keystep.errors import InputError
from keystep.export.step import ExportedStep
from keystep.heads import LinearHead
from keystep.nn.encoder import ChannelNorm
from keystep.nn.pooling import split_tokens
from keystep.pjepa import PJEPA

Outputs = tuple[Tensor, ...]
"""Latents (B, T, D), and with a head class probabilities (B, T, C)."""
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
    changed: the share of frames whose largest number stands elsewhere; of probabilities, the likeliest class.
    """

    largest: float
    mean: float
    scale: float
    frames: int
    changed: float

    @property
    def is_rounding(self) -> bool:
        return self.largest <= TOLERANCE * max(1.0, self.scale)  # False for NaN


@dataclass(frozen=True, eq=False)
class Trial:
    """Frames in parts, and the state in which each part begins."""

    parts: list[tuple[Tensor, tuple[Tensor, ...]]]

    def run(self, function: StepFunction, frames: int) -> Outputs:
        """Outputs of all parts, one behind the other."""
        calls = []
        for features, state in self.parts:
            for chunk in torch.split(features, frames, dim=1):
                outputs = tuple(function(chunk, *state))
                calls.append(outputs[: -len(state)])
                state = outputs[-len(state) :]
        return tuple(torch.cat(output, dim=1) for output in zip(*calls, strict=True))


def difference(got: Tensor, right: Tensor) -> Difference:
    """Of ``got`` from ``right``, both (B, T, ...)."""
    apart = (got - right).abs()
    changed = (got.argmax(-1) != right.argmax(-1)).double().mean()
    return Difference(
        float(apart.max()), float(apart.mean()), float(right.abs().max()), right.shape[1], round(float(changed), 6)
    )


def prepare(model: PJEPA, step: ExportedStep, head: LinearHead | None, seed: int = 0) -> tuple[Trial, Outputs]:
    """Random frames, and what `keystep.stream` and the head give for them.

    The frames look like the model's training videos as far as it knows.
    """
    size = CALLS * step.frames
    past = min(step.columns.reach, LONGEST_PAST) // step.frames * step.frames + step.frames
    features = _frames(model, step, past + size, seed)
    first, _ = stream.step(model, features[:, :size], stream.init(model, step.streams))
    _, full = stream.step(model, features[:, :past], stream.init(model, step.streams))
    later, _ = stream.step(model, features[:, past:], full)
    trial = Trial([(features[:, :size], step.initial()), (features[:, past:], step.taken_over(full))])
    latents = torch.cat([first, later], dim=1)
    return trial, (latents,) if head is None else (latents, head.probabilities(latents))


def of_videos(step: ExportedStep, videos: Sequence[np.ndarray]) -> Trial:
    """Each video (T, D_in) from its first frame, the same in every stream; the frames of its last, incomplete call are
    left out.

    Raises:
        InputError: features that do not fit, are not finite, or do not fill one call.
    """
    streams, frames, width = step.input_shape
    parts = []
    for number, video in enumerate(videos, start=1):
        if video.ndim != 2 or video.shape[1] != width or len(video) < frames:
            raise InputError(f"features {number}: shape {video.shape}; a call reads {frames} frames of {width} numbers")
        rows = torch.from_numpy(np.array(video[: len(video) // frames * frames], dtype=np.float32))
        finite = rows.isfinite().all(dim=1)
        if not finite.all():
            raise InputError(f"features {number}: NaN or infinite value in frame {int(finite.int().argmin())}")
        parts.append((rows.expand(streams, -1, -1).contiguous(), step.initial()))
    return Trial(parts)


def _frames(model: PJEPA, step: ExportedStep, count: int, seed: int) -> Tensor:
    streams, _, width = step.input_shape
    frames = torch.randn(streams, count, width, generator=torch.Generator().manual_seed(seed))
    norm = model.encoder.proj[0]
    if not isinstance(norm, ChannelNorm):
        return frames
    return (split_tokens(frames, model.encoder.tokens) * norm.deviation + norm.mean).flatten(-2)
