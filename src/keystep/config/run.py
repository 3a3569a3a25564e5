"""Every setting of keystep, once: frozen, checked, with its meaning under it.

Files (YAML), the command line's ``--set`` and Python use the same names. Unknown names are errors that suggest the
nearest one; errors list everything that is wrong at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from keystep.config.attention import AttentionPattern
from keystep.config.base import Config, build, read_yaml
from keystep.errors import InputError
from keystep.types import OnError, Rate

Offsets = Annotated[tuple[float, ...], Field(min_length=1)]
Scales = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]

PASSES, LEAST_STEPS = 12, 400
"""How long to train where nothing is said: docs/quality.md."""


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
    """What a visible frame's prediction is read from: the predictor, as at hidden frames (the paper), or the frame's
    latent itself through one linear map, so that what is predicted has to stand in the latent."""
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
    """What `encode` returns: the last block's output, or the mean over the blocks' (each normalised)."""
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


class TargetConfig(Config):
    """What has to be predicted of a frame."""

    kind: Literal["ema", "features", "clusters"] = "features"
    """``ema``: latents of a slow copy of the encoder (the paper). ``features``: the input itself; with ``offsets``
    (0,), masked reconstruction. ``clusters``: the k-means cluster of the input frame (as HuBERT)."""
    layers: int = Field(default=1, ge=1)
    """ema: average the outputs of the last so many blocks."""
    normalise: Literal["none", "frame", "time"] = "none"
    """ema: standardise each target vector, or each channel over the video's frames."""
    momentum: float = Field(default=0.999, ge=0, le=1)
    """ema: share of the old weights kept at each step."""
    final_momentum: float | None = Field(default=None, ge=0, le=1)
    """ema: momentum at the last step, reached along a cosine; None keeps it constant."""
    clusters: int = Field(default=128, ge=2)
    components: int | None = Field(default=64, ge=1)
    """features: predict this many leading principal components of the frames (with all their tokens) instead of all
    channels, where those are more; None: all channels."""
    offsets: Offsets = (-8.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 8.0)
    """Seconds from a frame at which the targets lie that it has to predict, side by side: with more than one, its
    latent has to say what its neighbourhood looks like. (0,): its own target alone (the paper)."""
    smooth: int = Field(default=1, ge=1)
    """features, clusters: average the input over this odd number of frames before it becomes a target, so that noise of
    single frames need not be predicted."""
    scales: Scales = (1,)
    """ema, features: predict the targets' averages over each of these odd numbers of frames, side by side."""

    @model_validator(mode="after")
    def _widths_are_odd(self) -> Self:
        for name, widths in (("smooth", (self.smooth,)), ("scales", self.scales)):
            for width in widths:
                if width % 2 == 0:
                    raise ValueError(f"{name} {width} has no middle frame; make it odd")
        if self.kind == "clusters" and self.scales != (1,):
            raise ValueError(f"scales {list(self.scales)}: clusters have no averages; set smooth")
        return self


class MaskingConfig(Config):
    """Which frames are hidden from the encoder and predicted."""

    kind: Literal["random", "spans"] = "spans"
    """``random``: every frame alone (the paper). ``spans``: stretches of neighbouring frames."""
    ratio: float = Field(default=0.6, gt=0, lt=1)
    """Share of the frames that is hidden."""
    shortest: int = Field(default=4, ge=1)
    """spans: smallest length in frames."""
    longest: int = Field(default=32, ge=1)
    """spans: largest length in frames; lengths are uniform in between."""

    @model_validator(mode="after")
    def _lengths_ordered(self) -> Self:
        if self.shortest > self.longest:
            raise ValueError(f"shortest span {self.shortest} is longer than the longest, {self.longest}")
        return self


class ObjectiveConfig(Config):
    """How a prediction is compared with its target."""

    distance: Literal["l1", "l2", "smooth_l1"] = "l2"
    """For ``ema`` and ``features`` targets; clusters are always compared by cross-entropy."""
    visible_weight: float = Field(default=1.0, ge=0)
    """Weight of the same loss on visible frames; 0 in the paper."""
    average: Literal["frames", "parts"] = "frames"
    """``frames``: every frame of a batch weighs the same. ``parts``: every accumulated part does, however many frames
    it has, and what an epoch's last batch lacks counts as zero (the authors)."""


