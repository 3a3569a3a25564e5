"""The paper's streaming attentive probe: windowed attention that answers chunk by chunk."""

from __future__ import annotations

from torch import Tensor, nn

from keystep.config.attention import AttentionPattern
from keystep.heads.config import AttentiveConfig
from keystep.heads.head import Head
from keystep.nn.blocks import Block
from keystep.nn.context import SequenceContext


class AttentiveProbe(Head):
    """Pre-norm transformer blocks in which a frame attends to its whole chunk and to a window of earlier frames.

    A frame's scores are final with the last frame of its chunk, so the delay is at most ``chunk - 1`` frames. More
    layers reach further back without more delay.
    """

    def __init__(self, config: AttentiveConfig, width: int, classes: int) -> None:
        super().__init__(config, width, classes)
        self.settings = config
        self.pattern = AttentionPattern(kind="block_causal", block=config.chunk, window=config.window)
        self.project = nn.Linear(width, config.dim)
        self.blocks = nn.ModuleList(Block(config.dim, config.heads, config.mlp_ratio) for _ in range(config.layers))
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.dim)
        self.classify = nn.Linear(config.dim, classes)

    @property
    def delay(self) -> int:
        """Frames until scores are final; fewer for later frames of a chunk."""
        return self.settings.chunk - 1

    @property
    def reach(self) -> tuple[int, int]:
        """See `Head`."""
        return self.settings.layers * (self.settings.window - 1), self.settings.chunk - 1

    def run(self, x: Tensor, context: SequenceContext) -> Tensor:
        """See `Head`."""
        x = self.project(x)
        tables = context.rotary(self.settings.dim // self.settings.heads)
        for number, block in enumerate(self.blocks):
            x = block(x, context, str(number), self.pattern, tables, self.dropout)
        scores: Tensor = self.classify(self.norm(x))
        return scores[None]
