"""Where tokens stand in their videos, and how the hidden ones are left out and put back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Places:
    """Tokens in ascending order, real ones first; each keeps its place in the video when others are left out.

    positions: (B, N) int64 frame index in the video.
    valid: (B, N) bool, True first, then False; None when every token is real.
    segments: (B, N) int64 index of the annotated segment, or None; only oracle models know it.
    segment_frames: (B, N) int64 frame index inside the segment, or None.
    memo: what others worked out from these places and want to find again; lives as long as they do.
    """

    positions: Tensor
    valid: Tensor | None = None
    segments: Tensor | None = None
    segment_frames: Tensor | None = None
    memo: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    def __getitem__(self, span: slice) -> Places:
        """The tokens of a stretch."""
        parts = (self.positions, self.valid, self.segments, self.segment_frames)
        return Places(*(None if part is None else part[:, span] for part in parts))  # type: ignore[arg-type]


def lay_out(valid: Tensor, segment_lengths: Tensor | None = None, starts: Tensor | None = None) -> Places:
    """Every frame of (B, T) at its index, with segments where their lengths (B, S) are given.

    Padding belongs to segment 0, frame 0. Indices count from ``starts`` (B,) where a sequence begins inside its video.
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
    """Moves the kept frames of a batch together, and back.

    keep: (B, T) bool. Packed tensors have shape (B, N, ...), N being the largest number of kept frames in a row; the
    first ones of each row are real, in order, and the rest is zero. N is 1 where nothing is kept.
    """

    def __init__(self, keep: Tensor) -> None:
        counts = keep.sum(1)
        self.length = keep.shape[1]
        self.packed_length = min(max(1, int(counts.max())), self.length)
        self.identity = self.packed_length == self.length and bool(counts.min() == self.length)
        self.index = torch.argsort(~keep, dim=1, stable=True)[:, : self.packed_length]  # (B, N)
        real = torch.arange(self.packed_length, device=keep.device) < counts[:, None]
        self.real = None if bool(real.all()) else real
        """(B, N) bool, or None when every packed token is real."""

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
        """The packed tokens' places."""

        def pick(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.gather(1, self.index)

        positions = places.positions.gather(1, self.index)
        return Places(positions, self.real, pick(places.segments), pick(places.segment_frames))
