"""The one attention seam: who sees whom, and two ways to compute it.

`attend_reference` is slow and obvious. `attend` gives the same numbers: full attention through torch's fused kernels,
everything else through tiles of queries against the slice of keys that they can see, so that windowed patterns cost
O(T x window) in time and memory, and no T x T tensor exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from keystep.errors import InputError
from keystep.nn.places import Packing, Places

TILE = 256
"""Queries in a tile; 128 to 512 differ by less than the noise (benchmarks/attention.py)."""


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

    Keys stand at ``key_places`` (by default the queries'). Padding is seen by nobody, and a query that sees no key
    gives zeros.
    """
    own = key_places is None
    keys = places if key_places is None else key_places
    if pattern.kind == "bidirectional" and pattern.window is None:
        mask = None if keys.valid is None else keys.valid[:, None, None]
        out = scaled_dot_product_attention(query, key, value, attn_mask=mask)
    elif pattern.kind == "causal" and pattern.window is None and own:
        out = scaled_dot_product_attention(query, key, value, is_causal=True)  # padding comes last: nobody sees it
    else:
        return _attend_in_tiles(query, key, value, pattern, places, keys)
    return out if places.valid is None else out.masked_fill(~places.valid[:, None, :, None], 0.0)


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
    return (weights @ value.to(wide)).to(query.dtype)


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


@dataclass(frozen=True)
class _Tile:
    """Queries ``start:stop``, the slice of keys near them, and the slice of strided keys farther back."""

    start: int
    stop: int
    near: slice
    far: slice


@dataclass(frozen=True)
class _Plan:
    """Everything about a tiled attention that is not a float: the tiles, and the masks made from places."""

    pattern: AttentionPattern
    queries: Places
    keys: Places
    far_keys: Places
    tiles: list[_Tile]

    def mask(self, tile: _Tile) -> Tensor:
        """(B, 1, queries, near + far keys) bool."""
        queries = self.queries[tile.start : tile.stop]
        seen = _near(self.pattern, queries, self.keys[tile.near])
        if tile.far.stop > tile.far.start:
            seen = torch.cat([seen, _far(self.pattern, queries, self.far_keys[tile.far])], dim=-1)
        return seen[:, None]


def _attend_in_tiles(
    query: Tensor, key: Tensor, value: Tensor, pattern: AttentionPattern, queries: Places, keys: Places
) -> Tensor:
    if pattern.stride is None:
        far_key, far_value, far_keys = key[:, :, :0], value[:, :, :0], keys[:0]
    else:
        kept = keys.positions % pattern.stride == 0
        packing = Packing(kept if keys.valid is None else kept & keys.valid)
        far_keys = packing.places(keys)
        index = packing.index[:, None, :, None].expand(-1, key.shape[1], -1, key.shape[3])  # (B, H, M, d)
        far_key, far_value = key.gather(2, index), value.gather(2, index)
    plan = _Plan(pattern, queries, keys, far_keys, _tiles(pattern, queries, keys, far_keys))
    out: Tensor = _Tiled.apply(query, key, value, far_key, far_value, plan)  # type: ignore[no-untyped-call]
    return out


def _tiles(pattern: AttentionPattern, queries: Places, keys: Places, far_keys: Places) -> list[_Tile]:
    """Tiles of `TILE` queries with the smallest slices that hold all their visible keys, over the whole batch."""
    length = queries.positions.shape[1]
    starts = torch.arange(0, length, TILE, device=queries.positions.device)
    first, last = _ends(queries.positions, queries.valid, starts)  # (B, tiles) positions of first and last real query
    rank = _rank(pattern, queries)
    _, last_rank = _ends(rank, queries.valid, starts)
    key_positions = _padded_high(keys.positions, keys.valid)
    key_rank = _padded_high(_rank(pattern, keys), keys.valid)
    stop = torch.searchsorted(key_rank, last_rank, right=True)  # what the order allows
    start = torch.zeros_like(stop)
    far_start, far_stop = torch.zeros_like(stop), torch.zeros_like(stop)
    if pattern.window is not None:
        start = torch.searchsorted(key_positions, first - pattern.window, right=True)
        stop = torch.minimum(stop, torch.searchsorted(key_positions, last + pattern.window))
    if pattern.stride is not None and pattern.window is not None and pattern.memory is not None:
        far_positions = _padded_high(far_keys.positions, far_keys.valid)
        far_start = torch.searchsorted(far_positions, first - pattern.memory, right=True)
        far_stop = torch.searchsorted(far_positions, last - pattern.window, right=True)
    bounds = [
        start.amin(0),
        torch.maximum(start, stop).amax(0),
        far_start.amin(0),
        torch.maximum(far_start, far_stop).amax(0),
    ]
    return [
        _Tile(begin, min(begin + TILE, length), slice(a, b), slice(c, d))
        for begin, a, b, c, d in torch.stack([starts, *bounds]).T.tolist()
    ]


