"""Unsupervised signals of step boundaries, for analysis; no model uses them.

`change_scores` compares the rows before a frame with those after it. `Surprise` is the prediction error of a model on a
stream.
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
    """Change-point score of each frame.

    The score is the root mean square over channels of the difference between the mean of the ``window`` rows from the
    frame on and the mean of the ``window`` rows before it. If channels differ in scale, divide the rows by each
    channel's standard deviation within videos first. Sums are accumulated in the same order for every frame, so on a
    stream the last ``2 * window - 1`` rows together with the new ones give the same scores as the whole video.

    Args:
        rows: (T, D) features or latents of one video.
        window: frames on each side, at least 1.

    Returns:
        (max(0, T - 2 * window + 1),) float64; the first score is that of frame ``window``.

    Raises:
        InputError: rows of another shape, or a window below 1.
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
    """rows: (n, D_in) the last frames, the first ``known`` of which are context from earlier spans."""

    rows: np.ndarray
    known: int = 0


@dataclass(frozen=True)
class Surprise:
    """Difference between a model's prediction of a hidden frame and its output for the same frame when visible, (n, 1).

    Spans of ``span`` frames are hidden one after the other, each with the ``context`` preceding frames visible. The
    prediction of a hidden frame is that of the predictor. The output of a visible frame is that of the predictor too
    or, if the model's ``visible_predictions`` are the encoder's, a linear map of the frame's latent. (That map is only
    trained if ``objective.visible_weight`` is positive, which the model does not know.) Both estimate the same target,
    so this works for every kind of target. Attention is causal, so the surprise of a frame does not depend on later
    frames, but it is computed at the end of its span. Prediction errors grow with the distance from the last visible
    frame: compare with the typical surprise at the same position in a span.

    Args:
        model: with causal attention.
        span: number of hidden frames.
        context: number of visible frames before them.
        clusters: the outputs are logits over this number of clusters, for one or several offsets, and are compared by
            the Jensen-Shannon divergence, averaged over offsets. None: outputs are compared by the mean absolute
            difference.

    Raises:
        InputError: a model without causal attention, or outputs that are not logits of ``clusters`` clusters.
    """

    model: PJEPA
    span: int
    context: int
    clusters: int | None = None

    def __post_init__(self) -> None:
        causal_pattern(self.model)
        width = self.model.config.output_dim or self.model.config.dim
        if self.clusters is not None and width % self.clusters:
            raise InputError(f"the model's {width} outputs are not a multiple of {self.clusters} clusters")
        if self.model.config.predictor_attention.kind != "causal":
            raise InputError(
                f"surprise needs a predictor with causal attention, not with {self.model.config.predictor_attention}"
            )

    @property
    def delay(self) -> int:
        """Maximum delay of a row in frames: the first frame of a span waits for the last one."""
        return self.span - 1

    def of_video(self, features: np.ndarray) -> np.ndarray:
        """(T, 1) surprise of a whole video, (T, D_in)."""
        rows, state = self.step(features, self.begin())
        return np.concatenate([rows, self.finish(state)])

    def begin(self) -> SurpriseState:
        """The initial state, without frames."""
        return SurpriseState(np.zeros((0, self.model.config.input_dim or 0), np.float32))

    def step(self, frames: np.ndarray, state: SurpriseState) -> tuple[np.ndarray, SurpriseState]:
        """Process the next frames (n, D_in). Returns the surprise of the completed spans, and the new state."""
        rows, known = np.concatenate([state.rows, frames]), state.known
        found = [np.zeros(0, np.float32)]
        while len(rows) - known >= self.span:
            end = known + self.span
            found.append(self._score_span(rows[:end], known))
            known = min(self.context, end)
            rows = rows[end - known :]
        return np.concatenate(found)[:, None], SurpriseState(rows.copy(), known)

    def finish(self, state: SurpriseState) -> np.ndarray:
        """The surprise of the last, incomplete span."""
        if len(state.rows) == state.known:
            return np.zeros((0, 1), np.float32)
        return self._score_span(state.rows, state.known)[:, None]

    @torch.inference_mode()
    def _score_span(self, rows: np.ndarray, known: int) -> np.ndarray:
        """(n - known,) surprise of all but the first ``known`` of the frames (n, D_in)."""
        batch = self.model.batch(torch.from_numpy(rows)[None].expand(2, -1, -1))  # hidden and visible
        hidden = torch.zeros_like(batch.valid)
        hidden[0, known:] = True
        expected, seen = self.model(batch, hidden, causal_pattern(self.model)).predictions[:, known:].double()
        if self.clusters is None:
            surprise: Tensor = (expected - seen).abs().mean(-1)
        else:  # (n, offsets, clusters)
            logits = [answers.unflatten(-1, (-1, self.clusters)) for answers in (expected, seen)]
            surprise = divergence(*logits).mean(-1)
        return surprise.float().cpu().numpy()


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """Jensen-Shannon divergence of two sets of logits, (..., C) each: 0 to log 2."""
    logs = [first.log_softmax(-1), second.log_softmax(-1)]
    middle = torch.logaddexp(*logs) - np.log(2)
    apart: Tensor = sum((log.exp() * (log - middle)).sum(-1) for log in logs) / 2
    return apart


def causal_pattern(model: PJEPA) -> AttentionPattern:
    """The model's causal attention pattern.

    Raises:
        InputError: it has none, so its surprise would depend on later frames.
    """
    pattern = model.config.attention if model.config.attention.kind == "causal" else model.config.live_attention
    if pattern is None or pattern.kind != "causal" or model.config.oracle:
        raise InputError(
            f"surprise needs causal attention, but the model has {model.config.attention} and no causal live_attention"
        )
    return pattern
