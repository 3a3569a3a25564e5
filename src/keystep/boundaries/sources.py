"""What boundaries are looked for in: one row of numbers for each frame, that depends on nothing later.

A source is fed frames and gives rows; its state is a value that the caller holds. `delay`: how many frames after its
own a row may come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from keystep.config.attention import AttentionPattern
from keystep.errors import InputError
from keystep.pjepa import PJEPA
from keystep.stream import steps
from keystep.stream.state import StreamState


class Source(Protocol):
    """Frames (n, D_in) float32 in, rows (m, D) out, one for each frame sooner or later."""

    @property
    def delay(self) -> int:
        """Frames after its own that a row waits for, at most."""

    @property
    def divisors(self) -> int:
        """How many numbers say what is usual of its rows (`Segmenter.scale`)."""

    def begin(self) -> Any:
        """The state before the first frame."""

    def step(self, frames: np.ndarray, state: Any) -> tuple[np.ndarray, Any]:
        """Rows that are known now, and the new state."""

    def finish(self, state: Any) -> np.ndarray:
        """Rows of what still waits, when the video is over."""


def all_rows(source: Source, features: np.ndarray) -> np.ndarray:
    """(T, D) rows of a whole video, (T, D_in)."""
    rows, state = source.step(features, source.begin())
    return np.concatenate([rows, source.finish(state)])


@dataclass(frozen=True)
class Features:
    """The frames themselves, bit for bit. (Their differences do not see a video's mean, so it need not be removed.)"""

    width: int
    delay: int = 0

    @property
    def divisors(self) -> int:
        """One a channel."""
        return self.width

    def begin(self) -> None:
        """Nothing to remember."""

    def step(self, frames: np.ndarray, state: None) -> tuple[np.ndarray, None]:
        """The frames."""
        if frames.shape[1] != self.width:
            raise InputError(f"frames are {frames.shape[1]} wide; the segmenter was fitted on {self.width}")
        return frames, None

    def finish(self, state: None) -> np.ndarray:
        """Nothing waits."""
        return np.zeros((0, self.width), np.float32)


@dataclass(frozen=True)
class Latents:
    """Causal latents of a model, as `keystep.stream` gives them: equal for all chunkings up to float noise."""

    model: PJEPA
    delay: int = 0

    def __post_init__(self) -> None:
        causal_pattern(self.model)

    @property
    def divisors(self) -> int:
        """One a channel."""
        return self.model.config.dim

    def begin(self) -> StreamState:
        """A stream of the model."""
        return steps.init(self.model)

    def step(self, frames: np.ndarray, state: StreamState) -> tuple[np.ndarray, StreamState]:
        """The latents of the frames."""
        latents, state = steps.step(self.model, torch.from_numpy(frames)[None], state)
        return latents[0].float().cpu().numpy(), state

    def finish(self, state: StreamState) -> np.ndarray:
        """Nothing waits."""
        return np.zeros((0, self.model.config.dim), np.float32)


@dataclass(frozen=True, eq=False)
class SurpriseState:
    """rows: (n, D_in) the last frames, the first ``behind`` of which belong to spans that are done."""

    rows: np.ndarray
    behind: int = 0


@dataclass(frozen=True)
class Surprise:
    """How far what a model expects of a frame lies from what it says when it sees it, (n, 1).

    Stretches of ``span`` frames are hidden one after the other, each behind the ``context`` frames before it. What is
    expected comes from the predictor; what is said of a visible frame from the predictor too, or, where the model's
    ``visible_predictions`` are the encoder's, from the frame's latent through one linear map. (That map learns only
    from ``objective.visible_weight``; the model does not know whether it did.) Both answer the same question, so this
    suits every target. ``clusters``: the answers are logits of so many clusters, for one or several offsets side by
    side, which are compared by the Jensen-Shannon divergence, averaged over the offsets; None: they are numbers, which
    are compared by the mean absolute difference. Attention is causal, so a frame's surprise depends on nothing later,
    but it is worked out when its span is over. A prediction gets worse with each frame since the last visible one:
    compare with the usual surprise at the same place in a span.
    """

    model: PJEPA
    span: int
    context: int
    clusters: int | None = None

    def __post_init__(self) -> None:
        causal_pattern(self.model)
        width = self.model.config.output_dim or self.model.config.dim
        if self.clusters is not None and width % self.clusters:
            raise InputError(f"the model's {width} outputs are no logits of {self.clusters} clusters at some offsets")
        if self.model.config.predictor_attention.kind != "causal":
            raise InputError(
                f"the model's predictor attends {self.model.config.predictor_attention}; surprise needs a causal one"
            )

    @property
    def delay(self) -> int:
        """A span's first frame waits for the last one."""
        return self.span - 1

    @property
    def divisors(self) -> int:
        """One a place in a span."""
        return self.span

    def begin(self) -> SurpriseState:
        """No frames yet."""
        return SurpriseState(np.zeros((0, self.model.config.input_dim or 0), np.float32))

    def step(self, frames: np.ndarray, state: SurpriseState) -> tuple[np.ndarray, SurpriseState]:
        """The surprise of the spans that are complete."""
        rows, behind = np.concatenate([state.rows, frames]), state.behind
        found = [np.zeros(0, np.float32)]
        while len(rows) - behind >= self.span:
            end = behind + self.span
            found.append(self._of_span(rows[:end], behind))
            behind = min(self.context, end)
            rows = rows[end - behind :]
        return np.concatenate(found)[:, None], SurpriseState(rows.copy(), behind)

    def finish(self, state: SurpriseState) -> np.ndarray:
        """The surprise of the last, shorter span."""
        if len(state.rows) == state.behind:
            return np.zeros((0, 1), np.float32)
        return self._of_span(state.rows, state.behind)[:, None]

    @torch.inference_mode()
    def _of_span(self, rows: np.ndarray, behind: int) -> np.ndarray:
        """(n - behind,) surprise of the frames behind the first ``behind`` of (n, D_in)."""
        batch = self.model.batch(torch.from_numpy(rows)[None].expand(2, -1, -1))  # hidden, and seen
        hidden = torch.zeros_like(batch.valid)
        hidden[0, behind:] = True
        expected, seen = self.model(batch, hidden, causal_pattern(self.model)).predictions[:, behind:].double()
        if self.clusters is None:
            surprise: Tensor = (expected - seen).abs().mean(-1)
        else:  # (n, offsets, clusters)
            logits = [answers.unflatten(-1, (-1, self.clusters)) for answers in (expected, seen)]
            surprise = divergence(*logits).mean(-1)
        return surprise.float().cpu().numpy()


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """Jensen-Shannon divergence of the distributions behind two sets of logits, (..., C) each: 0 to log 2."""
    logs = [first.log_softmax(-1), second.log_softmax(-1)]
    middle = torch.logaddexp(*logs) - np.log(2)
    apart: Tensor = sum((log.exp() * (log - middle)).sum(-1) for log in logs) / 2
    return apart


def causal_pattern(model: PJEPA) -> AttentionPattern:
    """The causal attention that the model has; boundaries must not depend on the future."""
    pattern = model.config.attention if model.config.attention.kind == "causal" else model.config.live_attention
    if pattern is None or pattern.kind != "causal" or model.config.segments is not None:
        raise InputError(
            f"this model attends {model.config.describe(model.config.attention)} and has no causal live_attention: "
            "boundaries cannot be found with it"
        )
    return pattern
