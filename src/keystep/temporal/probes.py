"""The paper's probes: one affine map a frame, and attention over a window that answers chunk by chunk."""

from __future__ import annotations

from torch import Tensor, nn

from keystep.config.attention import AttentionPattern
from keystep.nn.blocks import Block
from keystep.nn.rope import rotary_tables
from keystep.temporal.config import AttentiveConfig, LinearConfig
from keystep.temporal.flow import Flow
from keystep.temporal.head import TemporalHead


class LinearProbe(TemporalHead):
    """One affine map a frame."""

    def __init__(self, config: LinearConfig, width: int, classes: int) -> None:
        super().__init__(config, width, classes)
        self.classify = nn.Linear(width, classes)

    def run(self, x: Tensor, flow: Flow) -> Tensor:
        """See `TemporalHead`."""
        scores: Tensor = self.classify(x)
        return scores[None]


class AttentiveProbe(TemporalHead):
    """Pre-norm transformer blocks in which a frame sees its whole chunk and a window of earlier frames.

    A frame's scores are final with the last frame of its chunk, so they come up to ``chunk - 1`` frames late. Further
    layers see further back, and wait no longer.
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
        """Up to so many frames: less for the later ones of a chunk."""
        return self.settings.chunk - 1

    @property
    def reach(self) -> tuple[int, int]:
        """See `TemporalHead`."""
        return self.settings.layers * (self.settings.window - 1), self.settings.chunk - 1

    def run(self, x: Tensor, flow: Flow) -> Tensor:
        """See `TemporalHead`."""
        x = self.project(x)
        tables = rotary_tables(flow.places.positions, self.settings.dim // self.settings.heads)
        for block in self.blocks:
            assert isinstance(block, Block)
            query, key, value = block.attn.heads_of(block.norm1(x), tables)
            x = x + self.dropout(block.attn.mix(flow.attend(query, key, value, self.pattern)))
            x = x + self.dropout(block.mlp(block.norm2(x)))
        scores: Tensor = self.classify(self.norm(x))
        return scores[None]
