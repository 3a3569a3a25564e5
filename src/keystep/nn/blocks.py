"""Pre-norm transformer blocks for encoder and predictor."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from keystep.config import ModelConfig
from keystep.config.attention import AttentionPattern
from keystep.nn.context import SequenceContext
from keystep.nn.rope import Rotation

CHUNK = 1024
"""Tokens that are projected at a time on CPU without gradients, so that wide intermediate tensors stay small and their
memory is reused.
"""


def _at_once(x: Tensor) -> bool:
    """Whether all tokens of (B, T, D) should be projected together."""
    return torch.is_grad_enabled() or x.shape[1] <= CHUNK or x.device.type != "cpu"


def _chunks(length: int) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, length, CHUNK)]


def _unchanged(x: Tensor) -> Tensor:
    return x


class Attention(nn.Module):
    """Multi-head self-attention over time within an attention pattern."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, x: Tensor, context: SequenceContext, name: str, pattern: AttentionPattern, rotary: Rotation | None
    ) -> Tensor:
        """(B, T, D) -> (B, T, D). name: of the layer's keys and values in the context."""
        query, key, value = self.project_heads(x, rotary)
        return self.mix(context.attend(name, query, key, value, pattern))

    def project_heads(self, x: Tensor, rotary: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of (B, T, D), (B, H, T, d) each; ``rotary`` rotates queries and keys."""
        if _at_once(x):
            return self._project_heads(x, rotary)
        batch, length, dim = x.shape
        query, key, value = x.new_empty(3, batch, self.heads, length, dim // self.heads)
        for span in _chunks(length):
            parts = self._project_heads(x[:, span], None if rotary is None else rotary[span])
            query[:, :, span], key[:, :, span], value[:, :, span] = parts
        return query, key, value

    def _project_heads(self, x: Tensor, rotary: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        heads = self.qkv(x).view(*x.shape[:2], 3, self.heads, -1)  # (B, T, 3, H, d)
        # Attention reads keys and values repeatedly, so a contiguous copy for each head is faster than strided access.
        query, key, value = (part.contiguous() for part in heads.permute(2, 0, 3, 1, 4))
        return (query, key, value) if rotary is None else (rotary(query), rotary(key), value)

    def mix(self, attended: Tensor) -> Tensor:
        """Concatenate the heads (B, H, T, d) and project to (B, T, D)."""
        out: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return out


class MLP(nn.Module):
    """Two linear layers with an exact GELU in between."""

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
            name: of this block's state in the context.
            drop: dropout of the residual branches.
        """
        x = x + drop(self.attn(self.norm1(x), context, name, pattern, rotary))
        out: Tensor = x + drop(self.mlp(self.norm2(x)))
        return out


class Trunk(nn.Module):
    """A stack of blocks with a final LayerNorm."""

    def __init__(self, config: ModelConfig, depth: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config.dim, heads, config.mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(config.dim)
        self.head_dim = config.dim // heads
        self.rotary = config.rotary
        self.by_segment = config.positions == "segment"

    def run_blocks(self, x: Tensor, context: SequenceContext, pattern: AttentionPattern, average: int = 1) -> Tensor:
        """(B, N, D) -> (B, N, D): the normalised output of the last block, or the mean over the last ``average``
        blocks.

        Outputs of earlier blocks are normalised without affine parameters.
        """
        tables = context.rotary(self.head_dim, self.rotary, self.by_segment)  # shared by all blocks
        depth, total = len(self.blocks), None
        for number, block in enumerate(self.blocks):
            x = block(x, context, str(number), pattern, tables)
            if number >= depth - average:
                out = self.norm(x) if number == depth - 1 else nn.functional.layer_norm(x, x.shape[-1:])
                total = out if total is None else total + out
        assert total is not None
        return total / average if average > 1 else total
