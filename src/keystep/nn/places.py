"""Positions of tokens in their videos, and packing of the visible ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Places:
    """Positions of tokens in ascending order, padding last. Tokens keep their positions when others are removed.

    Attributes:
        positions: (B, N) int64 frame index in the video.
        valid: (B, N) bool, True then False; None if all tokens are valid.
        segments: (B, N) int64 index of the annotated segment, or None; only for ORACLE models.
        segment_frames: (B, N) int64 frame index within the segment, or None.
        memo: cache for values derived from these positions.
    """

    positions: Tensor
    valid: Tensor | None = None
    segments: Tensor | None = None
    segment_frames: Tensor | None = None
    memo: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    def __getitem__(self, span: slice) -> Places:
        """A slice of the tokens."""
        parts = (self.positions, self.valid, self.segments, self.segment_frames)
        return Places(*(None if part is None else part[:, span] for part in parts))  # type: ignore[arg-type]


def lay_out(valid: Tensor, segment_lengths: Tensor | None = None, starts: Tensor | None = None) -> Places:
    """Positions of all frames.

    Args:
        valid: (B, T) bool.
        segment_lengths: (B, S); padding gets segment 0, frame 0.
        starts: (B,) index of the first frame, for sequences that start within their video.
    """
    positions = torch.arange(valid.shape[1], device=valid.device).expand(valid.shape)
    if starts is not None:
        positions = positions + starts.to(valid.device)[:, None]
    if segment_lengths is None:
        return Places(positions, valid)
    ends = segment_lengths.to(valid.device).cumsum(1)  # (B, S)
    order = (valid.cumsum(1) - 1).clamp(min=0)  # index among the valid frames
    segments = torch.searchsorted(ends, order, right=True).clamp(max=ends.shape[1] - 1)
    starts = (ends - segment_lengths.to(valid.device)).gather(1, segments)
    return Places(positions, valid, segments * valid, (order - starts) * valid)


class Packing:
    """Packs the kept frames of a batch together, and unpacks them.

    Packed tensors have shape (B, N, ...), where N is the maximum number of kept frames (at least 1). The kept frames of
    each row come first, in order, followed by zeros.

    Args:
        keep: (B, T) bool.
    """

    def __init__(self, keep: Tensor) -> None:
        counts = keep.sum(1)
        self.length = keep.shape[1]
        self.packed_length = min(max(1, int(counts.max())), self.length)
        self.identity = self.packed_length == self.length and bool(counts.min() == self.length)
        self.index = torch.argsort(~keep, dim=1, stable=True)[:, : self.packed_length]  # (B, N)
        real = torch.arange(self.packed_length, device=keep.device) < counts[:, None]
        self.real = None if bool(real.all()) else real
        """(B, N) bool, or None if all packed tokens are kept frames."""

    def pack(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, N, D)"""
        if self.identity:
            return x
        packed = x.gather(1, self.index[..., None].expand(-1, -1, x.shape[2]))
        return packed if self.real is None else packed.masked_fill(~self.real[..., None], 0.0)  # padding may hold NaN

    def unpack(self, packed: Tensor) -> Tensor:
        """(B, N, D) -> (B, T, D), exact zeros at frames that were not kept."""
        if self.identity:
            return packed
        if self.real is not None:
            packed = packed.masked_fill(~self.real[..., None], 0.0)
        spread = packed.new_zeros(packed.shape[0], self.length, packed.shape[2])
        return spread.scatter(1, self.index[..., None].expand_as(packed), packed)

    def places(self, places: Places) -> Places:
        """Positions of the packed tokens."""

        def pick(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.gather(1, self.index)

        positions = places.positions.gather(1, self.index)
        return Places(positions, self.real, pick(places.segments), pick(places.segment_frames))
