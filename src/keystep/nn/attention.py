"""The one attention seam: who sees whom, and two ways to compute it.

`attend_reference` is slow and obvious. `attend` gives the same numbers: full attention through torch's fused kernels,
everything else through tiles of queries against the slice of keys that they can see, so that windowed patterns cost
O(T x window) in time and memory, and no T x T tensor exists.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

from keystep.errors import InputError
from keystep.nn.places import Packing, Places

TILE = 128
"""Queries in a tile; 64 to 256 differ by little, 512 costs a fifth more (benchmarks/attention.py --tile)."""


class AttentionPattern(BaseModel):
    """Which frames a frame sees.

    A key is visible when the order allows it and it is near enough: less than ``window`` frames away, or, with
    ``stride``, one of every ``stride``-th older frames less than ``memory`` frames away.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: Literal["bidirectional", "causal", "block_causal", "segment_causal"] = "bidirectional"
    """``bidirectional``: all frames. ``causal``: none that is later. ``block_causal``: the own block of ``block``
    frames and all earlier ones. ``segment_causal``: the own true segment and all earlier ones (ORACLE: needs true
    boundaries)."""
    block: int | None = Field(default=None, ge=1)
    """block_causal: frames in a block."""
    window: int | None = Field(default=None, ge=1)
    """See less than this many frames far; a causal window of W sees W frames, the own included. None: no limit."""
    stride: int | None = Field(default=None, ge=1)
    """Beyond the window, still see the past frames whose index is a multiple of this."""
    memory: int | None = Field(default=None, ge=2)
    """How far back strided frames are seen (less than this many frames)."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.block is None) == (self.kind == "block_causal"):
            raise ValueError(f"block is {self.block}; kind {self.kind} needs {'one' if self.block is None else 'none'}")
        if (self.stride is None) != (self.memory is None):
            raise ValueError(f"stride {self.stride} and memory {self.memory} come together or not at all")
        if self.memory is not None and (self.window is None or self.memory <= self.window):
            raise ValueError(f"memory {self.memory} must reach farther than the window, {self.window}")
        return self

    @property
    def oracle(self) -> bool:
        """Whether it reads true segment boundaries."""
        return self.kind == "segment_causal"

    def __str__(self) -> str:
        parts = [self.kind if self.block is None else f"{self.kind}({self.block})"]
        if self.window is not None:
            parts.append(f"window {self.window}")
        if self.stride is not None:
            parts.append(f"every {self.stride} to {self.memory}")
        return ", ".join(parts) + (" (ORACLE)" if self.oracle else "")


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: AttentionPattern,
    places: Places,
    key_places: Places | None = None,
) -> Tensor:
    """Softmax attention within the pattern, (B, H, Tq, d) with keys and values (B, H, Tk, d) -> (B, H, Tq, d).

    Keys stand at ``key_places`` (by default the queries'). Padding is seen by nobody, though it must be finite (zero
    times NaN is NaN), and a query that sees no key gives zeros.
    """
    keys = places if key_places is None else key_places
    if pattern.window is None and pattern.kind == "bidirectional":
        return _attend_to_all(query, key, value, places, keys)
    if pattern.window is None and pattern.kind == "causal" and key_places is None:
        out = scaled_dot_product_attention(query, key, value, is_causal=True)  # padding comes last: nobody sees it
        return out if places.valid is None else out.masked_fill(~places.valid[:, None, :, None], 0.0)
    return _attend_in_tiles(query, key, value, _planned(pattern, places, key_places))


def attend_seen(query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None) -> Tensor:
    """The same for a few queries whose visible keys are known: (B, H, n, d) over (B, H, M, d).

    seen: (B, n, M) bool, at least one key for each query; None where all see all.
    """
    return scaled_dot_product_attention(query, key, value, attn_mask=None if seen is None else seen[:, None])


def _attend_to_all(query: Tensor, key: Tensor, value: Tensor, places: Places, keys: Places) -> Tensor:
    """Every query over every real key, without a T x T mask."""
    blind: Tensor | None = None
    if keys.valid is None:
        out = scaled_dot_product_attention(query, key, value)
    else:
        blind = ~keys.valid.any(1)[:, None, None, None]  # they look at padding: a softmax over nothing is NaN
        out = scaled_dot_product_attention(query, key, value, attn_mask=keys.valid[:, None, None] | blind)
    if places.valid is not None:
        padding = ~places.valid[:, None, :, None]
        blind = padding if blind is None else padding | blind
    return out if blind is None else out.masked_fill(blind, 0.0)


def attend_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: AttentionPattern,
    places: Places,
    key_places: Places | None = None,
) -> Tensor:
    """The same as `attend`, slow and obvious: all T x T scores, in float32 at least."""
    keys = places if key_places is None else key_places
    mask = visible(pattern, places, keys)[:, None]  # (B, 1, Tq, Tk)
    wide = torch.promote_types(query.dtype, torch.float32)
    scores = query.to(wide) @ key.to(wide).transpose(-1, -2) / query.shape[-1] ** 0.5
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1).nan_to_num(0.0)  # rows without a key: zeros
    out: Tensor = weights @ value.to(wide)
    return out.to(query.dtype)


def visible(pattern: AttentionPattern, queries: Places, keys: Places) -> Tensor:
    """(B, Tq, Tk) bool: the rule, of which everything else is a faster form."""
    return _near(pattern, queries, keys) | _far(pattern, queries, keys)


def _near(pattern: AttentionPattern, queries: Places, keys: Places) -> Tensor:
    """What the order and the window allow."""
    distance = _distance(queries, keys)
    seen = _ordered(pattern, queries, keys)
    return seen if pattern.window is None else seen & (distance.abs() < pattern.window)


def _far(pattern: AttentionPattern, queries: Places, keys: Places) -> Tensor:
    """What the strided memory adds beyond the window; never what the window shows already."""
    if pattern.stride is None or pattern.window is None or pattern.memory is None:
        return torch.zeros((), dtype=torch.bool, device=queries.positions.device)
    distance = _distance(queries, keys)
    kept = (keys.positions % pattern.stride == 0)[:, None]
    return _ordered(pattern, queries, keys) & kept & (distance >= pattern.window) & (distance < pattern.memory)


def _distance(queries: Places, keys: Places) -> Tensor:
    return queries.positions[:, :, None] - keys.positions[:, None]


def _ordered(pattern: AttentionPattern, queries: Places, keys: Places) -> Tensor:
    """(B, Tq, Tk): both are real, and the key's turn has come."""
    query_rank, key_rank = _rank(pattern, queries), _rank(pattern, keys)
    seen = key_rank[:, None] <= query_rank[:, :, None]
    if keys.valid is not None:
        seen = seen & keys.valid[:, None]
    return seen if queries.valid is None else seen & queries.valid[:, :, None]


