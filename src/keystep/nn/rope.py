"""Rotary positions: queries and keys turned by angles that grow with their place in the video.

A head of width d is cut into chunks, each with a position of its own (the frame; or segment and frame in it), and a
chunk into pairs of neighbouring numbers. Pair j of a chunk of width c turns by ``position * base ** (-2j / c)``.

``relative`` gives both numbers of a pair that same angle: a rotation, so that attention scores depend on distances
alone. ``tiled`` gives number m the angle of pair ``m mod (c / 2)``: no rotation, but what the authors' checkpoints were
trained with (a quirk inherited from V-JEPA 2). The two differ in the tables only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Variant = Literal["relative", "tiled"]
BASE = 10000.0


@dataclass(frozen=True)
class RotaryTables:
    """cos, sin: (B, 1, N, d) float32, made once for all blocks of a network."""

    cos: Tensor
    sin: Tensor


def rotary_tables(
    frames: Tensor,
    head_dim: int,
    variant: Variant = "relative",
    segments: Tensor | None = None,
    segment_frames: Tensor | None = None,
) -> RotaryTables:
    """Tables for tokens at (B, N) integer ``frames``, or at (``segments``, ``segment_frames``) where these are given.

    Angles are computed in float64, since float32 loses 3e-4 at frame 100,000 already; numbers that fill no pair stay
    unturned.
    """
    first = 2 * (head_dim // 2 // 2)
    second = 2 * ((head_dim - first) // 2)
    if segments is not None and segment_frames is not None:
        chunks = [(segments, first), (segment_frames, second)]
    elif variant == "tiled":
        chunks = [(frames, first), (frames, second)]
    else:
        chunks = [(frames, 2 * (head_dim // 2))]
    angles = torch.cat([_angles(positions, width, variant) for positions, width in chunks], dim=-1)
    angles = torch.nn.functional.pad(angles, (0, head_dim - angles.shape[-1]))[:, None]  # (B, 1, N, d)
    return RotaryTables(angles.cos().float(), angles.sin().float())


def rotate(x: Tensor, tables: RotaryTables) -> Tensor:
    """Turn queries or keys (B, H, N, d); computed in float32 whatever their type, which the result keeps."""
    wide = x.float()
    even = 2 * (x.shape[-1] // 2)
    pairs = wide[..., :even].reshape(*x.shape[:-1], -1, 2)
    partner = torch.stack([-pairs[..., 1], pairs[..., 0]], dim=-1).flatten(-2)
    if even < x.shape[-1]:
        partner = torch.nn.functional.pad(partner, (0, 1))
    return (wide * tables.cos + partner * tables.sin).to(x.dtype)


def _angles(positions: Tensor, width: int, variant: Variant) -> Tensor:
    """(B, N, width) float64."""
    exponents = torch.arange(0, width, 2, dtype=torch.float64, device=positions.device) / max(width, 1)
    angles = positions[..., None].double() * BASE**-exponents  # (B, N, width / 2)
    return angles.repeat_interleave(2, dim=-1) if variant == "relative" else angles.repeat(1, 1, 2)
