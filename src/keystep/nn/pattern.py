"""Visibility under an attention pattern."""

from __future__ import annotations

import torch
from torch import Tensor

from keystep.config.attention import AttentionPattern
from keystep.errors import InputError
from keystep.nn.places import Places


def visible(pattern: AttentionPattern, queries: Places, keys: Places) -> Tensor:
    """(B, Tq, Tk) bool: whether a query can see a key. This is the definition; the rest are faster versions of it."""
    return _near(pattern, queries, keys) | _far(pattern, queries, keys)


def opened(seen: Tensor) -> Tensor:
    """Mask for an attention kernel: (..., keys) bool, in which a query that sees no key sees all of them.

    Such a query is padding, or its keys are in another tile. Its output and gradient are discarded but must be finite:
    the softmax over no keys is NaN, and 0 * NaN is NaN. (Observed on CUDA in bfloat16 and float16, where the gradient
    of a fully masked query was NaN.)
    """
    return seen | ~seen.any(-1, keepdim=True)


def _near(pattern: AttentionPattern, queries: Places, keys: Places) -> Tensor:
    """Keys allowed by the order and the window."""
    distance = _distance(queries, keys)
    seen = _ordered(pattern, queries, keys)
    return seen if pattern.window is None else seen & (distance.abs() < pattern.window)


def _far(pattern: AttentionPattern, queries: Places, keys: Places) -> Tensor:
    """Keys that the strided memory adds outside of the window."""
    if pattern.stride is None or pattern.window is None or pattern.memory is None:
        return torch.zeros((), dtype=torch.bool, device=queries.positions.device)
    distance = _distance(queries, keys)
    kept = (keys.positions % pattern.stride == 0)[:, None]
    return _ordered(pattern, queries, keys) & kept & (distance >= pattern.window) & (distance < pattern.memory)


def _distance(queries: Places, keys: Places) -> Tensor:
    return queries.positions[:, :, None] - keys.positions[:, None]


def _ordered(pattern: AttentionPattern, queries: Places, keys: Places) -> Tensor:
    """(B, Tq, Tk): both are valid, and the rank of the key does not exceed that of the query."""
    query_rank, key_rank = rank(pattern, queries), rank(pattern, keys)
    seen = key_rank[:, None] <= query_rank[:, :, None]
    if keys.valid is not None:
        seen = seen & keys.valid[:, None]
    return seen if queries.valid is None else seen & queries.valid[:, :, None]


def rank(pattern: AttentionPattern, places: Places) -> Tensor:
    """(B, T) int64: a query sees keys of its own or a lower rank.

    Raises:
        InputError: segment_causal attention without segments.
    """
    if pattern.kind == "causal":
        return places.positions
    if pattern.kind == "block_causal":
        assert pattern.block is not None
        return places.positions // pattern.block
    if pattern.kind == "segment_causal":
        if places.segments is None:
            raise InputError("segment_causal attention needs segment_lengths, the true boundaries (ORACLE)")
        return places.segments
    return torch.zeros_like(places.positions)
