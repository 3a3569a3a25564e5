"""Base class of all heads."""

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
    """Protocol of a head: a class derived from `Head`, called as ``Kind(config=..., width=..., classes=...)``.

    The annotation of ``config`` in its ``__init__`` names its settings, a class derived from `HeadConfig`. Training,
    evaluation, streaming, saving and export are derived from `Head.run`.
    """

    stages: int
    delay: Any
    reach: Any

    def __call__(self, config: Any, width: int, classes: int) -> Head:
        """Create an untrained head for features of width ``width``."""
        ...

    def run(self, x: Tensor, context: SequenceContext) -> Tensor:
        """See `Head`."""
        ...


class Head(nn.Module):
    """Maps the features or latents of a video to class scores of every frame.

    Args:
        config: settings of the head.
        width: width D of the features.
        classes: number of classes C.

    Attributes:
        names: class names by id; empty if unknown.
        origin: what it was trained on, as text: ``weights`` (hash of the model), ``mode``, ``rate`` in Hz.
    """

    stages: int = 1
    """Number of stages S. All are trained; the scores of the last one are the output."""

    def __init__(self, config: HeadConfig, width: int, classes: int) -> None:
        super().__init__()
        self.config, self.width, self.classes = config, width, classes
        self.names: tuple[str, ...] = ()
        self.origin: Mapping[str, str] = {}
        self.standardise = ChannelNorm(width)

    def run(self, x: Tensor, context: SequenceContext) -> Tensor:
        """Compute the scores of every stage.

        Args:
            x: (B, n, D) standardised frames, zero at padding.
            context: gives access to frames and states outside of these n frames.

        Returns:
            (S, B, n, C).
        """
        raise NotImplementedError

    @property
    def delay(self) -> int | None:
        """Number of later frames that are needed before the scores of a frame are final. None: the whole video."""
        return 0

    @property
    def reach(self) -> tuple[int, int]:
        """(before, after): past and future frames that the scores of a frame can depend on."""
        return 0, 0

    @property
    def causal(self) -> bool:
        """Whether the head has a finite `delay`, and therefore can run on a stream."""
        return self.delay is not None

    @property
    def signature(self) -> str:
        """A hash of settings and weights."""
        return weights_signature(self)

    def forward(self, features: Tensor, valid: Tensor | None = None) -> Tensor:
        """Compute the scores of whole videos.

        Args:
            features: (B, T, D).
            valid: (B, T) bool, True at real frames, which come first. None: all are real. Padding is never read, and
                its scores are undefined.

        Returns:
            (S, B, T, C), the scores of every stage.

        Raises:
            InputError: features of another width, or padding between real frames.
        """
        return self.scores(features, whole_context(self, features, valid))

    def scores(self, features: Tensor, context: SequenceContext) -> Tensor:
        """Compute the scores of the frames of a context: (B, n, D) -> (S, B, n, C)."""
        return self.run(context.clean(self.standardise(features)), context)

    @torch.no_grad()
    def probabilities(self, features: Tensor, valid: Tensor | None = None) -> Tensor:
        """Compute the class probabilities of whole videos.

        Args:
            features: (B, T, D) or (T, D), on any device.
            valid: as in `forward`.

        Returns:
            (B, T, C) or (T, C) on the head's device, with sum 1 over the classes.

        Raises:
            InputError: as for `forward`.
        """
        if features.ndim == 2:
            return self.probabilities(features[None], None if valid is None else valid[None])[0]
        device = self.standardise.mean.device
        scores: Tensor = self(features.to(device), None if valid is None else valid.to(device))
        return scores[-1].softmax(-1)

    def predict(self, features: Tensor, valid: Tensor | None = None) -> Tensor:
        """Predict class ids, (B, T) or (T,) int64; arguments and errors are those of `probabilities`."""
        return self.choose(self.probabilities(features, valid))

    def choose(self, probabilities: Tensor) -> Tensor:
        """Decide on classes: probabilities (..., C), possibly smoothed -> class ids (...) int64."""
        return probabilities.argmax(-1)

    def name(self, identifier: int) -> str:
        """The name of a class."""
        return self.names[identifier] if self.names else f"class {identifier}"

    def labels(self, features: Tensor) -> list[str]:
        """Predict the class names of the frames of one video, (T, D).

        Raises:
            InputError: another shape.
        """
        if features.ndim != 2:
            raise InputError(f"features have shape {tuple(features.shape)}; expected those of one video, (T, D)")
        return [self.name(identifier) for identifier in self.predict(features).tolist()]

    def __repr__(self) -> str:
        sees = "whole videos" if self.delay is None else f"live, {self.delay} frames late" if self.delay else "live"
        weights, mode = self.origin.get("weights"), self.origin.get("mode", "")
        of = f", of {mode} latents of the model {weights[:8]}" if weights else ""
        return f"{type(self).__name__}({self.width} -> {self.classes} classes, {sees}{of})"

    def save(self, path: Path | str) -> None:
        """Write the head to one safetensors file, atomically; `load_head` reads it.

        Raises:
            InputError: the file cannot be written.
        """
        record: dict[str, Any] = {
            "config": self.config.model_dump(mode="json"),
            "width": self.width,
            "classes": self.classes,
            "names": self.names,
            "origin": dict(self.origin),
        }
        header = {"format": FORMAT, "version": FORMAT_VERSION, "head": json.dumps(record)}
        save_tensors(Path(path), self.state_dict(), header)


def whole_context(head: Head, features: Tensor, valid: Tensor | None) -> Whole:
    """Create the context of whole videos, (B, T, D).

    Raises:
        InputError: unexpected shape or type, or padding between real frames.
    """
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