def _ends(values: Tensor, valid: Tensor | None, starts: Tensor) -> tuple[Tensor, Tensor]:
    """(B, tiles) each: the value of the first query of a tile and of its last real one.

    A tile of padding alone repeats the row's last real query, which costs nothing and needs no special case.
    """
    if valid is not None:
        values = values.masked_fill(~valid, values.min().item() if values.numel() else 0).cummax(1).values
    ends = (starts + TILE - 1).clamp(max=values.shape[1] - 1)
    return values[:, starts].contiguous(), values[:, ends].contiguous()


def _padded_high(values: Tensor, valid: Tensor | None) -> Tensor:
    """Padding moved behind every real value, so that a row stays sorted."""
    high = torch.iinfo(values.dtype).max // 2
    return (values if valid is None else values.masked_fill(~valid, high)).contiguous()


class _Tiled(torch.autograd.Function):
    """Attention tile by tile, forward and backward.

    As one function because autograd over a loop of slices allocates a full-size gradient for every slice, which makes
    the backward pass quadratic.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, far_key: Tensor, far_value: Tensor, plan: _Plan
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, far_key, far_value)
        ctx.plan = plan
        out = torch.empty_like(query)
        for tile in plan.tiles:
            mask = plan.mask(tile)
            some = mask.any(-1, keepdim=True)  # rows without a key would give NaN
            keys, values = _keys(key, far_key, tile), _keys(value, far_value, tile)
            if keys.shape[2] == 0:
                out[:, :, tile.start : tile.stop] = 0.0
                continue
            part = scaled_dot_product_attention(
                query[:, :, tile.start : tile.stop], keys, values, attn_mask=mask | ~some
            )
            out[:, :, tile.start : tile.stop] = part.masked_fill(~some, 0.0)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, far_key, far_value = ctx.saved_tensors
        grad_query = torch.zeros_like(query)
        grads = [torch.zeros_like(x) for x in (key, value, far_key, far_value)]
        grad_key, grad_value, grad_far_key, grad_far_value = grads
        scale, wide = query.shape[-1] ** -0.5, torch.promote_types(query.dtype, torch.float32)
        for tile in ctx.plan.tiles:
            rows, mask = slice(tile.start, tile.stop), ctx.plan.mask(tile)
            keys, values = _keys(key, far_key, tile), _keys(value, far_value, tile)
            scores = (query[:, :, rows] @ keys.transpose(-1, -2)).to(wide) * scale
            weights = scores.masked_fill(~mask, float("-inf")).softmax(-1).nan_to_num(0.0)
            grad = grad_out[:, :, rows]
            grad_weights = (grad @ values.transpose(-1, -2)).to(weights.dtype)
            grad_scores = weights * (grad_weights - (weights * grad_weights).sum(-1, keepdim=True)) * scale
            grad_scores, weights = grad_scores.to(query.dtype), weights.to(query.dtype)
            grad_query[:, :, rows] = grad_scores @ keys
            split = tile.near.stop - tile.near.start
            for near, far, part in (
                (grad_key, grad_far_key, grad_scores.transpose(-1, -2) @ query[:, :, rows]),
                (grad_value, grad_far_value, weights.transpose(-1, -2) @ grad),
            ):
                near[:, :, tile.near] += part[:, :, :split]
                far[:, :, tile.far] += part[:, :, split:]
        return grad_query, grad_key, grad_value, grad_far_key, grad_far_value, None


def _keys(near: Tensor, far: Tensor, tile: _Tile) -> Tensor:
    """(B, H, near + far, d) keys or values of one tile."""
    if tile.far.stop == tile.far.start:
        return near[:, :, tile.near]
    return torch.cat([near[:, :, tile.near], far[:, :, tile.far]], dim=2)
