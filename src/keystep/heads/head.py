"""What all heads have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from keystep.errors import InputError
from keystep.heads.config import HeadConfig
from keystep.nn.context import SequenceContext, Whole
from keystep.nn.norm import ChannelNorm
from keystep.nn.places import Places, lay_out
from keystep.persistence import save_tensors, weights_signature

FORMAT = "keystep-head"
FORMAT_VERSION = "2"


class HeadKind(Protocol):
    """What a head is made by: a class derived from `Head`, called as ``Kind(config=..., width=..., classes=...)``.

    Its ``__init__`` says by the annotation of ``config`` which settings it has, a class derived from `HeadConfig`.
    Everything else follows from `Head.run`: training, judging, streams, saving and exported steps.
    """

    stages: int
    delay: Any
    reach: Any

    def __call__(self, config: Any, width: int, classes: int) -> Head:
        """An untrained head for features ``width`` wide."""
        ...

    def run(self, x: Tensor, context: SequenceContext) -> Tensor:
        """See `Head`."""
        ...


class Head(nn.Module):
    """Class scores of every frame from a video's features or latents.

    Attributes:
        names: of the classes by id; empty where they are not known.
        origin: what it was fitted on, as text: ``weights`` (hash of the model), ``mode``, ``rate`` in Hz.
    """

    stages: int = 1
    """How many scores each frame gets; the last ones count, the others are for training."""

    def __init__(self, config: HeadConfig, width: int, classes: int) -> None:
        super().__init__()
        self.config, self.width, self.classes = config, width, classes
        self.names: tuple[str, ...] = ()
        self.origin: Mapping[str, str] = {}
        self.standardise = ChannelNorm(width)

    def run(self, x: Tensor, context: SequenceContext) -> Tensor:
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

        Args:
            valid: (B, T) bool, True at real frames, which come first; None: all are real. What is at padding is never
                read, and its scores mean nothing.

        Raises:
            InputError: features of another width, or padding between real frames.
        """
        return self.scores(features, whole(self, features, valid))

    def scores(self, features: Tensor, context: SequenceContext) -> Tensor:
        """Features (B, n, D) of the frames of a context -> scores of every stage, (S, B, n, C)."""
        return self.run(context.clean(self.standardise(features)), context)

    @torch.no_grad()
    def probabilities(self, features: Tensor, valid: Tensor | None = None) -> Tensor:
        """(B, T, D) or (T, D) on any device -> the same with C for D, on the head's; each frame's sum to 1."""
        if features.ndim == 2:
            return self.probabilities(features[None], None if valid is None else valid[None])[0]
        device = self.standardise.mean.device
        scores: Tensor = self(features.to(device), None if valid is None else valid.to(device))
        return scores[-1].softmax(-1)

    def predict(self, features: Tensor, valid: Tensor | None = None) -> Tensor:
        """(B, T, D) or (T, D) -> int64 class ids, (B, T) or (T,)."""
        return self.choose(self.probabilities(features, valid))

    def choose(self, probabilities: Tensor) -> Tensor:
        """(..., C) -> (...) int64 class ids; the probabilities may have been smoothed."""
        return probabilities.argmax(-1)

    def name(self, identifier: int) -> str:
        """The name of a class."""
        return self.names[identifier] if self.names else f"class {identifier}"

    def labels(self, features: Tensor) -> list[str]:
        """Class names of the frames (T, D) of one video."""
        if features.ndim != 2:
            raise InputError(f"features have shape {tuple(features.shape)}; expected those of one video, (T, D)")
        return [self.name(identifier) for identifier in self.predict(features).tolist()]

    def __repr__(self) -> str:
        sees = "whole videos" if self.delay is None else f"live, {self.delay} frames late" if self.delay else "live"
        weights, mode = self.origin.get("weights"), self.origin.get("mode", "")
        of = f", of {mode} latents of the model {weights[:8]}" if weights else ""
        return f"{type(self).__name__}({self.width} -> {self.classes} classes, {sees}{of})"

    def save(self, path: Path | str) -> None:
        """Write one safetensors file, whole or not at all; `load_head` reads it."""
        record: dict[str, Any] = {
            "config": self.config.model_dump(mode="json"),
            "width": self.width,
            "classes": self.classes,
            "names": self.names,
            "origin": dict(self.origin),
        }
        header = {"format": FORMAT, "version": FORMAT_VERSION, "head": json.dumps(record)}
        save_tensors(Path(path), self.state_dict(), header)


def whole(head: Head, features: Tensor, valid: Tensor | None) -> Whole:
    """The context of whole videos, (B, T, D), or a line that says why the head cannot read them."""
    if features.ndim != 3 or features.shape[2] != head.width:
        raise InputError(f"features have shape {tuple(features.shape)}; this head reads (B, T, {head.width})")
    if valid is None:
        valid = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
    elif valid.shape != features.shape[:2] or valid.dtype != torch.bool:
        raise InputError(
            f"valid has shape {tuple(valid.shape)} and type {valid.dtype}; expected {tuple(features.shape[:2])} bool"
        )
    elif bool((valid[:, 1:] & ~valid[:, :-1]).any()):
        raise InputError("valid has padding before real frames; move the real frames to the front")
    return Whole(Places(lay_out(valid).positions, None if bool(valid.all()) else valid))
