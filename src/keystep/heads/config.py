"""Settings of the temporal heads and of their training: frozen, checked, with their meaning under them.

The names of the field are kept where it has any; what was published, and where we differ, stands with each head.
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
"""A dilated layer looks twice as far as the one before: 24 reach 2^24 frames."""


class HeadConfig(Config):
    """Base of the settings of a head."""

    kind: str
    """The name that the head was asked for by; in a file, whose head it is."""


class LinearConfig(HeadConfig):
    """One affine map a frame: the paper's linear probe."""

    kind: Literal["linear"] = "linear"
    background: int | None = Field(default=None, ge=0, le=MOST_CLASSES)
    """Class id of the background if it is told apart: one map says whether there is a step at all, another one which.
    None: one map for all classes."""


class AttentiveConfig(HeadConfig):
    """The paper's streaming attentive probe: a transformer block over a window, answering chunk by chunk."""

    kind: Literal["attentive"] = "attentive"
    dim: int = Field(default=128, ge=8, le=MOST_WIDTH)
    layers: int = Field(default=1, ge=1, le=MOST_BLOCKS)
    heads: int = Field(default=4, ge=1, le=MOST_WIDTH)
    mlp_ratio: float = Field(default=2.0, gt=0, le=64)
    window: Frames = 320
    """Frames that a layer sees back; the paper's are 320 to 400, which is 80 to 100 s."""
    chunk: Frames = 64
    """Frames that are answered together and see each other; the paper's are 64 to 128. 1: strictly causal."""
    dropout: Dropout = 0.1

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        _check_heads(self.dim, self.heads)
        if self.window < self.chunk:
            raise ValueError(f"window {self.window} must hold at least a chunk, {self.chunk} frames")
        return self


class MstcnConfig(HeadConfig):
    """MS-TCN++ (Li et al., 2020); the defaults are the published ones."""

    kind: Literal["mstcn"] = "mstcn"
    maps: int = Field(default=64, ge=1, le=MOST_WIDTH)
    layers: Layers = 11
    """Dual dilated layers of the prediction generation; layer l looks 2^l and 2^(layers - 1 - l) frames far."""
    refinements: int = Field(default=3, ge=0, le=MOST_BLOCKS)
    refinement_layers: Layers = 10
    dropout: Dropout = 0.5
    causal: bool = False
    """Look back only, twice as far: the same convolutions, padded on the left."""


class ContextConfig(HeadConfig):
    """Dilated convolutions, windowed and long-term attention in each layer, in the manner of LTContext; our own.

    Half of the attention heads see the neighbours, the other half every ``stride``-th frame of a long memory, so that
    the cost grows with the length of a video and not with its square. (LTContext's sees every ``stride``-th frame of
    the whole video, and its causal variant normalises over the sequence. Here no frame's numbers depend on how many
    others there are.)
    """

    kind: Literal["context"] = "context"
    dim: int = Field(default=64, ge=16, le=MOST_WIDTH)
    stages: int = Field(default=3, ge=1, le=MOST_BLOCKS)
    """The first reads the features; each further one the frames and class probabilities of the one before."""
    layers: Layers = 5
    """Layers of a stage; layer l's convolution looks 2^l frames far."""
    heads: int = Field(default=2, ge=2, le=MOST_WIDTH)
    """Attention heads; half of them windowed, half long-term."""
    window: Frames = 32
    """See less than this many frames far."""
    stride: Frames = 16
    """The long-term heads see frames whose index is a multiple of this,"""
    memory: Frames = 1024
    """less than this many frames far."""
    dropout: Dropout = 0.2
    causal: bool = False
    """Look back only."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        _check_heads(self.dim, self.heads)
        if self.heads % 2:
            raise ValueError(f"heads {self.heads} cannot be shared by the window and the memory; use an even number")
        if self.memory < self.stride:
            raise ValueError(f"memory {self.memory} holds no frame of every {self.stride}; make it at least the stride")
        return self


CAUSAL_KINDS = ("mstcn", "context")
"""Kinds that are offline unless they are told ``causal``; the others never see beyond their stated delay."""
PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        **{kind: {"kind": kind} for kind in HEADS.own},
        "mstcn-small": {"kind": "mstcn", "maps": 48, "layers": 9, "refinements": 1, "refinement_layers": 8},
        "context-small": {"kind": "context", "dim": 48, "stages": 2, "layers": 4},
    }
)
"""Each kind with its defaults, and smaller ones for small data and slow machines."""


class TrainingConfig(Config):
    """How a head is trained, whichever it is."""

    epochs: Positive = 50
    batch_videos: Positive = 4
    """Whole videos a step, of similar lengths."""
    crop: int | None = Field(default=None, ge=1)
    """Draw this many frames anew in each epoch from videos that are longer, for memory's sake; None: all frames."""
    learning_rate: float | None = Field(default=None, gt=0)
    """AdamW's; None: 1e-2 for the linear head, which starts far from its goal, 1e-3 for the others."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """AdamW's, on matrices only."""
    warmup: float = Field(default=1.0, ge=0)
    """Epochs over which the rate grows linearly."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """After the warm-up: down to zero along a cosine, or not at all (MS-TCN)."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    standardise: bool = True
    """Give each channel mean 0 and deviation 1 over the training frames, inside the head; fixed, so a stream has it."""
    smoothing: float = Field(default=0.15, ge=0)
    """Weight of the truncated squared change of log probabilities from frame to frame (MS-TCN)."""
    truncation: float = Field(default=4.0, gt=0)
    """Changes beyond this count no more."""
    class_weights: Literal["none", "inverse_root", "effective"] = "none"
    """Weigh frames by their class: 1 / sqrt(frames), or 1 / effective number (Cui et al., 2019)."""
    effective_beta: float = Field(default=0.9999, gt=0, lt=1)
    logit_adjustment: float = Field(default=0.0, ge=0)
    """Weight of the class's log frequency that is added to its score in training (Menon et al., 2021)."""
    boundary_radius: int = Field(default=0, ge=0)
    """Mix the labels of this many frames on either side, so that they are soft near boundaries."""
    selection: Literal["average", "accuracy"] = "average"
    """The validation score whose best epoch is kept: the mean of frame accuracy, edit and F1@10/25/50, or the first."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after this many epochs without a better score; None: never."""

    def rate(self, kind: str) -> float:
        """The learning rate of a kind of head."""
        return self.learning_rate or (1e-2 if kind == "linear" else 1e-3)


def _check_heads(dim: int, heads: int) -> None:
    if dim % heads or dim // heads < 8:
        raise ValueError(f"dim {dim} cannot be shared by {heads} heads of at least 8 numbers each")
