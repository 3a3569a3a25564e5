"""Tiling of attention: slices of queries with the slices of keys that they can see.

Tokens are ordered, so the keys that a query sees form a contiguous span. A tile is a slice of queries with the smallest
slice that contains all their spans, so that windowed patterns cost O(T x window) time and memory.

If the results of tiles can be merged, keys that are visible to many queries are handled first, as cores: large tiles
without a mask, which run at the speed of matrix products. Small tiles then cover the remaining keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from keystep.config.attention import AttentionPattern
from keystep.nn.pattern import opened, rank
from keystep.nn.places import Packing, Places

TILE = 192
"""Queries in a tile; 128 to 256 are similarly fast (benchmarks/attention.py --tile)."""
CORE = 768
"""Queries in a core, and the minimum number of its keys. Torch's CPU kernel uses larger blocks from 192 queries on, and
its largest from 768 on: 48, 60 and 77 GFLOP per CPU second for 128, 192 and 768, where a matrix product has 90.
"""


class Spans(NamedTuple):
    """The keys that each query sees, ``first <= index < stop``: (B, Tq) int32 each. No key: first > stop."""

    first: Tensor
    stop: Tensor

    def within(self, rows: slice, keys: slice) -> Tensor:
        """(B, rows, keys) bool."""
        index = torch.arange(keys.start, keys.stop, dtype=torch.int32, device=self.first.device)
        return (index >= self.first[:, rows, None]) & (index < self.stop[:, rows, None])

    @property
    def empty(self) -> Tensor:
        """(B, Tq) bool: queries that see no key."""
        return self.first >= self.stop


class Tile(NamedTuple):
    """A slice of queries, the slice of keys within the window, and the slice of strided keys further back."""

    rows: slice
    near: slice
    far: slice
    full: bool
    """All keys are visible to all queries, so no mask is needed."""
    repeats: bool
    """The mask is the same as that of the previous tile."""


@dataclass(frozen=True)
class TilePlan:
    """Everything that attention derives from positions alone, computed once for all blocks of a network.

    Attributes:
        tiles: each visible pair of a query and a key is in exactly one of them.
        overlap: whether the keys of a query may be in several tiles, whose results have to be merged.
        near, far: the keys that each query sees within the window, and among the strided ones. Masks are created from
            them on demand and not stored.
        far_keys: packing of the strided keys.
        blind: (B, Tq, 1) bool, queries that see no key; None if there are none.
    """

    tiles: list[Tile]
    overlap: bool
    near: Spans
    far: Spans
    far_keys: Packing | None
    blind: Tensor | None

    def masks(self, dtype: torch.dtype) -> Iterator[tuple[Tile, Tensor | None, Tensor | None]]:
        """Iterate over the tiles with their masks.

        The mask (B, 1, rows, near + far) is added to the scores; None: all keys are visible. It is only kept for the
        next tile, which often uses the same. Invisible keys get a very low finite score. A query that sees no key in
        the tile gets an open mask (`opened`). It is blind or, if tiles overlap, marked in the third item, (B, 1, rows)
        bool, so that it ignores the tile.
        """
        mask: Tensor | None = None
        elsewhere: Tensor | None = None
        for tile in self.tiles:
            if tile.full:
                mask = elsewhere = None
            elif mask is None or not tile.repeats:
                seen = self.near.within(tile.rows, tile.near)
                if length(tile.far):
                    seen = torch.cat([seen, self.far.within(tile.rows, tile.far)], dim=-1)
                elsewhere = ~seen.any(-1)[:, None] if self.overlap else None
                hidden = ~opened(seen)
                mask = torch.zeros_like(seen, dtype=dtype).masked_fill_(hidden, torch.finfo(dtype).min / 2)[:, None]
            yield tile, mask, elsewhere


def make_plan(pattern: AttentionPattern, queries: Places, key_places: Places | None, cores: bool) -> TilePlan:
    """The plan for these positions, with or without cores. It is cached in ``queries``, so that all blocks share it.

    The key positions are cached too, so that their id is not reused by another object.
    """
    name = (pattern, TILE, CORE, cores, None if key_places is None else id(key_places))
    if name not in queries.memo:
        plan = _plan(pattern, queries, queries if key_places is None else key_places, cores)
        queries.memo[name] = (plan, key_places)
    kept: TilePlan = queries.memo[name][0]
    return kept


def _plan(pattern: AttentionPattern, queries: Places, keys: Places, cores: bool) -> TilePlan:
    near, far_keys = _near_spans(pattern, queries, keys), None
    far = Spans(torch.zeros_like(near.first), torch.zeros_like(near.stop))
    if pattern.stride is not None:
        kept = keys.positions % pattern.stride == 0
        far_keys = Packing(kept if keys.valid is None else kept & keys.valid)
        far = _far_spans(pattern, queries, far_keys.places(keys))
    blind = near.empty & far.empty
    around = _tiles_around_cores(near, far, blind, keys.positions.shape[1]) if cores else []
    tiles = around or _tiles(near, far)
    return TilePlan(tiles, bool(around), near, far, far_keys, blind[..., None] if bool(blind.any()) else None)


def _near_spans(pattern: AttentionPattern, queries: Places, keys: Places) -> Spans:
    """Keys allowed by order and window."""
    stop = _search(rank(pattern, keys), keys.valid, rank(pattern, queries), right=True)
    first = torch.zeros_like(stop)
    if pattern.window is not None:
        first = _search(keys.positions, keys.valid, queries.positions - pattern.window, right=True)
        stop = torch.minimum(stop, _search(keys.positions, keys.valid, queries.positions + pattern.window))
    return _spans(first, stop, queries.valid, keys.positions.shape[1])


def _far_spans(pattern: AttentionPattern, queries: Places, far_keys: Places) -> Spans:
    """Strided keys beyond the window; the ranks of these older keys never exceed that of the query."""
    assert pattern.window is not None and pattern.memory is not None
    first = _search(far_keys.positions, far_keys.valid, queries.positions - pattern.memory, right=True)
    stop = _search(far_keys.positions, far_keys.valid, queries.positions - pattern.window, right=True)
    return _spans(first, stop, queries.valid, far_keys.positions.shape[1])


def _search(values: Tensor, valid: Tensor | None, wanted: Tensor, right: bool = False) -> Tensor:
    """(B, Tq): how many of a row's valid values (B, Tk) are smaller than the wanted ones (``right``: or equal)."""
    if valid is not None:  # sort padding last
        values = values.masked_fill(~valid, torch.iinfo(values.dtype).max)
    return torch.searchsorted(values.contiguous(), wanted.contiguous(), right=right, out_int32=True)


