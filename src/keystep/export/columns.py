"""Layout of ring buffers: the column of each frame, computed from a frame counter.

A buffer consists of rings. The ring of the window holds the last frames: frame p is in column ``p mod count``. The ring
of a strided memory holds every stride-th frame, and has one more column for frames that are not stored. The state needs
no list of positions, and setting the counter of a stream to 0 resets it: older frames then get negative positions,
which are never visible.
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
    """Columns for every ``every``-th of a call's ``frames`` frames, and those less than ``reach`` before the first."""

    every: int
    reach: int
    frames: int

    @property
    def count(self) -> int:
        """Number of columns that hold a frame."""
        return -(-(self.reach - 1 + self.frames) // self.every)

    @property
    def width(self) -> int:
        """Total number of columns."""
        return self.count + (self.every > 1)

    def writes(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """See `Columns.writes`."""
        if self.every == 1:
            source = torch.arange(self.frames, device=positions.device).expand(positions.shape)
            return source, positions % self.count
        candidates = torch.arange(-(-self.frames // self.every), device=positions.device) * self.every
        multiples = -positions[:, :1] % self.every + candidates  # (B, c): the last one may be beyond the call
        numbers = (positions[:, :1] + multiples) // self.every
        target = torch.where(multiples < self.frames, numbers % self.count, self.count)
        return multiples.clamp(max=self.frames - 1), target

    def stored_places(self, last: Tensor) -> Places:
        """The frames in the columns after the frame at (B, 1) ``last`` has been written."""
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
    """The columns for a causal or block-causal pattern with a window.

    Args:
        pattern: with a window.
        frames: frames per call.
        stride: only every stride-th frame is a key.
    """

    pattern: AttentionPattern
    frames: int
    stride: int = 1

    @cached_property
    def rings(self) -> tuple[Ring, ...]:
        """The rings of the window and of the strided memory."""
        assert self.pattern.window is not None, "exported steps need a window"
        near = Ring(self.stride, self.pattern.window, self.frames)
        if self.pattern.stride is None or self.pattern.memory is None:
            return (near,)
        return near, Ring(self.pattern.stride, self.pattern.memory, self.frames)

    @property
    def count(self) -> int:
        """Total number of columns."""
        return sum(ring.width for ring in self.rings)

    @property
    def reach(self) -> int:
        """Number of frames after which all columns have been written."""
        return max(ring.count * ring.every for ring in self.rings)

    def writes(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Where the frames of a call are written.

        Args:
            positions: (B, n).

        Returns:
            source: (B, m) index of the frame in the call, where m is the maximum number of frames that the rings store.
            target: (B, m) column that it is written to, without repetition.
        """
        sources, targets, offset = [], [], 0
        for ring in self.rings:
            source, target = ring.writes(positions)
            sources.append(source)
            targets.append(target + offset)
            offset += ring.width
        return torch.cat(sources, 1), torch.cat(targets, 1)

    def seen(self, positions: Tensor) -> Tensor:
        """(B, n, count) bool: columns visible to the frames at ``positions`` (B, n) after these have been written."""
        queries, window = Places(positions), self.pattern.model_copy(update={"stride": None, "memory": None})
        parts: list[Tensor] = []
        for ring in self.rings:
            keys = ring.stored_places(positions[:, -1:])
            seen = visible(window, queries, keys)
            parts.append(visible(self.pattern, queries, keys) & ~seen if parts else seen)
            if ring.width > ring.count:
                parts.append(torch.zeros_like(seen[..., :1]))
        return opened(torch.cat(parts, -1))

    def place(self, stored: Tensor, positions: Tensor, next_frame: int) -> Tensor:
        """The buffer (H, count, d) of a stream before ``next_frame``, from columns (H, M, d) at ``positions`` (M,)."""
        return torch.cat([ring.place(stored, positions, next_frame) for ring in self.rings], dim=1)
