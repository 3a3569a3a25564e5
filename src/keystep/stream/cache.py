"""Keys and values of past frames, in buffers that are written on without being copied at each step.

A `Cache` is a value: it sees its own columns of buffers that it may share with the caches that came after it. New
columns are written behind all that any cache sees. A cache that goes on from an older moment (a second future of the
same past) finds its place taken, and copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NOTHING = -1
"""Position of a column that holds no frame of a stream: it was reset, or was not as far as the others."""


class _Buffers:
    """One tensor of keys and one of values a block, (B, H, C, d) each, of which ``filled`` columns are taken."""

    def __init__(self, keys: Sequence[Tensor], values: Sequence[Tensor], filled: int) -> None:
        self.keys, self.values, self.filled = tuple(keys), tuple(values), filled

    @property
    def capacity(self) -> int:
        return int(self.keys[0].shape[2])


@dataclass(frozen=True, eq=False)
class Cache:
    """What ``M`` columns of the buffers hold.

    positions: (B, M) int64 frame of each column in its stream, ascending, or `NOTHING`.
    """

    positions: Tensor
    _buffers: _Buffers
    _start: int = 0

    @classmethod
    def empty(cls, streams: int, blocks: int, heads: int, head_dim: int, like: Tensor) -> Cache:
        """No columns yet, in the type and on the device of ``like``."""
        none = like.new_zeros(streams, heads, 0, head_dim)
        positions = torch.zeros(streams, 0, dtype=torch.int64, device=like.device)
        return cls(positions, _Buffers([none] * blocks, [none] * blocks, 0))

    @classmethod
    def rebuilt(
        cls, positions: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], start: int, capacity: int
    ) -> Cache:
        """A cache as it was saved: positions (B, M), keys and values (B, H, M, d) a block, and its `geometry`.

        It lies in its buffers as before, so that what follows is computed alike, to the bit.
        """
        end = start + positions.shape[1]

        def placed(saved: Tensor) -> Tensor:
            buffer = saved.new_zeros(*saved.shape[:2], capacity, saved.shape[3])
            buffer[:, :, start:end] = saved
            return buffer

        return cls(positions, _Buffers([placed(x) for x in keys], [placed(x) for x in values], end), start)

    @property
    def geometry(self) -> tuple[int, int]:
        """(first column, columns in the buffers): where this cache lies in its buffers."""
        return self._start, self._buffers.capacity

    @property
    def size_bytes(self) -> int:
        """Memory held, free columns included."""
        tensors = (self.positions, *self._buffers.keys, *self._buffers.values)
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    @property
    def _end(self) -> int:
        return self._start + self.positions.shape[1]

    def keys(self, block: int) -> Tensor:
        """(B, H, M, d), a view."""
        return self._buffers.keys[block][:, :, self._start : self._end]

    def values(self, block: int) -> Tensor:
        """(B, H, M, d), a view."""
        return self._buffers.values[block][:, :, self._start : self._end]

    def extended(self, positions: Tensor, spare: int) -> Cache:
        """With columns at ``positions`` (B, n) behind the old ones, to be filled with `write`.

        ``spare``: free columns to add beyond these when the buffers have to be replaced.
        """
        count = positions.shape[1]
        cache = self if self._has_room(count) else self._copied(count + spare)
        cache._buffers.filled = cache._end + count
        return Cache(torch.cat([cache.positions, positions], dim=1), cache._buffers, cache._start)

    def write(self, block: int, keys: Tensor, values: Tensor) -> None:
        """Fill the last columns of a block, (B, H, n, d) each."""
        first = self._end - keys.shape[2]
        self._buffers.keys[block][:, :, first : self._end] = keys
        self._buffers.values[block][:, :, first : self._end] = values

    def keeping(self, kept: Tensor) -> Cache:
        """Without the oldest columns that no stream keeps; ``kept`` (B, M) bool.

        Others that none keeps are left for the next copy to drop: their positions become `NOTHING`.
        """
        wanted = kept.any(0)
        lead = int(wanted.int().argmax()) if bool(wanted.any()) else len(wanted)
        positions = self.positions.masked_fill(~kept, NOTHING)[:, lead:]
        return Cache(positions, self._buffers, self._start + lead)

    def without(self, streams: Sequence[int]) -> Cache:
        """With the past of some streams forgotten."""
        positions = self.positions.clone()
        positions[list(streams)] = NOTHING
        return Cache(positions, self._buffers, self._start)

    def reclaim(self, later: Cache) -> None:
        """Take back the columns of a cache that grew from this one and is not used any more."""
        if later._buffers is self._buffers and later._end == self._buffers.filled:
            self._buffers.filled = self._end

    def _has_room(self, count: int) -> bool:
        """Whether columns can be written behind this cache's: nobody did, and torch lets us.

        (What was made in inference mode may not be written to outside of it.)
        """
        free = self._end == self._buffers.filled and self._end + count <= self._buffers.capacity
        return free and (torch.is_inference_mode_enabled() or not self._buffers.keys[0].is_inference())

    def _copied(self, spare: int) -> Cache:
        """The same frames with ``spare`` free columns in new buffers."""
        real = self.positions != NOTHING
        columns = int(real.sum(1).max()) if real.numel() else 0
        index = torch.argsort(~real, dim=1, stable=True)[:, :columns]  # (B, K): frames in order, then nothing
        positions = self.positions.gather(1, index)

        def moved(buffer: Tensor) -> Tensor:
            old = buffer[:, :, self._start : self._end]
            streams, heads, _, width = old.shape
            new = old.new_zeros(streams, heads, columns + spare, width)  # zeros: what is never seen must be finite
            new[:, :, :columns] = old.gather(2, index[:, None, :, None].expand(-1, heads, -1, width))
            return new

        buffers = _Buffers([moved(x) for x in self._buffers.keys], [moved(x) for x in self._buffers.values], columns)
        return Cache(positions, buffers)
