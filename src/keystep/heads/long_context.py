"""Long context at linear cost: dilated convolution, windowed attention and strided long-term attention in each layer.

Similar to LTContext (Bahrami, Francesca, Gall: "How Much Temporal Long-Term Context is Needed for Action
Segmentation?", 2023), implemented with keystep's attention. Norms are over the channels of one frame, never over time.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from keystep.config.attention import AttentionPattern
from keystep.heads.config import ContextConfig
from keystep.heads.head import Head
from keystep.heads.layers import Dilated
from keystep.nn.context import SequenceContext
from keystep.nn.rope import Rotation


class ContextAttention(nn.Module):
    """Half of the attention heads see the window, the other half every ``stride``-th frame of the memory."""

    def __init__(self, config: ContextConfig) -> None:
        super().__init__()
        kind: Literal["causal", "bidirectional"] = "causal" if config.causal else "bidirectional"
        self.heads, self.stride = config.heads, config.stride
        self.near = AttentionPattern(kind=kind, window=config.window)
        self.far = AttentionPattern(kind=kind, window=config.memory)
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.proj = nn.Linear(config.dim, config.dim)

    def forward(self, x: Tensor, context: SequenceContext, name: str, rotary: Rotation) -> Tensor:
        """(B, n, D) -> (B, n, D)"""
        heads = self.qkv(x).view(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (3, B, H, n, d)
        query, key, value = rotary(heads[0]), rotary(heads[1]), heads[2].contiguous()
        half = self.heads // 2
        near = context.attend(f"{name}.near", query[:, :half], key[:, :half], value[:, :half], self.near)
        far = context.attend(f"{name}.far", query[:, half:], key[:, half:], value[:, half:], self.far, self.stride)
        out: Tensor = self.proj(torch.cat([near, far], dim=1).transpose(1, 2).flatten(2))
        return out


class ContextLayer(nn.Module):
    """``h = gelu(dilated(norm(x)))``, ``x + dropout(mix(h + attention(h)))``"""

    def __init__(self, config: ContextConfig, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.dim)
        self.dilated = Dilated(config.dim, dilation, config.causal)
        self.attention = ContextAttention(config)
        self.mix = nn.Linear(config.dim, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, context: SequenceContext, name: str, rotary: Rotation) -> Tensor:
        """(B, n, D) -> (B, n, D)"""
        local = nn.functional.gelu(self.dilated.convolve(context.clean(self.norm(x)), context, name))
        out: Tensor = x + self.dropout(self.mix(local + self.attention(local, context, name, rotary)))
        return out


class ContextStage(nn.Module):
    """A stack of layers with a classifier on the normalised output."""

    def __init__(self, config: ContextConfig, classes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ContextLayer(config, 2**index) for index in range(config.layers))
        self.norm, self.classify = nn.LayerNorm(config.dim), nn.Linear(config.dim, classes)

    def forward(self, x: Tensor, context: SequenceContext, name: str, rotary: Rotation) -> tuple[Tensor, Tensor]:
        """(B, n, D) -> normalised frames (B, n, D) and scores (B, n, C)."""
        for number, layer in enumerate(self.layers):
            x = layer(x, context, f"{name}.{number}", rotary)
        x = self.norm(x)
        return x, self.classify(x)


class LongContext(Head):
    """A stage on the features, then stages on the frames and class probabilities of the previous stage."""

    def __init__(self, config: ContextConfig, width: int, classes: int) -> None:
        super().__init__(config, width, classes)
        self.settings, self.stages = config, config.stages
        self.project = nn.Linear(width, config.dim)
        self.chain = nn.ModuleList(ContextStage(config, classes) for _ in range(config.stages))
        self.refine = nn.ModuleList(nn.Linear(classes, config.dim) for _ in range(config.stages - 1))

    @property
    def delay(self) -> int | None:
        """See `Head`."""
        return 0 if self.settings.causal else None

    @property
    def reach(self) -> tuple[int, int]:
        """See `Head`."""
        config = self.settings
        attended = max(config.window, config.memory) - 1
        convolved = 2**config.layers - 1
        before = config.stages * (config.layers * attended + (2 if config.causal else 1) * convolved)
        return before, 0 if config.causal else before

    def run(self, x: Tensor, context: SequenceContext) -> Tensor:
        """See `Head`."""
        rotary = context.rotary(self.settings.dim // self.settings.heads)
        frames: Tensor = self.project(x)
        scores: list[Tensor] = []
        for index, stage in enumerate(self.chain):
            if scores:
                frames = frames + self.refine[index - 1](scores[-1].softmax(-1))
            frames, found = stage(frames, context, str(index), rotary)
            scores.append(found)
        return torch.stack(scores)
