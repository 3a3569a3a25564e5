"""Comparison of exported programs with `keystep.stream`, from the first frame and with full buffers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

import keystep.stream as stream
from keystep.errors import InputError
from keystep.export.step import ExportedStep
from keystep.heads import Head
from keystep.nn.norm import ChannelNorm
from keystep.nn.pooling import split_tokens
from keystep.pjepa import PJEPA
from keystep.stream import StreamState

Outputs = tuple[Tensor, ...]
"""Latents (B, T, D), and with a head class probabilities (B, T, C)."""
StepFunction = Callable[..., Sequence[Tensor]]
"""(features, *state) -> (*outputs, *state)."""

TOLERANCE = 1e-4
"""Largest difference that counts as rounding, relative to the largest latent (or to 1)."""
CALLS = 32
"""Number of calls from the start, and with full buffers."""
LONGEST_PAST = 4096
"""Maximum number of frames that fill the buffers for the second part."""


@dataclass(frozen=True)
class OutputDifference:
    """Difference between two runs over ``frames`` frames of every stream.

    Attributes:
        largest, mean: absolute difference.
        scale: the largest absolute value of the reference.
        changed: share of frames whose argmax differs (for probabilities: whose predicted class differs).
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
    """Parts of streams: features and the state in which each part starts."""

    parts: list[tuple[Tensor, tuple[Tensor, ...]]]

    def run(self, function: StepFunction, frames: int) -> Outputs:
        """Run the program on all parts and concatenate its outputs."""
        calls = []
        for features, state in self.parts:
            for chunk in torch.split(features, frames, dim=1):
                outputs = tuple(function(chunk, *state))
                calls.append(outputs[: -len(state)])
                state = outputs[-len(state) :]
        return tuple(torch.cat(output, dim=1) for output in zip(*calls, strict=True))


def difference(got: Tensor, right: Tensor) -> OutputDifference:
    """Difference of ``got`` from ``right``, both (B, T, ...)."""
    apart = (got - right).abs()
    changed = (got.argmax(-1) != right.argmax(-1)).double().mean()
    return OutputDifference(
        float(apart.max()), float(apart.mean()), float(right.abs().max()), right.shape[1], round(float(changed), 6)
    )


@dataclass(frozen=True, eq=False)
class Reference:
    """Random features and the results of `keystep.stream` for them. begun: the head's state before each part."""

    trial: Trial
    right: Outputs
    head: Head | None
    begun: tuple[StreamState | None, ...]

    def answers(self, latents: Tensor) -> Tensor:
        """Probabilities (B, T, C) of the head for other latents (B, T, D) of the same frames."""
        sizes = [features.shape[1] for features, _ in self.trial.parts]
        parts = torch.split(latents, sizes, dim=1)
        return torch.cat([self._read(*part) for part in zip(parts, self.begun, strict=True)], dim=1)

    def _read(self, latents: Tensor, state: StreamState | None) -> Tensor:
        assert self.head is not None and state is not None
        return stream.step(self.head, latents, state)[0].softmax(-1)


def prepare(model: PJEPA, step: ExportedStep, seed: int = 0) -> Reference:
    """Random features with the statistics of the training videos, if the model stores them: a start, a later part."""
    head, size = step.head, CALLS * step.frames
    past = min(step.reach, LONGEST_PAST) // step.frames * step.frames + step.frames
    features = _frames(model, step.streams, past + size, seed)
    begin = stream.init(model, step.streams)
    first, _ = stream.step(model, features[:, :size], begin)
    before, full = stream.step(model, features[:, :past], begin)
    later, _ = stream.step(model, features[:, past:], full)
    latents = torch.cat([first, later], dim=1)
    begun: tuple[StreamState | None, ...] = (None, None)
    if head is not None:
        begun = (stream.init(head, step.streams), stream.step(head, before, stream.init(head, step.streams))[1])
    parts = [
        (features[:, :size], step.initial()),
        (features[:, past:], step.taken_over(stream.Position(full, begun[1]))),
    ]
    reference = Reference(Trial(parts), (latents,), head, begun)
    return reference if head is None else replace(reference, right=(latents, reference.answers(latents)))


def whole_videos(model: PJEPA, head: Head | None, least: int, seed: int = 0) -> list[tuple[Tensor, Outputs]]:
    """Random videos (1, T, D_in) of several lengths, and the offline results of the model and the head."""
    found: list[tuple[Tensor, Outputs]] = []
    for number, count in enumerate((least, 101, 700)):
        features = _frames(model, 1, max(least, count), seed + number)
        latents = model.encode(features)
        found.append((features, (latents,) if head is None else (latents, head.probabilities(latents))))
    return found


def video_trial(step: ExportedStep, videos: Sequence[np.ndarray]) -> Trial:
    """A trial of whole videos (T_i, D_in), repeated for every stream and truncated to full calls.

    Raises:
        InputError: features with another width, that are not finite, or shorter than one call.
    """
    streams, frames, width = step.input_shape
    parts = []
    for number, video in enumerate(videos, start=1):
        if video.ndim != 2 or video.shape[1] != width or len(video) < frames:
            raise InputError(f"features {number}: shape {video.shape}; expected (T, {width}) with T >= {frames}")
        rows = torch.from_numpy(np.array(video[: len(video) // frames * frames], dtype=np.float32))
        finite = rows.isfinite().all(dim=1)
        if not finite.all():
            raise InputError(f"features {number}: NaN or infinite value in frame {int(finite.int().argmin())}")
        parts.append((rows.expand(streams, -1, -1).contiguous(), step.initial()))
    return Trial(parts)


def _frames(model: PJEPA, streams: int, count: int, seed: int) -> Tensor:
    assert model.config.input_dim is not None
    frames = torch.randn(streams, count, model.config.input_dim, generator=torch.Generator().manual_seed(seed))
    norm = model.encoder.proj[0]
    if not isinstance(norm, ChannelNorm):
        return frames
    return (split_tokens(frames, norm.width) * norm.deviation + norm.mean).flatten(-2)
