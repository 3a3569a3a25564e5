"""What all temporal heads have in common."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from keystep.errors import InputError
from keystep.nn.encoder import ChannelNorm
from keystep.persistence import weights_signature
from keystep.temporal.config import HeadConfig
from keystep.temporal.flow import Flow, Whole


class TemporalHead(nn.Module):
    """Class scores of every frame from a video's features or latents.

    names: of the classes by id; empty where they are not known.
    origin: what it was trained on, as text.
    """

    stages: int = 1
    """How many scores each frame gets; the last ones count, the others are for training."""

    def __init__(self, config: HeadConfig, width: int, classes: int) -> None:
        super().__init__()
        self.config, self.width, self.classes = config, width, classes
        self.names: tuple[str, ...] = ()
        self.origin: Mapping[str, str] = {}
        self.standardise = ChannelNorm(width)

    def run(self, x: Tensor, flow: Flow) -> Tensor:
        """Standardised frames (B, n, D), zero at padding -> scores of every stage, (S, B, n, C)."""
        raise NotImplementedError

    @property
    def delay(self) -> int | None:
        """Frames that have to pass after a frame before its scores are final; None: the whole video."""
        return 0

    @property
    def reach(self) -> tuple[int, int]:
        """How many frames before and after a frame its scores can depend on."""
        return 0, 0

    @property
    def causal(self) -> bool:
        """Whether the scores need nothing that comes later than `delay`, so that it can run on a stream."""
        return self.delay is not None

    @property
    def signature(self) -> str:
        """A hash that tells heads apart."""
        return weights_signature(self)

    def forward(self, features: Tensor, valid: Tensor | None = None) -> Tensor:
        """Features (B, T, D) -> scores of every stage, (S, B, T, C).

        valid: (B, T) bool, True at real frames, which come first; None: all are real. What stands at padding is never
        read, and its scores mean nothing.

        Raises:
            InputError: features of another width, or padding between real frames.
        """
        flow = Whole(checked(self, features), checked_valid(features, valid))
        scores: Tensor = self.run(flow.clean(self.standardise(features)), flow)
        return scores

    @torch.no_grad()
    def probabilities(self, features: Tensor, valid: Tensor | None = None) -> Tensor:
        """(B, T, D) on any device -> (B, T, C) of the last stage on the head's, each frame's summing to 1."""
        device = self.standardise.mean.device
        scores: Tensor = self(features.to(device), None if valid is None else valid.to(device))
        return scores[-1].softmax(-1)

    def predict(self, features: Tensor, valid: Tensor | None = None) -> Tensor:
        """(B, T, D) -> (B, T) int64 class ids."""
        return self.choose(self.probabilities(features, valid))

    def choose(self, probabilities: Tensor) -> Tensor:
        """(..., C) -> (...) int64 class ids."""
        return probabilities.argmax(-1)

    def name(self, identifier: int) -> str:
        """The name of a class."""
        return self.names[identifier] if self.names else f"class {identifier}"


def checked(head: TemporalHead, features: Tensor) -> Tensor:
    """Features (B, n, D) that the head can read, or a line that says why not."""
    if features.ndim != 3 or features.shape[2] != head.width:
        raise InputError(f"features have shape {tuple(features.shape)}; this head reads (B, T, {head.width})")
    return features


def checked_valid(features: Tensor, valid: Tensor | None) -> Tensor | None:
    """``valid`` if it fits the features and padding comes last, or a line that says what is wrong."""
    if valid is None:
        return None
    if valid.shape != features.shape[:2] or valid.dtype != torch.bool:
        raise InputError(
            f"valid has shape {tuple(valid.shape)} and type {valid.dtype}; expected {tuple(features.shape[:2])} bool"
        )
    if bool((valid[:, 1:] & ~valid[:, :-1]).any()):
        raise InputError("valid has padding before real frames; move the real frames to the front")
    return valid
