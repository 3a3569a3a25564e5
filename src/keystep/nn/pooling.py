"""Many tokens a time slot, such as the patches of a picture, pooled to one vector.

Slots know nothing of each other here, so whatever holds for one vector a slot (streaming, causality) goes on holding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from keystep.config.attention import AttentionPattern
from keystep.nn.blocks import Block
from keystep.nn.context import Whole
from keystep.nn.places import Places

ALL = AttentionPattern(kind="bidirectional")


def split_tokens(features: Tensor, tokens: int) -> Tensor:
    """Features (B, T, N x D) as the tokens they hold, (B, T, N, D)."""
    return features.reshape(*features.shape[:-1], tokens, features.shape[-1] // tokens)


def mean_token(features: Tensor, tokens: int) -> Tensor:
    """The plain mean over a slot's tokens, (B, T, N x D) -> (B, T, D)."""
    return features if tokens == 1 else split_tokens(features, tokens).mean(-2)


class AttentivePooler(nn.Module):
    """A learned query a head looks at the N tokens of its slot, behind ``depth`` blocks in which these see each other.

    The product of a fixed query with a linear map of the keys is one linear map of the tokens, so that is what is
    learned: each head's score of a token. The head's share of the channels is then averaged by the softmax of the
    scores. Scores begin at zero, where pooling is the plain mean (of what the blocks made of the tokens).

    A token's place in the slot (a patch's in the picture) is a learned vector, added before anything else looks at it;
    so the order of the tokens matters.
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