class TrainConfig(Config):
    """The optimisation."""

    steps: int = Field(default=0, ge=0)
    """Optimiser steps. 0: worked out from the data, so that each frame is seen 12 times on average, 400 steps at least
    (docs/quality.md says why)."""
    epochs: int | None = Field(default=None, ge=1)
    """Train for so many passes over the videos instead, as the authors do: each ends with a smaller batch. ``steps`` is
    then worked out from the data."""
    batch_size: int = Field(default=4, ge=1)
    """Crops an optimiser step sees, over all devices."""
    crop: int = Field(default=512, ge=2)
    """Frames of a crop, drawn anywhere in a video; shorter videos are used whole."""
    crop_segments: int | None = Field(default=None, ge=1)
    """Crop so many consecutive true segments instead (the authors); needs labels."""
    bucket: int | None = Field(default=None, ge=1)
    """Sort each so many batches' worth of shuffled videos by length before they are cut into batches, so that less is
    padded; the batches are shuffled again."""
    accumulate: int = Field(default=1, ge=1)
    """Parts in which a batch is worked off, to save memory."""
    learning_rate: float = Field(default=1e-3, gt=0)
    schedule: Literal["cosine", "constant", "drop"] = "cosine"
    """``cosine`` to ``final_share``; ``drop`` to a tenth at ``drop_at`` (the paper)."""
    drop_at: float = Field(default=0.5, ge=0, le=1)
    """drop: share of the steps after which the rate falls."""
    final_share: float = Field(default=0.02, ge=0, le=1)
    """Share of the learning rate that the cosine ends at."""
    warmup: int = Field(default=100, ge=0)
    """Steps of linear increase at the start."""
    weight_decay: float = Field(default=0.04, ge=0)
    decay_all: bool = False
    """Decay norms, biases and the mask token too, as the authors do."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    live_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the steps that train with the model's ``live_attention`` (when it has one)."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    accelerator: str = "auto"
    """``cpu``, ``cuda`` or ``auto``."""
    devices: int = Field(default=1, ge=1)
    """Devices on each machine."""
    nodes: int = Field(default=1, ge=1)
    """Machines (start one process a device with torchrun or SLURM)."""
    workers: int = Field(default=0, ge=0)
    """Processes that read data beside the training."""
    seed: int = Field(default=0, ge=0)
    save_every: int = Field(default=500, ge=1)
    """Steps between checkpoints."""
    keep: int = Field(default=2, ge=1)
    """Checkpoints kept."""
    monitor_every: int = Field(default=250, ge=1)
    """Steps between looks at the health of the representation."""
    log_every: int = Field(default=10, ge=1)
    """Steps between lines in metrics.jsonl."""
    tensorboard: bool = False
    """Write TensorBoard files too (extra: track)."""

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        parts = self.accumulate * self.devices * self.nodes
        if self.batch_size % parts:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be shared by {self.nodes} nodes x {self.devices} devices x "
                f"{self.accumulate} accumulated parts"
            )
        return self

    @model_validator(mode="after")
    def _steps_are_known(self) -> Self:
        if self.crop_segments is not None and not self.steps and self.epochs is None:
            raise ValueError("crop_segments: crops have no fixed length, so steps cannot be worked out; give steps")
        return self

    @model_validator(mode="after")
    def _epochs_in_one_process(self) -> Self:
        if self.epochs is not None and self.devices * self.nodes > 1:
            raise ValueError(
                f"epochs {self.epochs} with {self.devices * self.nodes} processes: an epoch's last batch cannot be "
                "shared evenly; give steps"
            )
        return self

    def settled_steps(self, lengths: Sequence[int]) -> int:
        """Optimiser steps over videos of so many frames each."""
        if self.epochs is not None:
            return self.epochs * self.steps_an_epoch(len(lengths))
        seen = sum(min(length, self.crop) for length in lengths) / len(lengths) * self.batch_size  # frames a step
        return self.steps or max(LEAST_STEPS, ceil(PASSES * sum(lengths) / seen))

    def batches_an_epoch(self, videos: int) -> int:
        """Batches, the accumulated parts of steps, in one pass over so many videos."""
        return -(-videos // (self.batch_size // self.accumulate))

    def steps_an_epoch(self, videos: int) -> int:
        """Optimiser steps in one pass over so many videos."""
        return -(-self.batches_an_epoch(videos) // self.accumulate)


class DataConfig(Config):
    """Which features to read."""

    root: Path
    """A folder with features/*.npy."""
    source_rate: Rate | None = None
    """Features a second on disk, where store.json does not say."""
    rate: Rate | None = None
    """Work at this rate by averaging; None keeps the source rate."""
    split: Annotated[str | None, BeforeValidator(lambda value: None if value is None else str(value))] = None
    """Pretrain on the training videos of this split; None: on all videos of the folder."""
    groups: str | None = None
    """A regular expression that finds a video's person or site in its name, such as ^(P[0-9]+)_, so that a validation
    part that is cut from training holds whole groups; None: as splits/groups.csv says, where it is."""
    with_valid: bool = False
    """Pretrain on the split's validation videos, too, as the authors' recipes do (they have no such part)."""
    on_error: OnError = "raise"
    """``skip`` leaves bad videos out and lists them."""

    @model_validator(mode="after")
    def _valid_of_a_split(self) -> Self:
        if self.with_valid and self.split is None:
            raise ValueError("with_valid without a split: all videos are trained on anyway; leave it out")
        return self


class RunConfig(Config):
    """A whole pretraining run."""

    data: DataConfig
    model: ModelConfig = ModelConfig()
    target: TargetConfig = TargetConfig()
    masking: MaskingConfig = MaskingConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _enough_layers(self) -> Self:
        if self.target.layers > self.model.depth:
            raise ValueError(
                f"target.layers {self.target.layers} are more than the encoder's {self.model.depth} blocks"
            )
        return self


def run_config(run: Path) -> RunConfig:
    """Read the settings of an existing run.

    Raises:
        InputError: the folder has no ``config.yaml``, or one with unknown names or bad values.
    """
    if not (run / "config.yaml").exists():
        raise InputError(f"{run}: no config.yaml; this is not a run that can be resumed")
    settings = read_yaml(run / "config.yaml")
    try:
        return build(RunConfig, settings)
    except InputError as error:
        raise InputError(f"{run / 'config.yaml'}: {error}") from error