def _rank(pattern: AttentionPattern, places: Places) -> Tensor:
    """(B, T) int64: a query sees keys of its own rank and below."""
    if pattern.kind == "causal":
        return places.positions
    if pattern.kind == "block_causal":
        assert pattern.block is not None
        return places.positions // pattern.block
    if pattern.kind == "segment_causal":
        if places.segments is None:
            raise InputError("segment_causal attention needs segment_lengths, the true segment boundaries (ORACLE)")
        return places.segments
    return torch.zeros_like(places.positions)


class _Spans(NamedTuple):
    """The keys that each query sees, ``first <= index < stop``: (B, Tq) int32 each. No key: first > stop."""

    first: Tensor
    stop: Tensor

    def within(self, rows: slice, keys: slice) -> Tensor:
        """(B, rows, keys) bool."""
        index = torch.arange(keys.start, keys.stop, dtype=torch.int32, device=self.first.device)
        return (index >= self.first[:, rows, None]) & (index < self.stop[:, rows, None])


class _Tile(NamedTuple):
    """A slice of queries, the slice of keys near them, and the slice of strided keys farther back."""

    rows: slice
    near: slice
    far: slice
    full: bool
    """Every query sees all these keys, so no mask is needed."""
    repeats: bool
    """The mask is that of the tile before."""


