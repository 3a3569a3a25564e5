"""Settings of encoder and predictor, and what follows from them: the bands of latents and their widths."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from keystep.config.attention import AttentionPattern
from keystep.config.base import Config
from keystep.config.times import averaged_frames

Band = Literal["frame", "around", "memory", "ahead", "steady", "context"]
WINDOWS = (0.9, 1.8, 3.6, 7.2)
"""Distances of the windows of the band ``around``, in tau, on either side or, with a shorter one, before the frame."""
HALF_LIVES = tuple(2.0**power for power in range(-1, 7))
"""Of its exponential averages, in tau."""


class ModelConfig(Config):
    """Encoder and predictor. The defaults are the preset ``tiny``."""

    input_dim: int | None = Field(default=None, ge=1)
    """Width of the features, D_in; filled in from the data."""
    tokens: int | None = Field(default=None, ge=1)
    """Tokens that a slot's features hold side by side, such as patches: an attentive pooler, trained by the same loss,
    makes one vector of them. Filled in from the data: what store.json says, else 1, which needs no pooler."""
    pooler_depth: int = Field(default=1, ge=0)
    """Blocks in which the tokens of a slot see each other before they are pooled."""
    dim: int = Field(default=96, ge=8)
    """Width of the latents, D."""
    depth: int = Field(default=4, ge=1)
    """Blocks of the encoder."""
    heads: int = Field(default=4, ge=1)
    predictor_depth: int = Field(default=2, ge=1)
    """Blocks of the predictor, which has the encoder's width."""
    predictor_heads: int | None = Field(default=None, ge=1)
    """By default as many as the encoder."""
    mlp_ratio: float = Field(default=4.0, gt=0)
    attention: AttentionPattern = AttentionPattern()
    """Which frames the encoder lets see each other when nothing else is asked for."""
    live_attention: AttentionPattern | None = AttentionPattern(kind="causal")
    """A second, causal attention that the same weights are trained for, so that one model serves recordings and live
    streams; None for a model with one mode."""
    predictor_attention: AttentionPattern = AttentionPattern(kind="causal")
    """The paper's predictor is causal, whatever the encoder is."""
    visible_predictions: Literal["predictor", "encoder"] = "encoder"
    """What a visible frame's prediction is read from: the predictor, as at hidden frames (the paper), or the learned
    band of the frame's latent through one linear map, so that what is predicted has to stand in it."""
    rotary: Literal["relative", "tiled"] = "relative"
    """``tiled`` is the authors' variant, for their checkpoints only: its scores are no function of distance."""
    positions: Literal["frame", "segment"] = "frame"
    """``segment``: 2-D positions (segment, frame in it); needs the true boundaries, so its results are ORACLE."""
    input_norm: Literal["layer", "channel"] = "channel"
    """``layer``: LayerNorm of each feature vector, as in the paper. ``channel``: each channel standardised by its mean
    and deviation over the training videos, which keeps the scale of a vector."""
    centring: bool = True
    """Subtract each video's mean from its features: that of all its frames where attention sees the future, that of the
    frames so far where it does not. The paper does not; it takes out who and where, and leaves what is done."""
    readout: Literal["last", "mean"] = "last"
    """What a latent is read from: the last block's output, or the mean over the blocks' (each normalised)."""
    readout_dim: int | None = Field(default=384, ge=1)
    """Width of a map, GELU and LayerNorm behind it, whose output is the latent; None: what is read is the latent."""
    bands: Annotated[tuple[Band, ...], Field(min_length=1)] = (
        "frame",
        "around",
        "memory",
        "ahead",
        "steady",
        "context",
    )
    """What stands side by side in a latent: ``context`` is what is learned, ``steady`` its average over some tau; the
    others hold the features themselves, averages around the frame, what has been so far and, where attention sees it,
    what is still to come (`keystep.nn.bands`). The paper has the learned one alone."""
    input_around: bool = True
    """The encoder reads the band ``around`` of the visible frames beside each frame."""
    held_components: int = Field(default=64, ge=1)
    """Held bands other than ``frame`` keep so many leading principal components of wider features."""
    tau: float | None = Field(default=None, gt=0)
    """Frames after which the features are half forgotten, the unit of time of held bands; filled in from the data.
    None: no held bands."""
    output_dim: int | None = Field(default=None, ge=1)
    """Width of what is predicted; None: one latent, which the predictor gives without a projection. Filled in from the
    target."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        for heads in (self.heads, self.predictor_heads or self.heads):
            if self.dim % heads or self.dim // heads < 8:
                raise ValueError(f"dim {self.dim} cannot be shared by {heads} heads of at least 8 numbers each")
        return self

    @model_validator(mode="after")
    def _readout_of_one_block(self) -> Self:
        if self.readout == "mean" and self.readout_dim is not None:
            raise ValueError(
                f"readout mean with readout_dim {self.readout_dim}: that map learns from the last block's "
                "output; set model.readout_dim to null"
            )
        return self

    @model_validator(mode="after")
    def _learned_bands_last(self) -> Self:
        learned = self.bands[-2:] if "steady" in self.bands else self.bands[-1:]
        if learned not in (("steady", "context"), ("context",)) or len(set(self.bands)) < len(self.bands):
            raise ValueError(f"bands {list(self.bands)}: name each once, context as the last, steady right before it")
        return self

    @model_validator(mode="after")
    def _tokens_divide(self) -> Self:
        if self.input_dim is not None and self.input_dim % self.slot_tokens:
            raise ValueError(f"input_dim {self.input_dim} cannot hold {self.slot_tokens} tokens of equal width")
        return self

    @model_validator(mode="after")
    def _live_is_causal(self) -> Self:
        if self.live_attention is not None and self.live_attention.kind not in ("causal", "block_causal"):
            raise ValueError(f"live_attention {self.live_attention.kind!r} sees the future; use causal or block_causal")
        return self

    @property
    def slot_tokens(self) -> int:
        """Tokens of a slot, N; 1 where nothing says."""
        return self.tokens or 1

    @property
    def held(self) -> bool:
        """Whether latents have held bands, which need to know how fast the features change."""
        return self.tau is not None and not set(self.bands) <= {"context", "steady"}

    @property
    def context_dim(self) -> int:
        """Width of the learned band."""
        return self.readout_dim or self.dim

    def widths(self, pattern: AttentionPattern) -> dict[str, int]:
        """The bands of latents that are encoded with this attention, in order, and their widths."""
        if self.tau is None or len(self.bands) == 1:
            return {"context": self.context_dim}
        assert self.input_dim is not None
        frame = self.input_dim // self.slot_tokens
        parts, sees_all = min(frame, self.held_components), pattern.kind == "bidirectional"
        known = {
            "frame": frame,
            "around": parts * (len(self.windows(pattern)) + (1 + sees_all) * len(HALF_LIVES)),
            "memory": 4 * parts + 1,
            "ahead": 4 * parts,
            "steady": self.context_dim,
            "context": self.context_dim,
        }
        return {band: known[band] for band in self.bands if band != "ahead" or sees_all}

    def windows(self, pattern: AttentionPattern) -> list[tuple[int, int]]:
        """(frames from the present one to the middle, odd number of frames) of each window of the band ``around``."""
        assert self.tau is not None
        if pattern.kind == "bidirectional":
            offsets = [0.0, *(sign * offset for offset in WINDOWS for sign in (-1, 1))]
            return [(round(each * self.tau), averaged_frames(abs(each) * self.tau / 2)) for each in offsets]
        shifts = [round(offset * self.tau) for offset in (0.0, WINDOWS[0] / 2, *WINDOWS)]
        widths = [min(averaged_frames(shift / 2), 2 * shift + 1) for shift in shifts]  # none reaches ahead
        return [(-shift, width) for shift, width in zip(shifts, widths, strict=True)]

    @property
    def averaged_blocks(self) -> int:
        """How many blocks' outputs make a latent."""
        return self.depth if self.readout == "mean" else 1

    @property
    def stream_attention(self) -> AttentionPattern | None:
        """The attention that a live stream can use: the model's own if it never looks ahead, else the live one."""
        return self.attention if self.attention.kind in ("causal", "block_causal") else self.live_attention

    @property
    def oracle(self) -> bool:
        """Whether the model reads true segment boundaries."""
        return self.positions == "segment" or self.attention.oracle
