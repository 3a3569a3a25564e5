"""Which frames see which: the pattern of attention, as a value."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from keystep.config.base import Config

MOST_FRAMES = 10_000_000
"""More than any video has."""


class AttentionPattern(Config):
    """Which frames a frame sees.

    A key is visible when the order allows it and it is near enough: less than ``window`` frames away, or, with
    ``stride``, one of every ``stride``-th older frames less than ``memory`` frames away.
    """

    kind: Literal["bidirectional", "causal", "block_causal", "segment_causal"] = "bidirectional"
    """``bidirectional``: all frames. ``causal``: none that is later. ``block_causal``: the own block of ``block``
    frames and all earlier ones. ``segment_causal``: the own segment and all earlier ones (ORACLE)."""
    block: int | None = Field(default=None, ge=1, le=MOST_FRAMES)
    """block_causal: frames in a block."""
    window: int | None = Field(default=None, ge=1, le=MOST_FRAMES)
    """See less than this many frames far; a causal window of W sees W frames, the own included. None: no limit."""
    stride: int | None = Field(default=None, ge=1, le=MOST_FRAMES)
    """Beyond the window, still see the past frames whose index is a multiple of this."""
    memory: int | None = Field(default=None, ge=2, le=MOST_FRAMES)
    """How far back strided frames are seen (less than this many frames)."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.block is None) == (self.kind == "block_causal"):
            raise ValueError(f"block is {self.block}; kind {self.kind} needs {'one' if self.block is None else 'none'}")
        if (self.stride is None) != (self.memory is None):
            raise ValueError(f"stride {self.stride} and memory {self.memory} come together or not at all")
        if self.memory is not None and (self.window is None or self.memory <= self.window):
            raise ValueError(f"memory {self.memory} must reach farther than the window, {self.window}")
        return self

    @property
    def oracle(self) -> bool:
        """Whether it reads the true segment boundaries."""
        return self.kind == "segment_causal"

    def __str__(self) -> str:
        parts = [self.kind if self.block is None else f"{self.kind}({self.block})"]
        if self.window is not None:
            parts.append(f"window {self.window}")
        if self.stride is not None:
            parts.append(f"every {self.stride} to {self.memory}")
        return ", ".join(parts) + (" (ORACLE)" if self.oracle else "")
