"""Rotary positions: queries and keys turned by angles that grow with their place in the video.

A head of width d is cut into chunks, each with a position of its own (the frame; or segment and frame in it), and a
chunk into pairs of neighbouring numbers. Pair j of a chunk of width c turns by ``position * base ** (-2j / c)``.

``relative`` gives both numbers of a pair that same angle: a rotation, so that attention scores depend on distances
alone. ``tiled`` gives number m the angle of pair ``m mod (c / 2)``: no rotation, but what the authors' checkpoints were
trained with (a quirk inherited from V-JEPA 2). The two differ in the tables only.

Pairs are worked on as complex numbers, which is one pass over memory instead of five.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Variant = Literal["relative", "tiled"]
BASE = 10000.0


@dataclass(frozen=True)
class RotaryTables:
    """What pairs ``z`` turn into, ``turn * z + mirror * conj(z)``; made once for all blocks of a network.

    turn, mirror: (B, 1, N, d // 2) complex64. mirror is None where both numbers of a pair have the same angle.
    """

    turn: Tensor
    mirror: Tensor | None

    def __getitem__(self, span: slice) -> RotaryTables:
        """The tables of a stretch of tokens."""
        return RotaryTables(self.turn[:, :, span], None if self.mirror is None else self.mirror[:, :, span])


def rotary_tables(
    frames: Tensor,
    head_dim: int,
    variant: Variant = "relative",
    segments: Tensor | None = None,
    segment_frames: Tensor | None = None,
) -> RotaryTables:
    """Tables for tokens at (B, N) integer ``frames``, or at (``segments``, ``segment_frames``) where these are given.

    Angles are computed in float64, since float32 loses 3e-4 at frame 100,000 already.
    """
    first = 2 * (head_dim // 2 // 2)
    second = 2 * ((head_dim - first) // 2)
    if segments is not None and segment_frames is not None:
        chunks = [(segments, first), (segment_frames, second)]
    elif variant == "tiled":
        chunks = [(frames, first), (frames, second)]
    else:
        chunks = [(frames, first + second)]
    return tables_of([pair_angles(positions, width) for positions, width in chunks], variant)


def tables_of(angles: Sequence[Tensor], variant: Variant) -> RotaryTables:
    """Tables from the angles of each chunk's pairs, (B, N, width / 2) float64 each, as `pair_angles` gives them."""
    if variant == "relative":
        return RotaryTables(_unit(torch.cat(list(angles), dim=-1)[:, None]).to(torch.complex64), None)
    tiled = torch.cat([part.repeat(1, 1, 2) for part in angles], dim=-1)[:, None]  # (B, 1, N, 2 * (d // 2))
    even, odd = _unit(tiled[..., 0::2]), _unit(tiled[..., 1::2])
    # (a + ib) -> a cos(even) - b sin(even) + i (b cos(odd) + a sin(odd))
    return RotaryTables(((even + odd) / 2).to(torch.complex64), ((even - odd).conj() / 2).to(torch.complex64))


def rotate(x: Tensor, tables: RotaryTables) -> Tensor:
    """Turn queries or keys (B, H, N, d); computed in float32 at least, in the type of x.

    The last number of an odd width fills no pair and stays as it is.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    even = 2 * tables.turn.shape[-1]
    pairs = wide if even == x.shape[-1] else wide[..., :even].contiguous()
    numbers = torch.view_as_complex(pairs.reshape(*x.shape[:-1], -1, 2))  # (B, H, N, d // 2)
    turned = numbers * tables.turn
    if tables.mirror is not None:
        turned = turned + numbers.conj() * tables.mirror
    out = torch.view_as_real(turned).flatten(-2)
    return torch.cat([out, wide[..., even:]], dim=-1).to(x.dtype) if even < x.shape[-1] else out.to(x.dtype)


def pair_angles(positions: Tensor, width: int) -> Tensor:
    """(B, N, width / 2) float64, one a pair of a chunk of even ``width``, for tokens at (B, N) ``positions``."""
    exponents = torch.arange(0, width, 2, dtype=torch.float64, device=positions.device) / max(width, 1)
    return positions[..., None].double() * BASE**-exponents


def _unit(angles: Tensor) -> Tensor:
    """exp(i angle)"""
    return torch.polar(torch.ones_like(angles), angles)
