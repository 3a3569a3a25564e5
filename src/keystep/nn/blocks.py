"""The pre-norm transformer block that encoder and predictor share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from keystep.config import ModelConfig
from keystep.config.attention import AttentionPattern
from keystep.nn.context import SequenceContext
from keystep.nn.rope import Rotation

CHUNK = 1024
"""Tokens that pass through the wide maps at a time, on a CPU and when no gradients are wanted: what is wider than D
stays small, and its memory is used again instead of being asked for anew."""


def _at_once(x: Tensor) -> bool:
    """Whether all tokens of (B, T, D) are better mapped together than in chunks."""
    return torch.is_grad_enabled() or x.shape[1] <= CHUNK or x.device.type != "cpu"


def _chunks(length: int) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, length, CHUNK)]


def _unchanged(x: Tensor) -> Tensor:
    return x


class Attention(nn.Module):
    """Multi-head self-attention along time; the pattern decides who sees whom."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, x: Tensor, context: SequenceContext, name: str, pattern: AttentionPattern, rotary: Rotation | None
    ) -> Tensor:
        """(B, T, D) -> (B, T, D); ``name``: of its keys and values."""
        query, key, value = self.heads_of(x, rotary)
        return self.mix(context.attend(name, query, key, value, pattern))

    def heads_of(self, x: Tensor, rotary: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Turned queries, turned keys, and values of (B, T, D), each (B, H, T, d); nothing is turned without tables."""
        if _at_once(x):
            return self._heads_of(x, rotary)
        batch, length, dim = x.shape
        query, key, value = x.new_empty(3, batch, self.heads, length, dim // self.heads)
        for span in _chunks(length):
            parts = self._heads_of(x[:, span], None if rotary is None else rotary[span])
            query[:, :, span], key[:, :, span], value[:, :, span] = parts
        return query, key, value

    def _heads_of(self, x: Tensor, rotary: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        heads = self.qkv(x).view(*x.shape[:2], 3, self.heads, -1)  # (B, T, 3, H, d)
        # Attention reads keys and values often: copies, head by head, cost less than jumps from token to token.
        query, key, value = (part.contiguous() for part in heads.permute(2, 0, 3, 1, 4))
        return (query, key, value) if rotary is None else (rotary(query), rotary(key), value)

    def mix(self, attended: Tensor) -> Tensor:
        """The heads (B, H, T, d) side by side, projected to (B, T, D)."""
        out: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return out


class MLP(nn.Module):
    """Two linear maps with an exact GELU between them."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)"""
        if _at_once(x):
            return self._map(x)
        out = torch.empty_like(x)
        for span in _chunks(x.shape[1]):
            out[:, span] = self._map(x[:, span])
        return out

    def _map(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(nn.functional.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, int(dim * mlp_ratio))

    def forward(
        self,
        x: Tensor,
        context: SequenceContext,
        name: str,
        pattern: AttentionPattern,
        rotary: Rotation | None,
        drop: Callable[[Tensor], Tensor] = _unchanged,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D)

        Args:
            name: of what the context remembers for this block.
            drop: dropout of what is added.
        """
        x = x + drop(self.attn(self.norm1(x), context, name, pattern, rotary))
        out: Tensor = x + drop(self.mlp(self.norm2(x)))
        return out


class Trunk(nn.Module):
    """The blocks one after the other, and a LayerNorm behind the last."""

    def __init__(self, config: ModelConfig, depth: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config.dim, heads, config.mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(config.dim)
        self.head_dim = config.dim // heads
        self.rotary = config.rotary
        self.by_segment = config.positions == "segment"

    def run_blocks(self, x: Tensor, context: SequenceContext, pattern: AttentionPattern, average: int = 1) -> Tensor:
        """(B, N, D) -> (B, N, D): the normalised output of the last block, or the mean over the last ``average``.

        Outputs before the last have no trained norm; they are standardised plainly.
        """
        tables = context.rotary(self.head_dim, self.rotary, self.by_segment)  # once for all blocks
        depth, total = len(self.blocks), None
        for number, block in enumerate(self.blocks):
            x = block(x, context, str(number), pattern, tables)
            if number >= depth - average:
                out = self.norm(x) if number == depth - 1 else nn.functional.layer_norm(x, x.shape[-1:])
                total = out if total is None else total + out
        assert total is not None
        return total / average if average > 1 else total