def _spans(first: Tensor, stop: Tensor, valid: Tensor | None, keys: int) -> Spans:
    """Replace the spans of padding, and empty spans, by ones that do not enlarge a tile."""
    none = first >= stop if valid is None else (first >= stop) | ~valid
    return Spans(first.masked_fill(none, keys), stop.masked_fill(none, 0))


def _tiles_around_cores(near: Spans, far: Spans, blind: Tensor, keys: int) -> list[Tile]:
    """The cores, followed by small tiles for the keys before and after them; empty if no core is large enough.

    blind: (B, Tq) bool, queries whose output is discarded, so they may see any core.
    """
    if keys < CORE:
        return []
    begin = _cut(near.first.masked_fill(blind, 0), CORE).amax((0, 2))  # (cores,)
    end = _cut(near.stop.masked_fill(blind, keys), CORE).amin((0, 2))
    worthwhile = end - begin >= CORE
    if not bool(worthwhile.any()):
        return []
    begin, end = (x.masked_fill(~worthwhile, keys) for x in (begin, end))  # no core: all keys count as before it
    nothing = slice(0, 0)
    cores = [
        Tile(rows, slice(first, stop), nothing, full=True, repeats=False)
        for rows, first, stop in zip(_slices(blind.shape[1], CORE), begin.tolist(), end.tolist(), strict=True)
        if first < stop
    ]
    begin, end = (x.repeat_interleave(CORE)[: blind.shape[1]] for x in (begin, end))  # (Tq,)
    before = _spans(near.first, torch.minimum(near.stop, begin), None, keys)
    after = _spans(torch.maximum(near.first, end), near.stop, None, keys)
    no_far = Spans(torch.zeros_like(far.first), torch.zeros_like(far.stop))
    return [*cores, *_tiles(before, far), *_tiles(after, no_far)]


def _tiles(near: Spans, far: Spans) -> list[Tile]:
    """Tiles of `TILE` queries with the smallest slices that contain all their keys, over the whole batch."""

    def bounds(spans: Spans) -> tuple[Tensor, ...]:
        """(tiles,) each: first key, end of the last key, whether all are visible, whether as in the previous tile."""
        first, stop = (_cut(x, TILE) for x in spans)
        start, end = first.amin((0, 2)), stop.amax((0, 2))
        full = (first.amax((0, 2)) == start) & (stop.amin((0, 2)) == end)
        start = torch.minimum(start, end)
        widths = (end - start)[:, None].expand(len(first), -1, 1)
        shape = torch.cat([first - start[:, None], stop - start[:, None], widths], dim=2)
        return start, end, full, (shape == shape.roll(1, 1)).all(2).all(0)

    near_start, near_end, near_full, near_again = bounds(near)
    far_start, far_end, far_full, far_again = bounds(far)
    columns = [near_start, near_end, far_start, far_end, near_full & far_full, near_again & far_again]
    return [
        Tile(rows, slice(a, b), slice(c, d), bool(full), bool(again) and length(rows) == TILE and rows.start > 0)
        for rows, (a, b, c, d, full, again) in zip(
            _slices(near.first.shape[1], TILE), torch.stack(columns).T.tolist(), strict=True
        )
        if a < b or c < d
    ]


def _cut(x: Tensor, size: int) -> Tensor:
    """(B, T) -> (B, tiles, size), padded with the last value."""
    count = -(-x.shape[1] // size)
    index = torch.arange(count * size, device=x.device).clamp(max=x.shape[1] - 1)
    return x[:, index].view(len(x), count, size)


def _slices(total: int, size: int) -> list[slice]:
    return [slice(begin, min(begin + size, total)) for begin in range(0, total, size)]


def length(span: slice) -> int:
    """Number of indices in a slice."""
    return int(span.stop - span.start)
