"""Which frames see which: the pattern of attention, and the rule that it stands for."""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from keystep.errors import InputError
from keystep.nn.places import Places


class AttentionPattern(BaseModel):
    """Which frames a frame sees.

    A key is visible when the order allows it and it is near enough: less than ``window`` frames away, or, with
    ``stride``, one of every ``stride``-th older frames less than ``memory`` frames away.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: Literal["bidirectional", "causal", "block_causal", "segment_causal"] = "bidirectional"
    """``bidirectional``: all frames. ``causal``: none that is later. ``block_causal``: the own block of ``block``
    frames and all earlier ones. ``segment_causal``: the own segment and all earlier ones (ORACLE, unless the
    model's boundaries are discovered ones)."""
    block: int | None = Field(default=None, ge=1)
    """block_causal: frames in a block."""
    window: int | None = Field(default=None, ge=1)
    """See less than this many frames far; a causal window of W sees W frames, the own included. None: no limit."""
    stride: int | None = Field(default=None, ge=1)
    """Beyond the window, still see the past frames whose index is a multiple of this."""
    memory: int | None = Field(default=None, ge=2)
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
        """Whether it reads segment boundaries: true ones, unless `ModelConfig.boundaries` says otherwise."""
        return self.kind == "segment_causal"

    def __str__(self) -> str:
        parts = [self.kind if self.block is None else f"{self.kind}({self.block})"]
        if self.window is not None:
            parts.append(f"window {self.window}")
        if self.stride is not None:
            parts.append(f"every {self.stride} to {self.memory}")
        return ", ".join(parts) + (" (ORACLE)" if self.oracle else "")


def visible(pattern: AttentionPattern, queries: Places, keys: Places) -> Tensor:
    """(B, Tq, Tk) bool: the rule, of which everything else is a faster form."""
    return _near(pattern, queries, keys) | _far(pattern, queries, keys)


def opened(seen: Tensor) -> Tensor:
    """The mask that a kernel gets: (..., keys) bool, in which a query that sees no key sees all of them.

    Such a query is padding, or its keys are in another tile. What it looks up is thrown away together with the
    gradient, but both have to be numbers: a softmax over nothing is none, and zero times NaN is NaN. (Seen on CUDA in
    bfloat16 and float16, where a wholly hidden row made the gradient of its query NaN.)
    """
    return seen | ~seen.any(-1, keepdim=True)


def _near(pattern: AttentionPattern, queries: Places, keys: Places) -> Tensor:
    """What the order and the window allow."""
    distance = _distance(queries, keys)
    seen = _ordered(pattern, queries, keys)
    return seen if pattern.window is None else seen & (distance.abs() < pattern.window)


def _far(pattern: AttentionPattern, queries: Places, keys: Places) -> Tensor:
    """What the strided memory adds beyond the window; never what the window shows already."""
    if pattern.stride is None or pattern.window is None or pattern.memory is None:
        return torch.zeros((), dtype=torch.bool, device=queries.positions.device)
    distance = _distance(queries, keys)
    kept = (keys.positions % pattern.stride == 0)[:, None]
    return _ordered(pattern, queries, keys) & kept & (distance >= pattern.window) & (distance < pattern.memory)


def _distance(queries: Places, keys: Places) -> Tensor:
    return queries.positions[:, :, None] - keys.positions[:, None]


def _ordered(pattern: AttentionPattern, queries: Places, keys: Places) -> Tensor:
    """(B, Tq, Tk): both are real, and the key's turn has come."""
    query_rank, key_rank = rank(pattern, queries), rank(pattern, keys)
    seen = key_rank[:, None] <= query_rank[:, :, None]
    if keys.valid is not None:
        seen = seen & keys.valid[:, None]
    return seen if queries.valid is None else seen & queries.valid[:, :, None]


def rank(pattern: AttentionPattern, places: Places) -> Tensor:
    """(B, T) int64: a query sees keys of its own rank and below."""
    if pattern.kind == "causal":
        return places.positions
    if pattern.kind == "block_causal":
        assert pattern.block is not None
        return places.positions // pattern.block
    if pattern.kind == "segment_causal":
        if places.segments is None:
            raise InputError(
                "segment_causal attention needs segment_lengths: the true boundaries (ORACLE), or discovered ones"
            )
        return places.segments
    return torch.zeros_like(places.positions)
