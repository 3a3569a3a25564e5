"""Which column of a fixed buffer holds which frame, worked out from a frame counter alone.

A buffer consists of rings. That of the near columns goes over the last frames: frame p is in column ``p mod count``.
One for a strided memory goes over every stride-th frame; one more column behind it takes what belongs nowhere.
So a stream's state needs no list of positions, and a stream begins anew when its counter is set to 0: what older frames
left behind then counts as frames below 0, which nobody sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from keystep.config.attention import AttentionPattern
from keystep.nn.pattern import opened, visible
from keystep.nn.places import Places


@dataclass(frozen=True)
class Ring:
    """Columns for every ``every``-th frame among a call's ``frames`` and those less than ``reach`` before the first."""

    every: int
    reach: int
    frames: int

    @property
    def count(self) -> int:
        """Columns that hold a frame."""
        return -(-(self.reach - 1 + self.frames) // self.every)

    @property
    def width(self) -> int:
        """All columns."""
        return self.count + (self.every > 1)

    def writes(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """See `Columns.writes`."""
        if self.every == 1:
            source = torch.arange(self.frames, device=positions.device).expand(positions.shape)
            return source, positions % self.count
        candidates = torch.arange(-(-self.frames // self.every), device=positions.device) * self.every
        multiples = -positions[:, :1] % self.every + candidates  # (B, c): the last one may lie behind the call
        numbers = (positions[:, :1] + multiples) // self.every
        target = torch.where(multiples < self.frames, numbers % self.count, self.count)
        return multiples.clamp(max=self.frames - 1), target

    def held(self, last: Tensor) -> Places:
        """The frames in the columns once the frame at (B, 1) ``last`` is written."""
        newest = last // self.every
        held = newest - (newest - torch.arange(self.count, device=last.device)) % self.count
        return Places(held * self.every, held >= 0)

    def place(self, stored: Tensor, positions: Tensor, next_frame: int) -> Tensor:
        """See `Columns.place`."""
        buffer = stored.new_zeros(stored.shape[0], self.width, stored.shape[2])
        chosen = (positions >= 0) & (positions % self.every == 0)
        chosen &= positions // self.every > (next_frame - 1) // self.every - self.count
        buffer[:, positions[chosen] // self.every % self.count] = stored[:, chosen]
        return buffer


@dataclass(frozen=True)
class Columns:
    """The columns that a pattern with a window needs when ``frames`` frames come at a time.

    It is causal or block-causal; with ``stride``, only every stride-th frame is a key.
    """

    pattern: AttentionPattern
    frames: int
    stride: int = 1

    @cached_property
    def rings(self) -> tuple[Ring, ...]:
        """What the window shows, and what the strided memory adds."""
        assert self.pattern.window is not None, "the memory of an exported step is bounded"
        near = Ring(self.stride, self.pattern.window, self.frames)
        if self.pattern.stride is None or self.pattern.memory is None:
            return (near,)
        return near, Ring(self.pattern.stride, self.pattern.memory, self.frames)

    @property
    def count(self) -> int:
        """All columns."""
        return sum(ring.width for ring in self.rings)

    @property
    def reach(self) -> int:
        """Frames until every column has been written."""
        return max(ring.count * ring.every for ring in self.rings)

    def writes(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Where a call's frames at ``positions`` (B, n) go.

        Returns:
            source: (B, m) index of the frame in the call, m being the largest number of frames that each ring takes.
            target: (B, m) column that it is written to. No column occurs twice.
        """
        sources, targets, offset = [], [], 0
        for ring in self.rings:
            source, target = ring.writes(positions)
            sources.append(source)
            targets.append(target + offset)
            offset += ring.width
        return torch.cat(sources, 1), torch.cat(targets, 1)

    def seen(self, positions: Tensor) -> Tensor:
        """(B, n, count) bool: which columns the frames at ``positions`` (B, n) see once they are written themselves."""
        queries, window = Places(positions), self.pattern.model_copy(update={"stride": None, "memory": None})
        parts: list[Tensor] = []
        for ring in self.rings:
            keys = ring.held(positions[:, -1:])
            seen = visible(window, queries, keys)
            parts.append(visible(self.pattern, queries, keys) & ~seen if parts else seen)
            if ring.width > ring.count:
                parts.append(torch.zeros_like(seen[..., :1]))
        return opened(torch.cat(parts, -1))

    def place(self, stored: Tensor, positions: Tensor, next_frame: int) -> Tensor:
        """One stream's buffer (H, count, d) before ``next_frame``, from columns (H, M, d) at ``positions`` (M,)."""
        return torch.cat([ring.place(stored, positions, next_frame) for ring in self.rings], dim=1)
