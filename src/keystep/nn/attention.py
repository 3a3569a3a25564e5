"""Attention, with two implementations of the same interface.

`attend_reference` is slow and simple. `attend` gives the same results: full attention with torch's fused kernels, and
other patterns in tiles of queries and the keys that they can see, so that no T x T tensor is created.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

from keystep.config.attention import AttentionPattern
from keystep.nn.pattern import opened, visible
from keystep.nn.places import Places
from keystep.nn.tiles import Tile, TilePlan, length, make_plan

__all__ = ["AttentionPattern", "attend", "attend_reference", "opened", "visible"]

KERNEL = "_scaled_dot_product_flash_attention_for_cpu"
"""A torch CPU kernel that also returns the logsumexp of the scores of each query, so that attention over two sets of
keys can be merged. Its ``_backward`` accepts merged values.
"""


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: AttentionPattern,
    places: Places,
    key_places: Places | None = None,
) -> Tensor:
    """Softmax attention within a pattern.

    Args:
        query: (B, H, Tq, d).
        key, value: (B, H, Tk, d). Padding is never attended to, but must be finite (0 * NaN is NaN).
        pattern: which keys a query can see.
        places: positions of the queries.
        key_places: positions of the keys. None: the same as the queries.

    Returns:
        (B, H, Tq, d); zeros for queries that see no key.
    """
    keys = places if key_places is None else key_places
    if pattern.window is None and pattern.kind == "bidirectional":
        return _attend_to_all(query, key, value, places, keys)
    if pattern.window is None and pattern.kind == "causal" and key_places is None:
        out = scaled_dot_product_attention(query, key, value, is_causal=True)  # trailing padding is never visible
        return out if places.valid is None else out.masked_fill(~places.valid[:, None, :, None], 0.0)
    return _attend_in_tiles(query, key, value, make_plan(pattern, places, key_places, cores=_can_merge(query)))


def attend_seen(query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None) -> Tensor:
    """Softmax attention with an explicit mask: (B, H, n, d) queries, (B, H, M, d) keys and values.

    seen: (B, n, M) bool, with at least one key for each query (see `opened`); None if all are visible.
    """
    return scaled_dot_product_attention(query, key, value, attn_mask=None if seen is None else seen[:, None])


def _attend_to_all(query: Tensor, key: Tensor, value: Tensor, places: Places, keys: Places) -> Tensor:
    """Attention of every query to every valid key, without a T x T mask."""
    blind: Tensor | None = None
    if keys.valid is None:
        out = scaled_dot_product_attention(query, key, value)
    else:
        blind = ~keys.valid.any(1)[:, None, None, None]
        out = scaled_dot_product_attention(query, key, value, attn_mask=opened(keys.valid[:, None, None]))
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
    """Reference implementation of `attend`: all T x T scores, at least in float32."""
    keys = places if key_places is None else key_places
    mask = visible(pattern, places, keys)[:, None]  # (B, 1, Tq, Tk)
    wide = torch.promote_types(query.dtype, torch.float32)
    scores = query.to(wide) @ key.to(wide).transpose(-1, -2) / query.shape[-1] ** 0.5
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1).nan_to_num(0.0)  # zeros if no key is visible
    out: Tensor = weights @ value.to(wide)
    return out.to(query.dtype)


def _attend_in_tiles(query: Tensor, key: Tensor, value: Tensor, plan: TilePlan) -> Tensor:
    if plan.far_keys is None:
        far_key, far_value = key[:, :, :0], value[:, :, :0]
    else:
        index = plan.far_keys.index[:, None, :, None].expand(-1, key.shape[1], -1, key.shape[3])  # (B, H, M, d)
        far_key, far_value = key.gather(2, index), value.gather(2, index)
    weighed = plan.overlap or (torch.is_grad_enabled() and _can_merge(query))  # cheaper backward pass
    out: Tensor = _Tiled.apply(query, key, value, far_key, far_value, plan, weighed)  # type: ignore[no-untyped-call]
    return out


class _Tiled(torch.autograd.Function):
    """Attention tile by tile, forward and backward.

    Autograd over a loop of slices would allocate a full-size gradient for every slice, which makes the backward pass
    quadratic; hence a custom function. The backward pass recomputes the weights of each tile. If ``weighed``, a kernel
    that returns logsumexp is used, so that tiles can be merged and the backward pass need not recompute the outputs.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        far_key: Tensor,
        far_value: Tensor,
        plan: TilePlan,
        weighed: bool,
    ) -> Tensor:
        batch, heads, rows, width = query.shape
        out = query.new_zeros(batch, rows, heads, width).transpose(1, 2)  # memory layout of the output projection
        total = query.new_full((batch, heads, rows) if weighed else (), float("-inf"))  # logsumexp
        for tile, mask, elsewhere in plan.masks(query.dtype):
            part, inputs = out[:, :, tile.rows], _inputs(tile, query, key, value, far_key, far_value)
            if weighed:
                new, new_total = _kernel()(*inputs, attn_mask=mask)
                if elsewhere is not None:  # weight 0 for queries without a key in this tile
                    new_total.masked_fill_(elsewhere, torch.finfo(query.dtype).min / 2)
                _merge(part, total[:, :, tile.rows], new, new_total)
            else:
                part.copy_(scaled_dot_product_attention(*inputs, attn_mask=mask))
        if plan.blind is not None:
            out.masked_fill_(plan.blind[:, None], 0.0)
        ctx.save_for_backward(query, key, value, far_key, far_value, out, total)
        ctx.plan, ctx.weighed = plan, weighed
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, far_key, far_value, out, total = ctx.saved_tensors
        if ctx.plan.blind is not None:
            grad_out = grad_out.masked_fill(ctx.plan.blind[:, None], 0.0)
        grads = [torch.zeros_like(x) for x in (query, key, value, far_key, far_value)]
        grad_query, grad_key, grad_value, grad_far_key, grad_far_value = grads
        for tile, mask, elsewhere in ctx.plan.masks(query.dtype):
            inputs = _inputs(tile, query, key, value, far_key, far_value)
            grad_part, part = grad_out[:, :, tile.rows], out[:, :, tile.rows]
            if ctx.weighed:
                part_total = total[:, :, tile.rows]
                if elsewhere is not None:  # makes exp(score - total) zero
                    part_total = part_total.masked_fill(elsewhere, torch.finfo(query.dtype).max / 2)
                parts = _kernel("_backward")(grad_part, *inputs, part, part_total, 0.0, False, attn_mask=mask)
            else:
                parts = _recompute_gradients(grad_part, inputs, mask)
            grad_query[:, :, tile.rows] += parts[0]
            split = length(tile.near)
            for near, far, part in ((grad_key, grad_far_key, parts[1]), (grad_value, grad_far_value, parts[2])):
                near[:, :, tile.near] += part[:, :, :split]
                far[:, :, tile.far] += part[:, :, split:]
        return *grads, None, None


