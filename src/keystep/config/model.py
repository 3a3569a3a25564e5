"""Settings of the encoder and predictor, and the properties derived from them, such as the widths of latent bands."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from keystep.config.attention import AttentionPattern
from keystep.config.base import Config
from keystep.config.times import averaged_frames

Band = Literal["frame", "around", "memory", "ahead", "steady", "context"]
WINDOWS = (0.9, 1.8, 3.6, 7.2)
"""Offsets of the windows of the band ``around``, in tau: on both sides of the frame, or only before it if causal."""
HALF_LIVES = tuple(2.0**power for power in range(-1, 7))
"""Half-lives of the exponential averages in the band ``around``, in tau."""

MOST_WIDTH, MOST_BLOCKS, MOST_INPUTS = 1 << 15, 256, 1 << 24
"""Upper bounds for widths, blocks and values per slot; larger values indicate a typing error or a damaged file."""
MOST_WEIGHTS = 20e9
"""Upper bound for the number of weights."""


class ModelConfig(Config):
    """Settings of the encoder and predictor. The defaults are the preset ``tiny``."""

    input_dim: int | None = Field(default=None, ge=1, le=MOST_INPUTS)
    """Dimension of the features, D_in. Set from the data."""
    tokens: int | None = Field(default=None, ge=1, le=MOST_INPUTS)
    """Number of tokens per slot, such as patches. With more than one, an attentive pooler, trained with the same loss,
    reduces them to one vector. Set from the data: the number in store.json, or else 1 (no pooler)."""
    pooler_depth: int = Field(default=1, ge=0, le=MOST_BLOCKS)
    """Number of self-attention blocks over the tokens of a slot before they are pooled."""
    dim: int = Field(default=96, ge=8, le=MOST_WIDTH)
    """Hidden dimension of the encoder and predictor, D."""
    depth: int = Field(default=4, ge=1, le=MOST_BLOCKS)
    """Number of encoder blocks."""
    heads: int = Field(default=4, ge=1, le=MOST_WIDTH)
    """Number of attention heads in each encoder block."""
    predictor_depth: int = Field(default=2, ge=1, le=MOST_BLOCKS)
    """Number of predictor blocks. The predictor has the encoder's hidden dimension."""
    predictor_heads: int | None = Field(default=None, ge=1, le=MOST_WIDTH)
    """Number of attention heads in each predictor block. None: the same as the encoder."""
    mlp_ratio: float = Field(default=4.0, gt=0, le=64)
    """Hidden dimension of each MLP, as a multiple of ``dim``."""
    attention: AttentionPattern = AttentionPattern()
    """Default attention pattern of the encoder."""
    live_attention: AttentionPattern | None = AttentionPattern(kind="causal")
    """A second, causal attention pattern for which the same weights are trained, so that one model can encode both
    recordings and live streams. None: train with ``attention`` only."""
    predictor_attention: AttentionPattern = AttentionPattern(kind="causal")
    """Attention pattern of the predictor. The paper's predictor is always causal."""
    visible_predictions: Literal["predictor", "encoder"] = "encoder"
    """Where the predictions at visible frames come from. ``predictor``: from the predictor, as at hidden frames (the
    paper). ``encoder``: from the ``context`` band of the frame's own latent through a linear layer, so that the latent
    has to contain what is predicted."""
    rotary: Literal["relative", "tiled"] = "relative"
    """Rotary position embedding. ``relative``: scores depend only on the distance between frames. ``tiled``: the
    authors' variant, whose scores do not; use it only for their checkpoints."""
    positions: Literal["frame", "segment"] = "frame"
    """Positions for the rotary embedding. ``frame``: the frame index. ``segment``: 2-D positions (segment index, frame
    index within the segment), which need true boundaries, so that the results are ORACLE."""
    input_norm: Literal["layer", "channel"] = "channel"
    """Input normalisation. ``layer``: LayerNorm of each feature vector (the paper). ``channel``: standardise each
    channel with its mean and standard deviation over the training videos, which preserves differences in scale between
    vectors."""
    centring: bool = True
    """Per-video mean subtraction; with causal attention, the running mean of the frames so far. It removes what is
    constant in a video, such as the person and the place. The paper does not use it."""
    readout: Literal["last", "mean"] = "last"
    """Which block outputs form the latent. ``last``: the last block's. ``mean``: the mean over all blocks, each
    normalised."""
    readout_dim: int | None = Field(default=384, ge=1, le=MOST_WIDTH)
    """Dimension of a readout layer (linear, GELU, LayerNorm) on top of the last block, whose output is the learned
    latent. None: no readout layer."""
    bands: Annotated[tuple[Band, ...], Field(min_length=1)] = (
        "frame",
        "around",
        "memory",
        "ahead",
        "steady",
        "context",
    )
    """Bands that are concatenated to form a latent. ``context`` is the learned representation and ``steady`` its moving
    average. The held bands are computed from the features: ``frame`` (the features themselves), ``around`` (averages
    around the frame), ``memory`` (a summary of the past) and, with bidirectional attention, ``ahead`` (a summary of the
    future). See `keystep.nn.bands`. The paper uses ``context`` alone."""
    input_around: bool = True
    """Give the encoder the band ``around``, computed from visible frames, as an additional input for each frame."""
    held_components: int = Field(default=64, ge=1, le=MOST_WIDTH)
    """Number of leading principal components that the held bands other than ``frame`` keep of wider features."""
    tau: float | None = Field(default=None, gt=0, le=100_000)
    """Decorrelation time of the features in frames, the unit of time of the held bands. Set from the data. None: no
    held bands."""
    output_dim: int | None = Field(default=None, ge=1, le=MOST_INPUTS)
    """Dimension of the predictions. None: ``dim``, without an output projection. Set from the target."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        for heads in (self.heads, self.predictor_heads or self.heads):
            if self.dim % heads or self.dim // heads < 8:
                raise ValueError(f"dim {self.dim} must be a multiple of heads {heads}, at least 8 times as large")
        return self

    @model_validator(mode="after")
    def _can_be_held(self) -> Self:
        weights = (self.depth + self.predictor_depth) * (4.0 + 2 * self.mlp_ratio) * self.dim**2
        if weights > MOST_WEIGHTS:
            raise ValueError(f"dim {self.dim} and depth {self.depth} give {weights:.1e} weights; reduce one of them")
        return self

    @model_validator(mode="after")
    def _readout_of_one_block(self) -> Self:
        if self.readout == "mean" and self.readout_dim is not None:
            raise ValueError(
                f"readout mean cannot be combined with readout_dim {self.readout_dim}, which reads the last block "
                "only; set model.readout_dim to null"
            )
        return self

    @model_validator(mode="after")
    def _learned_bands_last(self) -> Self:
        learned = self.bands[-2:] if "steady" in self.bands else self.bands[-1:]
        if learned not in (("steady", "context"), ("context",)) or len(set(self.bands)) < len(self.bands):
            raise ValueError(
                f"bands {list(self.bands)}: list each band once, context last, and steady, if used, right before it"
            )
        return self

    @model_validator(mode="after")
    def _tokens_divide(self) -> Self:
        if self.input_dim is not None and self.input_dim % self.slot_tokens:
            raise ValueError(f"input_dim {self.input_dim} is not a multiple of tokens {self.slot_tokens}")
        return self

    @model_validator(mode="after")
    def _live_is_causal(self) -> Self:
        if self.live_attention is not None and self.live_attention.kind not in ("causal", "block_causal"):
            raise ValueError(f"live_attention {self.live_attention.kind!r} is not causal; use causal or block_causal")
        return self

    @property
    def slot_tokens(self) -> int:
        """Number of tokens per slot, N; 1 if not set."""
        return self.tokens or 1

    @property
    def token_width(self) -> int:
        """Width of each token; that of the features where a slot has one."""
        assert self.input_dim is not None
        return self.input_dim // self.slot_tokens

    @property
    def held(self) -> bool:
        """Whether latents have held bands, which need tau."""
        return self.tau is not None and not set(self.bands) <= {"context", "steady"}

    @property
    def context_dim(self) -> int:
        """Dimension of the learned band ``context``."""
        return self.readout_dim or self.dim

    def widths(self, pattern: AttentionPattern) -> dict[str, int]:
        """Return the bands of latents encoded with this attention pattern, in order, and their dimensions."""
        if self.tau is None or len(self.bands) == 1:
            return {"context": self.context_dim}
        frame = self.token_width
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
        """Return (offset of the centre in frames, odd length in frames) for each window of the band ``around``."""
        assert self.tau is not None
        if pattern.kind == "bidirectional":
            offsets = [0.0, *(sign * offset for offset in WINDOWS for sign in (-1, 1))]
            return [(round(each * self.tau), averaged_frames(abs(each) * self.tau / 2)) for each in offsets]
        shifts = [round(offset * self.tau) for offset in (0.0, WINDOWS[0] / 2, *WINDOWS)]
        widths = [min(averaged_frames(shift / 2), 2 * shift + 1) for shift in shifts]  # causal
        return [(-shift, width) for shift, width in zip(shifts, widths, strict=True)]

    @property
    def averaged_blocks(self) -> int:
        """Number of blocks whose outputs are averaged to form a latent."""
        return self.depth if self.readout == "mean" else 1

    @property
    def stream_attention(self) -> AttentionPattern | None:
        """Attention pattern for live streams: ``attention`` if it is causal, else ``live_attention``."""
        return self.attention if self.attention.kind in ("causal", "block_causal") else self.live_attention

    def limited(self, window: int) -> ModelConfig:
        """Return the same settings with attention on streams limited to ``window`` frames; it has to have no window."""
        pattern = self.stream_attention
        assert pattern is not None and pattern.window is None
        name = "attention" if pattern == self.attention else "live_attention"
        return self.model_copy(update={name: pattern.model_copy(update={"window": window})})

    @property
    def oracle(self) -> bool:
        """Whether the model depends on true segment boundaries."""
        return self.positions == "segment" or self.attention.oracle
