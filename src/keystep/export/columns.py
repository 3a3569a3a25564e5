"""Which column of a fixed buffer holds which frame, worked out from a frame counter alone.

A buffer has three parts. The near columns are a ring over the last frames: frame p lies in column ``p mod near``. The
far columns are a ring over every stride-th frame, for the strided memory. One more column takes what belongs nowhere.
So a stream's state needs no list of positions, and a stream begins anew when its counter is set to 0: what older frames
left behind then counts as frames below 0, which nobody sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from keystep.config.attention import AttentionPattern
from keystep.nn.attention import visible
from keystep.nn.places import Places


@dataclass(frozen=True)
class Columns:
    """The columns that a causal or block-causal pattern with a window needs when ``frames`` frames come at a time."""

    pattern: AttentionPattern
    frames: int

    @property
    def near(self) -> int:
        """A call's own frames, and what the first of them still sees of the past."""
        assert self.pattern.window is not None
        return self.pattern.window - 1 + self.frames

    @property
    def far(self) -> int:
        """Multiples of the stride among a call's frames and what the first of them remembers; 0 without a memory."""
        if self.pattern.stride is None or self.pattern.memory is None:
            return 0
        return -(-(self.pattern.memory - 1 + self.frames) // self.pattern.stride)

    @property
    def count(self) -> int:
        """All columns."""
        return self.near + (self.far + 1 if self.far else 0)

    @property
    def reach(self) -> int:
        """Frames until every column has been written."""
        return max(self.near, self.far * (self.pattern.stride or 1))

    @cached_property
    def _near_only(self) -> AttentionPattern:
        return self.pattern.model_copy(update={"stride": None, "memory": None})

    def writes(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Where a call's frames at ``positions`` (B, n) go.

        Returns:
            source: (B, m) index of the frame in the call, m being n and the largest number of multiples among n frames.
            target: (B, m) column that it is written to. No column occurs twice.
        """
        source = torch.arange(self.frames, device=positions.device).expand(positions.shape)
        target = positions % self.near
        if not self.far:
            return source, target
        stride = self.pattern.stride
        assert stride is not None
        candidates = torch.arange(-(-self.frames // stride), device=positions.device) * stride
        multiples = -positions[:, :1] % stride + candidates  # (B, c): the last one may lie behind the call
        inside = multiples < self.frames
        numbers = (positions[:, :1] + multiples) // stride
        column = torch.where(inside, self.near + numbers % self.far, self.near + self.far)
        return torch.cat([source, multiples.clamp(max=self.frames - 1)], 1), torch.cat([target, column], 1)

    def seen(self, positions: Tensor) -> Tensor:
        """(B, n, count) bool: which columns the frames at ``positions`` (B, n) see once they are written themselves."""
        queries = Places(positions)
        last = positions[:, -1:]
        held = last - (last - torch.arange(self.near, device=positions.device)) % self.near
        keys = Places(held, held >= 0)
        seen = visible(self._near_only, queries, keys)
        if not self.far:
            return seen
        assert self.pattern.stride is not None
        newest = last // self.pattern.stride
        held = newest - (newest - torch.arange(self.far, device=positions.device)) % self.far
        keys = Places(held * self.pattern.stride, held >= 0)
        far = visible(self.pattern, queries, keys) & ~visible(self._near_only, queries, keys)
        return torch.cat([seen, far, torch.zeros_like(far[..., :1])], -1)

    def place(self, stored: Tensor, positions: Tensor, next_frame: int) -> Tensor:
        """One stream's buffer (H, count, d) before ``next_frame``, from columns (H, M, d) at ``positions`` (M,)."""
        buffer = stored.new_zeros(stored.shape[0], self.count, stored.shape[2])
        real = positions >= 0
        near = real & (positions >= next_frame - self.near)
        buffer[:, positions[near] % self.near] = stored[:, near]
        if self.far:
            stride = self.pattern.stride
            assert stride is not None
            far = real & (positions % stride == 0) & (positions > next_frame - 1 - self.far * stride)
            buffer[:, self.near + positions[far] // stride % self.far] = stored[:, far]
        return buffer
