"""Key-value cache of past frames in preallocated buffers, which avoids a copy at each step.

A `Cache` is an immutable value: it refers to some columns of buffers that it may share with later caches. New columns
are written after all columns in use. If a second continuation of the same past is started, its columns are already
taken, so the buffers are copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

EMPTY = -1
"""Position of a column that holds no frame of a stream, because the stream was reset or was shorter than the others."""


class _Buffers:
    """Keys and values of each layer, (B, H, capacity, d) each. filled: number of columns in use."""

    def __init__(self, parts: dict[str, tuple[Tensor, Tensor]], capacity: int, filled: int) -> None:
        self.parts, self.capacity, self.filled = parts, capacity, filled


@dataclass(frozen=True, eq=False)
class Cache:
    """``M`` columns of keys and values, the same for all layers.

    positions: (B, M) int64 frame index of each column in its stream, ascending, or `EMPTY`.
    """

    positions: Tensor
    _buffers: _Buffers
    _start: int = 0

    @classmethod
    def empty(cls, streams: int, device: torch.device) -> Cache:
        """A cache without columns. The buffers of a layer are allocated when it is first written."""
        return cls(torch.zeros(streams, 0, dtype=torch.int64, device=device), _Buffers({}, 0, 0))

    @classmethod
    def from_saved(
        cls, positions: Tensor, parts: Mapping[str, tuple[Tensor, Tensor]], start: int, capacity: int
    ) -> Cache:
        """Restore a saved cache.

        Args:
            positions: (B, M).
            parts: layer -> keys and values, (B, H, M, d) each.
            start, capacity: its `geometry`, so that further results are bit-identical.
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
        """(first column, number of columns in the buffers)."""
        return self._start, self._buffers.capacity

    @property
    def size_bytes(self) -> int:
        """Memory of the buffers, including free columns."""
        tensors = (self.positions, *(tensor for part in self._buffers.parts.values() for tensor in part))
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    @property
    def _end(self) -> int:
        return self._start + self.positions.shape[1]

    @property
    def names(self) -> tuple[str, ...]:
        """The layers with keys and values."""
        return tuple(self._buffers.parts)

    def read(self, name: str) -> tuple[Tensor, Tensor]:
        """Views of the keys and values (B, H, M, d) of a layer."""
        keys, values = self._buffers.parts[name]
        return keys[:, :, self._start : self._end], values[:, :, self._start : self._end]

    def extend(self, positions: Tensor, spare: int) -> Cache:
        """Append columns at ``positions`` (B, n), to be filled with `write`.

        spare: number of additional free columns if the buffers have to be reallocated.
        """
        count = positions.shape[1]
        cache = self if self._has_room(count) else self._copy(count + spare)
        cache._buffers.filled = cache._end + count
        return Cache(torch.cat([cache.positions, positions], dim=1), cache._buffers, cache._start)

    def write(self, name: str, keys: Tensor, values: Tensor) -> None:
        """Fill the last columns of a layer, (B, H, n, d) each."""
        buffers, first = self._buffers, self._end - keys.shape[2]
        if name not in buffers.parts:
            assert first == 0, f"{name} has no columns for the earlier frames"
            buffers.parts[name] = tuple(  # type: ignore[assignment]
                new.new_zeros(*new.shape[:2], buffers.capacity, new.shape[3]) for new in (keys, values)
            )
        for buffer, new in zip(buffers.parts[name], (keys, values), strict=True):
            buffer[:, :, first : self._end] = new

    def keep(self, kept: Tensor) -> Cache:
        """Drop the oldest columns that no stream keeps. kept: (B, M) bool.

        Other columns that no stream keeps become `EMPTY` and are dropped by the next copy.
        """
        wanted = kept.any(0)
        lead = int(wanted.int().argmax()) if bool(wanted.any()) else len(wanted)
        positions = self.positions.masked_fill(~kept, EMPTY)[:, lead:]
        return Cache(positions, self._buffers, self._start + lead)

    def without(self, streams: Sequence[int]) -> Cache:
        """Forget the past of some streams."""
        positions = self.positions.clone()
        positions[list(streams)] = EMPTY
        return Cache(positions, self._buffers, self._start)

    def reclaim(self, later: Cache) -> None:
        """Free the columns of a later cache that is no longer used."""
        if later._buffers is self._buffers and later._end == self._buffers.filled:
            self._buffers.filled = self._end

    def _has_room(self, count: int) -> bool:
        """Whether columns can be written after those of this cache.

        They must be free, and torch must allow it: tensors created in inference mode can only be written in inference
        mode.
        """
        free = self._end == self._buffers.filled and self._end + count <= self._buffers.capacity
        made_so = any(keys.is_inference() for keys, _ in self._buffers.parts.values())
        return free and (torch.is_inference_mode_enabled() or not made_so)

    def _copy(self, spare: int) -> Cache:
        """Copy to new buffers with ``spare`` free columns."""
        real = self.positions != EMPTY
        columns = int(real.sum(1).max()) if real.numel() else 0
        index = torch.argsort(~real, dim=1, stable=True)[:, :columns]  # (B, K): frames in order, then empty columns
        positions = self.positions.gather(1, index)

        def moved(buffer: Tensor) -> Tensor:
            old = buffer[:, :, self._start : self._end]
            streams, heads, _, width = old.shape
            new = old.new_zeros(streams, heads, columns + spare, width)  # masked values must be finite
            new[:, :, :columns] = old.gather(2, index[:, None, :, None].expand(-1, heads, -1, width))
            return new

        parts = {name: (moved(keys), moved(values)) for name, (keys, values) in self._buffers.parts.items()}
        return Cache(positions, _Buffers(parts, columns + spare, columns))
