"""Keys and values of past frames, in buffers that are written on without being copied at each step.

A `Cache` is a value: it sees its own columns of buffers that it may share with the caches that came after it. New
columns are written behind all that any cache sees. A cache that goes on from an older moment (a second future of the
same past) finds its place taken, and copies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NOTHING = -1
"""Position of a column that holds no frame of a stream: it was reset, or was not as far as the others."""


class _Buffers:
    """Keys and values of each name, (B, H, capacity, d) each, of which ``filled`` columns are taken."""

    def __init__(self, parts: dict[str, tuple[Tensor, Tensor]], capacity: int, filled: int) -> None:
        self.parts, self.capacity, self.filled = parts, capacity, filled


@dataclass(frozen=True, eq=False)
class Cache:
    """What ``M`` columns of the buffers hold; all names have the same columns.

    positions: (B, M) int64 frame of each column in its stream, ascending, or `NOTHING`.
    """

    positions: Tensor
    _buffers: _Buffers
    _start: int = 0

    @classmethod
    def empty(cls, streams: int, device: torch.device) -> Cache:
        """No columns yet. A name's buffers are made when it is first written, like what is written."""
        return cls(torch.zeros(streams, 0, dtype=torch.int64, device=device), _Buffers({}, 0, 0))

    @classmethod
    def rebuilt(cls, positions: Tensor, parts: Mapping[str, tuple[Tensor, Tensor]], start: int, capacity: int) -> Cache:
        """A cache as it was saved: positions (B, M), keys and values (B, H, M, d) of each name, and its `geometry`.

        It lies in its buffers as before, so that what follows is computed alike, to the bit.
        """
        end = start + positions.shape[1]

        def placed(saved: Tensor) -> Tensor:
            buffer = saved.new_zeros(*saved.shape[:2], capacity, saved.shape[3])
            buffer[:, :, start:end] = saved
            return buffer

        buffers = {name: (placed(keys), placed(values)) for name, (keys, values) in parts.items()}
        return cls(positions, _Buffers(buffers, capacity, end), start)

    @property
    def geometry(self) -> tuple[int, int]:
        """(first column, columns in the buffers): where this cache lies in its buffers."""
        return self._start, self._buffers.capacity

    @property
    def size_bytes(self) -> int:
        """Memory held, free columns included."""
        tensors = (self.positions, *(tensor for part in self._buffers.parts.values() for tensor in part))
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    @property
    def _end(self) -> int:
        return self._start + self.positions.shape[1]

    @property
    def names(self) -> tuple[str, ...]:
        """Whose keys and values these are."""
        return tuple(self._buffers.parts)

    def read(self, name: str) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, M, d) of a name, views."""
        keys, values = self._buffers.parts[name]
        return keys[:, :, self._start : self._end], values[:, :, self._start : self._end]

    def extended(self, positions: Tensor, spare: int) -> Cache:
        """With columns at ``positions`` (B, n) behind the old ones, to be filled with `write`.

        ``spare``: free columns to add beyond these when the buffers have to be replaced.
        """
        count = positions.shape[1]
        cache = self if self._has_room(count) else self._copied(count + spare)
        cache._buffers.filled = cache._end + count
        return Cache(torch.cat([cache.positions, positions], dim=1), cache._buffers, cache._start)

    def write(self, name: str, keys: Tensor, values: Tensor) -> None:
        """Fill the last columns of a name, (B, H, n, d) each."""
        buffers, first = self._buffers, self._end - keys.shape[2]
        if name not in buffers.parts:
            assert first == 0, f"{name} has no columns for the frames before"
            buffers.parts[name] = tuple(  # type: ignore[assignment]
                new.new_zeros(*new.shape[:2], buffers.capacity, new.shape[3]) for new in (keys, values)
            )
        for buffer, new in zip(buffers.parts[name], (keys, values), strict=True):
            buffer[:, :, first : self._end] = new

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
        made_so = any(keys.is_inference() for keys, _ in self._buffers.parts.values())
        return free and (torch.is_inference_mode_enabled() or not made_so)

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

        parts = {name: (moved(keys), moved(values)) for name, (keys, values) in self._buffers.parts.items()}
        return Cache(positions, _Buffers(parts, columns + spare, columns))
