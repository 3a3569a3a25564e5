"""The one attention seam, and two ways to compute it.

`attend_reference` is slow and obvious. `attend` gives the same numbers: full attention through torch's fused kernels,
everything else through tiles of queries against the keys that they can see, so that no T x T tensor exists.
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
from keystep.nn.tiles import Plan, Tile, length, planned

__all__ = ["AttentionPattern", "attend", "attend_reference", "opened", "visible"]

KERNEL = "_scaled_dot_product_flash_attention_for_cpu"
"""Torch's own: beside the output it returns the logarithm of each query's sum of exponentials, so that the attention
over two sets of keys can be merged, and its ``_backward`` takes the merged ones."""


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
    return _attend_in_tiles(query, key, value, planned(pattern, places, key_places, cores=_can_merge(query)))


def attend_seen(query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None) -> Tensor:
    """The same for a few queries whose visible keys are known: (B, H, n, d) over (B, H, M, d).

    seen: (B, n, M) bool, at least one key for each query (see `opened`); None where all see all.
    """
    return scaled_dot_product_attention(query, key, value, attn_mask=None if seen is None else seen[:, None])


def _attend_to_all(query: Tensor, key: Tensor, value: Tensor, places: Places, keys: Places) -> Tensor:
    """Every query over every real key, without a T x T mask."""
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
    """The same as `attend`, slow and obvious: all T x T scores, in float32 at least."""
    keys = places if key_places is None else key_places
    mask = visible(pattern, places, keys)[:, None]  # (B, 1, Tq, Tk)
    wide = torch.promote_types(query.dtype, torch.float32)
    scores = query.to(wide) @ key.to(wide).transpose(-1, -2) / query.shape[-1] ** 0.5
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1).nan_to_num(0.0)  # rows without a key: zeros
    out: Tensor = weights @ value.to(wide)
    return out.to(query.dtype)


def _attend_in_tiles(query: Tensor, key: Tensor, value: Tensor, plan: Plan) -> Tensor:
    if plan.far_keys is None:
        far_key, far_value = key[:, :, :0], value[:, :, :0]
    else:
        index = plan.far_keys.index[:, None, :, None].expand(-1, key.shape[1], -1, key.shape[3])  # (B, H, M, d)
        far_key, far_value = key.gather(2, index), value.gather(2, index)
    weighed = plan.overlap or (torch.is_grad_enabled() and _can_merge(query))  # a backward pass is then cheaper
    out: Tensor = _Tiled.apply(query, key, value, far_key, far_value, plan, weighed)  # type: ignore[no-untyped-call]
    return out


class _Tiled(torch.autograd.Function):
    """Attention tile by tile, forward and backward.

    As one function because autograd over a loop of slices allocates a full-size gradient for every slice, which makes
    the backward pass quadratic. The backward pass computes each tile's weights again, so nothing of its size is kept.
    If ``weighed``, by a kernel that returns each query's sum of exponentials, so that its tiles can be merged and the
    outputs need not be computed again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        far_key: Tensor,
        far_value: Tensor,
        plan: Plan,
        weighed: bool,
    ) -> Tensor:
        batch, heads, rows, width = query.shape
        out = query.new_zeros(batch, rows, heads, width).transpose(1, 2)  # laid out as the projection reads it
        total = query.new_full((batch, heads, rows) if weighed else (), float("-inf"))  # log of sums of exponentials
        for tile, mask, elsewhere in plan.masks(query.dtype):
            part, inputs = out[:, :, tile.rows], _inputs(tile, query, key, value, far_key, far_value)
            if weighed:
                new, new_total = _kernel()(*inputs, attn_mask=mask)
                if elsewhere is not None:  # these keys weigh nothing
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
                if elsewhere is not None:  # exp(score - total) is then zero
                    part_total = part_total.masked_fill(elsewhere, torch.finfo(query.dtype).max / 2)
                parts = _kernel("_backward")(grad_part, *inputs, part, part_total, 0.0, False, attn_mask=mask)
            else:
                parts = _differentiate_again(grad_part, inputs, mask)
            grad_query[:, :, tile.rows] += parts[0]
            split = length(tile.near)
            for near, far, part in ((grad_key, grad_far_key, parts[1]), (grad_value, grad_far_value, parts[2])):
                near[:, :, tile.near] += part[:, :, :split]
                far[:, :, tile.far] += part[:, :, split:]
        return *grads, None, None


def _inputs(
    tile: Tile, query: Tensor, key: Tensor, value: Tensor, far_key: Tensor, far_value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One tile's queries (B, H, rows, d), keys and values (B, H, near + far, d)."""
    keys, values = key[:, :, tile.near], value[:, :, tile.near]
    if length(tile.far):
        keys = torch.cat([keys, far_key[:, :, tile.far]], dim=2)
        values = torch.cat([values, far_value[:, :, tile.far]], dim=2)
    return query[:, :, tile.rows], keys, values


def _can_merge(query: Tensor) -> bool:
    """Whether torch has a kernel for these tensors that tells the sum of exponentials beside the output."""
    there = query.device.type == "cpu" and query.dtype in (torch.float32, torch.float64)
    return there and _kernel() is not None and _kernel("_backward") is not None


def _kernel(which: str = "") -> Any:
    return getattr(torch.ops.aten, KERNEL + which, None)


def _merge(out: Tensor, total: Tensor, part: Tensor, part_total: Tensor) -> None:
    """Take up the attention (B, H, rows, d) over further keys; totals (B, H, rows) are logarithms."""
    out.lerp_(part, torch.sigmoid(part_total - total)[..., None])  # the share of the new keys
    torch.logaddexp(total, part_total, out=total)


def _differentiate_again(
    grad_out: Tensor, inputs: tuple[Tensor, Tensor, Tensor], mask: Tensor | None
) -> tuple[Tensor, ...]:
    """Gradients of a tile's inputs, by computing it once more."""
    query, key, value = (x.detach().requires_grad_() for x in inputs)
    with torch.enable_grad():
        out = scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return torch.autograd.grad(out, (query, key, value), grad_out)
