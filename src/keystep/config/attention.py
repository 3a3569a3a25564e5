"""The attention pattern: which frames attend to which."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from keystep.config.base import Config

MOST_FRAMES = 10_000_000
"""Upper bound for settings in frames; longer than any video."""


class AttentionPattern(Config):
    """Which frames a frame attends to.

    ``kind`` sets the order. Within that order a key is visible if it is less than ``window`` frames away. With
    ``stride`` and ``memory``, older frames less than ``memory`` frames away are visible too if their index is a
    multiple of ``stride``.
    """

    kind: Literal["bidirectional", "causal", "block_causal", "segment_causal"] = "bidirectional"
    """``bidirectional``: attend to all frames. ``causal``: only to the present and past frames. ``block_causal``: to
    the current block of ``block`` frames and all earlier blocks. ``segment_causal``: to the current true segment and
    all earlier ones (ORACLE)."""
    block: int | None = Field(default=None, ge=1, le=MOST_FRAMES)
    """block_causal: block length in frames."""
    window: int | None = Field(default=None, ge=1, le=MOST_FRAMES)
    """Attend only to frames less than this many frames away. A causal window of W covers W frames, the current one
    included. None: no limit."""
    stride: int | None = Field(default=None, ge=1, le=MOST_FRAMES)
    """Beyond the window, also attend to past frames whose index is a multiple of this. Needs ``memory``."""
    memory: int | None = Field(default=None, ge=2, le=MOST_FRAMES)
    """Attend to strided past frames less than this many frames away. Needs ``stride``."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.block is None) == (self.kind == "block_causal"):
            raise ValueError(
                "kind block_causal needs a block length; set block"
                if self.block is None
                else f"block {self.block} applies to kind block_causal only, not to {self.kind}"
            )
        if (self.stride is None) != (self.memory is None):
            raise ValueError(f"stride {self.stride} and memory {self.memory}: set both or neither")
        if self.memory is not None and (self.window is None or self.memory <= self.window):
            raise ValueError(f"memory {self.memory} needs a window smaller than itself, not {self.window}")
        return self

    @property
    def oracle(self) -> bool:
        """Whether the pattern depends on true segment boundaries."""
        return self.kind == "segment_causal"

    def __str__(self) -> str:
        parts = [self.kind if self.block is None else f"{self.kind}({self.block})"]
        if self.window is not None:
            parts.append(f"window {self.window}")
        if self.stride is not None:
            parts.append(f"every {self.stride} to {self.memory}")
        return ", ".join(parts) + (" (ORACLE)" if self.oracle else "")
