"""Rotary position embedding (RoPE) of queries and keys.

The channels of a head of width d are split into chunks, each with its own position (the frame; or segment and frame
within it), and chunks into pairs of adjacent channels. Pair j of a chunk of width c has the angle
``position * base ** (-2j / c)``.

``relative`` applies the same angle to both channels of a pair. This is a rotation, so attention scores depend only on
relative positions. ``tiled`` gives channel m the angle of pair ``m mod (c / 2)``. This is not a rotation, but the
authors' checkpoints were trained with it (inherited from V-JEPA 2). The variants differ only in the tables.

Pairs are processed as complex numbers, which needs one pass over memory instead of five.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

Variant = Literal["relative", "tiled"]
BASE = 10000.0


class Rotation(Protocol):
    """Rotates queries and keys (B, H, N, d) of tokens at given positions."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def __getitem__(self, span: slice) -> Rotation: ...


@dataclass(frozen=True)
class RotaryTables:
    """Precomputed coefficients, shared by all blocks: a pair z is mapped to ``turn * z + mirror * conj(z)``.

    turn, mirror: (B, 1, N, d // 2) complex64. mirror is None if both channels of a pair have the same angle.
    """

    turn: Tensor
    mirror: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """See `rotate`."""
        return rotate(x, self)

    def __getitem__(self, span: slice) -> RotaryTables:
        """The tables for a slice of the tokens."""
        return RotaryTables(self.turn[:, :, span], None if self.mirror is None else self.mirror[:, :, span])


def rotary_tables(
    frames: Tensor,
    head_dim: int,
    variant: Variant = "relative",
    segments: Tensor | None = None,
    segment_frames: Tensor | None = None,
) -> RotaryTables:
    """Tables for tokens at (B, N) ``frames``, or at (``segments``, ``segment_frames``) if given.

    Angles are computed in float64; the error of float32 is 3e-4 at frame 100,000.
    """
    if segments is not None and segment_frames is not None:
        chunks = list(zip((segments, segment_frames), _halves(head_dim), strict=True))
    else:
        chunks = [(frames, width) for width in _widths(head_dim, variant)]
    return make_tables([pair_angles(positions, width) for positions, width in chunks], variant)


def _widths(head_dim: int, variant: Variant) -> tuple[int, ...]:
    """Widths of the chunks if positions are frames."""
    halves = _halves(head_dim)
    return halves if variant == "tiled" else (sum(halves),)


def _halves(head_dim: int) -> tuple[int, int]:
    first = 2 * (head_dim // 2 // 2)
    return first, 2 * ((head_dim - first) // 2)


def make_tables(angles: Sequence[Tensor], variant: Variant) -> RotaryTables:
    """Tables from the angles of each chunk's pairs, (B, N, width / 2) float64 each (see `pair_angles`)."""
    if variant == "relative":
        return RotaryTables(_unit(torch.cat(list(angles), dim=-1)[:, None]).to(torch.complex64), None)
    tiled = torch.cat([part.repeat(1, 1, 2) for part in angles], dim=-1)[:, None]  # (B, 1, N, 2 * (d // 2))
    even, odd = _unit(tiled[..., 0::2]), _unit(tiled[..., 1::2])
    # (a + ib) -> a cos(even) - b sin(even) + i (b cos(odd) + a sin(odd))
    return RotaryTables(((even + odd) / 2).to(torch.complex64), ((even - odd).conj() / 2).to(torch.complex64))


def rotate(x: Tensor, tables: RotaryTables) -> Tensor:
    """Rotate queries or keys (B, H, N, d), computing at least in float32 and returning the dtype of x.

    The last channel of an odd width is not part of a pair and does not change.
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
    """(B, N, width / 2) float64: angles of the pairs of a chunk of even ``width`` at ``positions`` (B, N)."""
    exponents = torch.arange(0, width, 2, dtype=torch.float64, device=positions.device) / max(width, 1)
    return positions[..., None].double() * BASE**-exponents


def _unit(angles: Tensor) -> Tensor:
    """exp(i angle)"""
    return torch.polar(torch.ones_like(angles), angles)


class RealRotation(nn.Module):
    """The same rotation with real numbers, for graphs without complex numbers.

    A channel x with its partner y is mapped to ``x cos + y sin``, where the sine is negated for the first channel of a
    pair. Both variants have this form with different angles.
    """

    rates: Tensor
    signs: Tensor
    partner: Tensor

    def __init__(self, head_dim: int, variant: Variant) -> None:
        super().__init__()
        even = 2 * (head_dim // 2)
        rates = [pair_angles(torch.ones(1, 1), width)[0, 0] for width in _widths(head_dim, variant)]  # radians a frame
        numbers = [rate.repeat(2) if variant == "tiled" else rate.repeat_interleave(2) for rate in rates]
        self.register_buffer("rates", torch.cat([*numbers, torch.zeros(head_dim - even, dtype=torch.float64)]))
        self.register_buffer("signs", torch.tensor([-1.0, 1.0]).repeat(head_dim // 2 + 1)[:head_dim].double())
        partner = torch.arange(head_dim)
        partner[:even] += torch.tensor([1, -1]).repeat(even // 2)
        self.register_buffer("partner", partner)

    def forward(self, positions: Tensor) -> RealTables:
        """Tables for frames (B, N) int64. If run in float32, the error of an angle is 3e-4 at frame 100,000."""
        angles = (positions.double()[..., None] * self.rates)[:, None]  # (B, 1, N, d)
        return RealTables(angles.cos().float(), (angles.sin() * self.signs).float(), self.partner)


@dataclass(frozen=True)
class RealTables:
    """cosines, sines: (B, 1, N, d) float32 for each channel; partner: (d,) index of the other channel of its pair."""

    cosines: Tensor
    sines: Tensor
    partner: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate queries or keys (B, H, N, d). The last channel of an odd width has angle 0."""
        return x * self.cosines + x.index_select(-1, self.partner) * self.sines

    def __getitem__(self, span: slice) -> RealTables:
        """The tables for a slice of the tokens."""
        return RealTables(self.cosines[:, :, span], self.sines[:, :, span], self.partner)