@dataclass(frozen=True)
class _Plan:
    """What attention works out from places alone, once for all blocks of a network.

    Tokens are in order, so a query's near keys are neighbours, and so are its strided keys among the strided ones: two
    spans a query, from which each tile's mask is made when it is needed and forgotten.

    far: the strided keys, moved together.
    blind: (B, Tq, 1) bool, the queries that see no key; None when there are none.
    """

    tiles: list[_Tile]
    near_spans: _Spans
    far_spans: _Spans
    far: Packing | None
    blind: Tensor | None

    def masks(self, dtype: torch.dtype) -> Iterator[tuple[_Tile, Tensor | None]]:
        """Each tile with its mask (B, 1, rows, near + far): 0 where a key is seen, else -inf; None: all are seen.

        Made when it is needed and kept for the next tile only, which often needs the same.
        """
        mask: Tensor | None = None
        for tile in self.tiles:
            if tile.full:
                mask = None
            elif mask is None or not tile.repeats:
                seen = self.near_spans.within(tile.rows, tile.near)
                if _length(tile.far):
                    seen = torch.cat([seen, self.far_spans.within(tile.rows, tile.far)], dim=-1)
                if self.blind is not None:  # they look at everything, because a softmax over nothing is NaN
                    seen = seen | self.blind[:, tile.rows]
                mask = torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, float("-inf"))[:, None]
            yield tile, mask

    def attend(self, tile: _Tile, mask: Tensor | None, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """One tile's queries (B, H, rows, d) over its near and far keys (B, H, near + far, d)."""
        out = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return out if self.blind is None else out.masked_fill(self.blind[:, None, tile.rows], 0.0)


def _planned(pattern: AttentionPattern, queries: Places, key_places: Places | None) -> _Plan:
    """The plan, kept with the queries' places so that the next block finds it.

    The keys' places are kept too, which makes sure that no other object gets their id.
    """
    name = (pattern, TILE, None if key_places is None else id(key_places))
    if name not in queries.memo:
        plan = _plan(pattern, queries, queries if key_places is None else key_places)
        queries.memo[name] = (plan, key_places)
    kept: _Plan = queries.memo[name][0]
    return kept


def _plan(pattern: AttentionPattern, queries: Places, keys: Places) -> _Plan:
    near = _near_spans(pattern, queries, keys)
    blind = near.first >= near.stop
    if pattern.stride is None:
        far_keys, far = None, _Spans(torch.zeros_like(near.first), torch.zeros_like(near.stop))
    else:
        kept = keys.positions % pattern.stride == 0
        far_keys = Packing(kept if keys.valid is None else kept & keys.valid)
        far = _far_spans(pattern, queries, far_keys.places(keys))
        blind &= far.first >= far.stop
    return _Plan(_tiles(near, far), near, far, far_keys, blind[..., None] if bool(blind.any()) else None)


def _near_spans(pattern: AttentionPattern, queries: Places, keys: Places) -> _Spans:
    """What `_near` allows."""
    stop = _search(_rank(pattern, keys), keys.valid, _rank(pattern, queries), right=True)
    first = torch.zeros_like(stop)
    if pattern.window is not None:
        first = _search(keys.positions, keys.valid, queries.positions - pattern.window, right=True)
        stop = torch.minimum(stop, _search(keys.positions, keys.valid, queries.positions + pattern.window))
    return _spans(first, stop, queries.valid, keys.positions.shape[1])


def _far_spans(pattern: AttentionPattern, queries: Places, far_keys: Places) -> _Spans:
    """What `_far` allows; older keys are in order for every kind."""
    assert pattern.window is not None and pattern.memory is not None
    first = _search(far_keys.positions, far_keys.valid, queries.positions - pattern.memory, right=True)
    stop = _search(far_keys.positions, far_keys.valid, queries.positions - pattern.window, right=True)
    return _spans(first, stop, queries.valid, far_keys.positions.shape[1])


def _search(values: Tensor, valid: Tensor | None, wanted: Tensor, right: bool = False) -> Tensor:
    """(B, Tq): how many of a row's real values (B, Tk) are smaller than the wanted ones; ``right``: or equal."""
    if valid is not None:  # padding behind every real value, so that a row is sorted
        values = values.masked_fill(~valid, torch.iinfo(values.dtype).max)
    return torch.searchsorted(values.contiguous(), wanted.contiguous(), right=right, out_int32=True)


def _spans(first: Tensor, stop: Tensor, valid: Tensor | None, keys: int) -> _Spans:
    """Spans of padding, and spans without a key, moved to where they widen no tile."""
    none = first >= stop if valid is None else (first >= stop) | ~valid
    return _Spans(first.masked_fill(none, keys), stop.masked_fill(none, 0))


def _tiles(near: _Spans, far: _Spans) -> list[_Tile]:
    """Tiles of `TILE` queries with the smallest slices that hold all their visible keys, over the whole batch."""
    length = near.first.shape[1]
    count = -(-length // TILE)
    index = torch.arange(count * TILE, device=near.first.device).clamp(max=length - 1)  # the last query fills up

    def bounds(spans: _Spans) -> tuple[Tensor, ...]:
        """(tiles,) each: first key of any query, behind the last one of any, all seen, seen as in the tile before."""
        first, stop = (x[:, index].view(len(x), count, TILE) for x in spans)
        start, end = first.amin((0, 2)), stop.amax((0, 2))
        full = (first.amax((0, 2)) == start) & (stop.amin((0, 2)) == end)
        start = torch.minimum(start, end)
        widths = (end - start)[:, None].expand(len(first), -1, 1)
        shape = torch.cat([first - start[:, None], stop - start[:, None], widths], dim=2)
        return start, end, full, (shape == shape.roll(1, 1)).all(2).all(0)

    near_start, near_end, near_full, near_again = bounds(near)
    far_start, far_end, far_full, far_again = bounds(far)
    columns = [near_start, near_end, far_start, far_end, near_full & far_full, near_again & far_again]
    rows = [slice(begin, min(begin + TILE, length)) for begin in range(0, length, TILE)]
    return [
        _Tile(r, slice(a, b), slice(c, d), bool(full), bool(again) and _length(r) == TILE and r.start > 0)
        for r, (a, b, c, d, full, again) in zip(rows, torch.stack(columns).T.tolist(), strict=True)
    ]


def _length(span: slice) -> int:
    return int(span.stop - span.start)


def _attend_in_tiles(query: Tensor, key: Tensor, value: Tensor, plan: _Plan) -> Tensor:
    if plan.far is None:
        far_key, far_value = key[:, :, :0], value[:, :, :0]
    else:
        index = plan.far.index[:, None, :, None].expand(-1, key.shape[1], -1, key.shape[3])  # (B, H, M, d)
        far_key, far_value = key.gather(2, index), value.gather(2, index)
    out: Tensor = _Tiled.apply(query, key, value, far_key, far_value, plan)  # type: ignore[no-untyped-call]
    return out


class _Tiled(torch.autograd.Function):
    """Attention tile by tile, forward and backward.

    As one function because autograd over a loop of slices allocates a full-size gradient for every slice, which makes
    the backward pass quadratic. The backward pass computes each tile again, so nothing of its size is kept.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, far_key: Tensor, far_value: Tensor, plan: _Plan
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, far_key, far_value)
        ctx.plan = plan
        out = torch.empty_like(query)
        for tile, mask in plan.masks(query.dtype):
            keys, values = _keys(key, far_key, tile), _keys(value, far_value, tile)
            if keys.shape[2] == 0:
                out[:, :, tile.rows] = 0.0
            else:
                out[:, :, tile.rows] = plan.attend(tile, mask, query[:, :, tile.rows], keys, values)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, far_key, far_value = ctx.saved_tensors
        grad_query = torch.zeros_like(query)
        grads = [torch.zeros_like(x) for x in (key, value, far_key, far_value)]
        grad_key, grad_value, grad_far_key, grad_far_value = grads
        for tile, mask in ctx.plan.masks(query.dtype):
            keys, values = _keys(key, far_key, tile), _keys(value, far_value, tile)
            if keys.shape[2] == 0:
                continue
            inputs = [x.detach().requires_grad_() for x in (query[:, :, tile.rows], keys, values)]
            with torch.enable_grad():
                out = ctx.plan.attend(tile, mask, *inputs)
            parts = torch.autograd.grad(out, inputs, grad_out[:, :, tile.rows])
            grad_query[:, :, tile.rows] = parts[0]
            split = _length(tile.near)
            for near, far, part in ((grad_key, grad_far_key, parts[1]), (grad_value, grad_far_value, parts[2])):
                near[:, :, tile.near] += part[:, :, :split]
                far[:, :, tile.far] += part[:, :, split:]
        return grad_query, grad_key, grad_value, grad_far_key, grad_far_value, None


def _keys(near: Tensor, far: Tensor, tile: _Tile) -> Tensor:
    """(B, H, near + far, d) keys or values of one tile."""
    if not _length(tile.far):
        return near[:, :, tile.near]
    return torch.cat([near[:, :, tile.near], far[:, :, tile.far]], dim=2)
