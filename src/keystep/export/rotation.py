"""Rotary positions in real numbers, for graphs that know no complex ones; the same numbers as `keystep.nn.rope`.

A number x with its partner y in a pair turns into ``x cos + y sin``, where the sine for a pair's first number is
negative. Both variants are this, with different angles.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from keystep.nn.rope import BASE, Variant


class RealRotation(nn.Module):
    """Turns queries and keys by the positions of their frames."""

    rates: Tensor
    signs: Tensor
    partner: Tensor

    def __init__(self, head_dim: int, variant: Variant) -> None:
        super().__init__()
        even = 2 * (head_dim // 2)
        self.register_buffer("rates", _rates(head_dim, variant))  # (d,) float64, radians a frame
        self.register_buffer("signs", torch.tensor([-1.0, 1.0]).repeat(head_dim // 2 + 1)[:head_dim].double())
        partner = torch.arange(head_dim)
        partner[:even] += torch.tensor([1, -1]).repeat(even // 2)
        self.register_buffer("partner", partner)

    def tables(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines (B, n, 1, d) float32 for frames (B, n) int64.

        Angles, sines and cosines are float64: in float32 an angle is wrong by 3e-4 at frame 100,000.
        """
        angles = (positions.double()[..., None] * self.rates)[:, :, None]
        return angles.cos().float(), (angles.sin() * self.signs).float()

    def forward(self, x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        """(B, n, H, d) -> (B, n, H, d). The last number of an odd width has no partner and angle 0."""
        cosines, sines = tables
        return x * cosines + x.index_select(-1, self.partner) * sines


def _rates(head_dim: int, variant: Variant) -> Tensor:
    """(d,) float64: what each number of a head turns by from one frame to the next; the chunks of `keystep.nn.rope`."""
    first = 2 * (head_dim // 2 // 2)
    second = 2 * ((head_dim - first) // 2)
    if variant == "relative":
        rates = _pairs(first + second).repeat_interleave(2)
    else:
        rates = torch.cat([_pairs(width).repeat(2) for width in (first, second)])
    return torch.cat([rates, rates.new_zeros(head_dim - len(rates))])


def _pairs(width: int) -> Tensor:
    """(width / 2,) float64, one a pair."""
    return BASE ** -(torch.arange(0, width, 2, dtype=torch.float64) / max(width, 1))
