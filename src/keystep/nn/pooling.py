"""Pooling of several tokens of a time slot, such as image patches, to one vector.

Slots are pooled independently, so causality and streaming are not affected.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from keystep.config.attention import AttentionPattern
from keystep.nn.blocks import Block
from keystep.nn.context import Whole
from keystep.nn.places import Places

ALL = AttentionPattern(kind="bidirectional")


def split_tokens(features: Tensor, width: int) -> Tensor:
    """(..., N x width) -> (..., N, width)"""
    return features.reshape(*features.shape[:-1], features.shape[-1] // width, width)


def mean_token(features: Tensor, width: int) -> Tensor:
    """Mean over the tokens of a slot, (..., N x width) -> (..., width)."""
    return features if features.shape[-1] == width else split_tokens(features, width).mean(-2)


class AttentivePooler(nn.Module):
    """Attention pooling over the N tokens of a slot with one learned query for each head, after ``depth`` blocks.

    The product of a fixed query with a linear map of the keys is a linear map of the tokens, so this map is learned
    directly: the score of a token for each head. The channels of each head are averaged with the softmax of its scores.
    Scores are initialised to zero, which is mean pooling (of the output of the blocks).

    Learned position embeddings are added to the tokens, so their order matters.
    """

    def __init__(self, width: int, tokens: int, heads: int, depth: int = 0, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        assert width % heads == 0
        self.positions = nn.Parameter(0.02 * torch.randn(1, tokens, width))
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.score = nn.Linear(width, heads, bias=False)
        nn.init.zeros_(self.score.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, N, D) -> (B, T, D)"""
        batch, length, count, width = tokens.shape
        x = tokens.reshape(batch * length, count, width)  # (S, N, D), S slots
        placed = x + self.positions
        if len(self.blocks):
            order = torch.arange(count, device=x.device).expand(x.shape[:2])
            for number, block in enumerate(self.blocks):
                placed = block(placed, Whole(Places(order)), str(number), ALL, None)
            x = placed
        weights = self.score(self.norm(placed)).softmax(dim=1)  # (S, N, H)
        heads = weights.shape[-1]
        parts = x.reshape(-1, count, heads, width // heads)  # (S, N, H, d)
        pooled: Tensor = (weights[..., None] * parts).sum(1)  # (S, H, d)
        return pooled.reshape(batch, length, width)
