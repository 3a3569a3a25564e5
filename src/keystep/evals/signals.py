"""Signals of where one step of a procedure may end and the next begin, without labels.

Two measurements for analysis; no model reads them. `change_scores` compares the rows before a frame with those from it
on. `Surprise` is the prediction error of a model on a stream.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from keystep.config.attention import AttentionPattern
from keystep.errors import InputError
from keystep.pjepa import PJEPA


def change_scores(rows: np.ndarray, window: int) -> np.ndarray:
    """Score each frame by how much the rows change there: a change-point score.

    The score is the root mean square over channels of the difference between the mean of the ``window`` rows from the
    frame on and the mean of the ``window`` rows before it. Divide the rows by the deviation of each channel within
    videos first, where channels differ in scale. Sums run over the window in the same order for every frame, so on a
    stream the last ``2 * window - 1`` rows and the new ones give the scores of the whole video.

    Args:
        rows: (T, D) features or latents of one video.
        window: frames on each side, at least 1.

    Returns:
        (max(0, T - 2 * window + 1),) float64; the first score is that of frame ``window``.

    Raises:
        InputError: rows of another shape, a window below 1.
    """
    if rows.ndim != 2 or window < 1:
        raise InputError(f"rows of shape {rows.shape}, window {window}; expected (T, D) and a window of at least 1")
    count = len(rows) - window + 1
    if count <= window:
        return np.zeros(0)
    sums = np.zeros((count, rows.shape[1]))
    for shift in range(window):
        sums += rows[shift : shift + count]
    change = (sums[window:] - sums[:-window]) / window
    scores: np.ndarray = np.sqrt(np.square(change).mean(1))
    return scores


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
        """Frames after its own that a row waits for, at most: a span's first frame waits for the last one."""
        return self.span - 1

    def of_video(self, features: np.ndarray) -> np.ndarray:
        """(T, 1) surprise of a whole video, (T, D_in)."""
        rows, state = self.step(features, self.begin())
        return np.concatenate([rows, self.finish(state)])

    def begin(self) -> SurpriseState:
        """No frames yet."""
        return SurpriseState(np.zeros((0, self.model.config.input_dim or 0), np.float32))

    def step(self, frames: np.ndarray, state: SurpriseState) -> tuple[np.ndarray, SurpriseState]:
        """Take the next frames (n, D_in); return the surprise of the spans that are complete, and the new state."""
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
    """The causal attention that the model has; surprise must not depend on the future."""
    pattern = model.config.attention if model.config.attention.kind == "causal" else model.config.live_attention
    if pattern is None or pattern.kind != "causal" or model.config.oracle:
        raise InputError(
            f"this model attends {model.config.attention} and has no causal live_attention: surprise needs one"
        )
    return pattern
