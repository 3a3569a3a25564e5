"""Settings of the heads and of their training.

Names follow the publications; differences from them are documented with each head.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from keystep.config import Config
from keystep.config.attention import MOST_FRAMES
from keystep.config.model import MOST_BLOCKS, MOST_WIDTH
from keystep.plugins import HEADS

Dropout = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]
Frames = Annotated[int, Field(ge=1, le=MOST_FRAMES)]
MOST_CLASSES = 100_000
Layers = Annotated[int, Field(ge=1, le=24)]
"""Each dilated layer reaches twice as far as the one before: 24 layers reach 2^24 frames."""


class HeadConfig(Config):
    """Base class of the settings of a head."""

    kind: str
    """Name of the head."""


class LinearConfig(HeadConfig):
    """One affine map per frame: the paper's linear probe."""

    kind: Literal["linear"] = "linear"
    background: int | None = Field(default=None, ge=0, le=MOST_CLASSES)
    """Class id of the background if a separate map decides between background and steps. None: one map for all
    classes."""


class AttentiveConfig(HeadConfig):
    """The paper's streaming attentive probe: a transformer block over a window that answers chunk by chunk."""

    kind: Literal["attentive"] = "attentive"
    dim: int = Field(default=128, ge=8, le=MOST_WIDTH)
    layers: int = Field(default=1, ge=1, le=MOST_BLOCKS)
    heads: int = Field(default=4, ge=1, le=MOST_WIDTH)
    mlp_ratio: float = Field(default=2.0, gt=0, le=64)
    window: Frames = 320
    """Past frames that a layer attends to; the paper has 320 to 400, which is 80 to 100 s."""
    chunk: Frames = 64
    """Frames that are answered together and attend to each other; the paper has 64 to 128. 1: strictly causal."""
    dropout: Dropout = 0.1

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        _check_heads(self.dim, self.heads)
        if self.window < self.chunk:
            raise ValueError(f"window {self.window} must hold at least a chunk, {self.chunk} frames")
        return self


class MstcnConfig(HeadConfig):
    """MS-TCN++ (Li et al., 2020), with the published defaults."""

    kind: Literal["mstcn"] = "mstcn"
    maps: int = Field(default=64, ge=1, le=MOST_WIDTH)
    layers: Layers = 11
    """Dual dilated layers of the prediction generation; layer l reaches 2^l and 2^(layers - 1 - l) frames."""
    refinements: int = Field(default=3, ge=0, le=MOST_BLOCKS)
    refinement_layers: Layers = 10
    dropout: Dropout = 0.5
    causal: bool = False
    """Left-padded convolutions, which see the past only and reach twice as far back."""


class ContextConfig(HeadConfig):
    """Dilated convolution, windowed and long-term attention in each layer, similar to LTContext.

    Half of the attention heads see neighbouring frames, the other half every ``stride``-th frame of a long memory, so
    that the cost is linear in the length of the video. (LTContext attends to every ``stride``-th frame of the whole
    video, and its causal variant normalises over the sequence. Here, outputs do not depend on the number of frames.)
    """

    kind: Literal["context"] = "context"
    dim: int = Field(default=64, ge=16, le=MOST_WIDTH)
    stages: int = Field(default=3, ge=1, le=MOST_BLOCKS)
    """The first stage reads the features, each later one the frames and class probabilities of the previous one."""
    layers: Layers = 5
    """Layers per stage; the convolution of layer l reaches 2^l frames."""
    heads: int = Field(default=2, ge=2, le=MOST_WIDTH)
    """Attention heads; half of them are windowed, half long-term."""
    window: Frames = 32
    """Windowed heads attend to frames less than this many frames away."""
    stride: Frames = 16
    """Long-term heads attend to frames whose index is a multiple of this."""
    memory: Frames = 1024
    """Long-term heads attend to frames less than this many frames away."""
    dropout: Dropout = 0.2
    causal: bool = False
    """See the past only."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        _check_heads(self.dim, self.heads)
        if self.heads % 2:
            raise ValueError(f"heads {self.heads} cannot be split between window and memory; use an even number")
        if self.memory < self.stride:
            raise ValueError(f"memory {self.memory} holds no frame of every {self.stride}; make it at least the stride")
        return self


CAUSAL_KINDS = ("mstcn", "context")
"""Kinds with a setting ``causal`` that are offline by default; the others never look beyond their delay."""
PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        **{kind: {"kind": kind} for kind in HEADS.own},
        "mstcn-small": {"kind": "mstcn", "maps": 48, "layers": 9, "refinements": 1, "refinement_layers": 8},
        "context-small": {"kind": "context", "dim": 48, "stages": 2, "layers": 4},
    }
)
"""Each kind with its defaults, and smaller variants for small data sets and slow machines."""


class TrainingConfig(Config):
    """How a head of any kind is trained."""

    epochs: Positive = 50
    batch_videos: Positive = 4
    """Whole videos per step, of similar lengths."""
    crop: int | None = Field(default=None, ge=1)
    """Random crop of this many frames from longer videos, drawn in each epoch, to limit memory. None: all frames."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Peak learning rate of AdamW. None: 1e-2 for the linear head, 1e-3 for the others."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """Weight decay of AdamW, on matrices only."""
    warmup: float = Field(default=1.0, ge=0)
    """Epochs of linear warm-up of the learning rate."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up: cosine decay to zero, or constant (MS-TCN)."""
    clip: float = Field(default=1.0, gt=0)
    """Maximum gradient norm."""
    standardise: bool = True
    """Standardise each channel by mean and deviation of the training frames, as a fixed part of the head."""
    smoothing: float = Field(default=0.15, ge=0)
    """Weight of the truncated squared change of log probabilities between neighbouring frames (MS-TCN)."""
    truncation: float = Field(default=4.0, gt=0)
    """Changes of log probabilities are clipped to this."""
    class_weights: Literal["none", "inverse_root", "effective"] = "none"
    """Weights of frames by class: 1 / sqrt(frames), or 1 / effective number (Cui et al., 2019)."""
    effective_beta: float = Field(default=0.9999, gt=0, lt=1)
    """Beta of the effective number."""
    logit_adjustment: float = Field(default=0.0, ge=0)
    """Weight of the log class frequency that is added to the scores in training (Menon et al., 2021)."""
    boundary_radius: int = Field(default=0, ge=0)
    """Average the labels over this many frames on either side, which makes them soft near boundaries."""
    selection: Literal["average", "accuracy"] = "average"
    """Validation score that selects the epoch: mean of frame accuracy, edit and F1@10/25/50, or frame accuracy."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after this many epochs without a better score. None: never."""

    def rate(self, kind: str) -> float:
        """The peak learning rate for a kind of head."""
        return self.learning_rate or (1e-2 if kind == "linear" else 1e-3)


def _check_heads(dim: int, heads: int) -> None:
    if dim % heads or dim // heads < 8:
        raise ValueError(f"dim {dim} cannot be split into {heads} attention heads of at least 8 channels each")