def _inputs(
    tile: Tile, query: Tensor, key: Tensor, value: Tensor, far_key: Tensor, far_value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (B, H, rows, d), keys and values (B, H, near + far, d) of a tile."""
    keys, values = key[:, :, tile.near], value[:, :, tile.near]
    if length(tile.far):
        keys = torch.cat([keys, far_key[:, :, tile.far]], dim=2)
        values = torch.cat([values, far_value[:, :, tile.far]], dim=2)
    return query[:, :, tile.rows], keys, values


def _can_merge(query: Tensor) -> bool:
    """Whether torch has a kernel for these tensors that also returns logsumexp."""
    there = query.device.type == "cpu" and query.dtype in (torch.float32, torch.float64)
    return there and _kernel() is not None and _kernel("_backward") is not None


def _kernel(which: str = "") -> Any:
    return getattr(torch.ops.aten, KERNEL + which, None)


def _merge(out: Tensor, total: Tensor, part: Tensor, part_total: Tensor) -> None:
    """Merge attention (B, H, rows, d) over further keys into ``out``, in place. Totals (B, H, rows) are logsumexp."""
    out.lerp_(part, torch.sigmoid(part_total - total)[..., None])  # weight of the new keys
    torch.logaddexp(total, part_total, out=total)


def _recompute_gradients(
    grad_out: Tensor, inputs: tuple[Tensor, Tensor, Tensor], mask: Tensor | None
) -> tuple[Tensor, ...]:
    """Gradients of a tile's inputs, by recomputing its forward pass."""
    query, key, value = (x.detach().requires_grad_() for x in inputs)
    with torch.enable_grad():
        out = scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return torch.autograd.grad(out, (query, key, value), grad_out)
