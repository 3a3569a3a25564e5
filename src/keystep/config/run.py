"""The settings of a pretraining run: data, model, target, masking, objective and optimisation.

YAML files, the command line's ``--set`` and Python use the same names. An error lists all problems at once and suggests
the nearest known name for an unknown one.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from keystep.config.base import Config, build, read_yaml
from keystep.config.model import ModelConfig
from keystep.config.times import Offset, Span, frames, needs_tau, seconds, settled_frames
from keystep.errors import InputError
from keystep.plugins import SPEC, TARGETS
from keystep.types import OnError, Rate

Offsets = Annotated[tuple[Offset, ...], Field(min_length=1)]

PASSES, LEAST_STEPS, MOST_PASSES = 12, 300, 40
"""Bounds of the default training length; docs/quality.md explains them."""
LOOKS = 12
"""Default number of health checks of the representation per training run."""
PYRAMID: tuple[Offset, ...] = (0.0, *(f"{sign * 0.9 * 2**level:g}tau" for level in range(7) for sign in (-1, 1)))
"""Default target offsets, on time scales from a gesture to half an hour of surgery."""


def _target_name(name: str) -> str:
    """Reject an unknown target. A ``package.module:Name`` is resolved on use, so settings load without it."""
    if not SPEC.fullmatch(name):
        TARGETS.check(name)
    return name


class TargetConfig(Config):
    """The prediction target."""

    kind: Annotated[str, AfterValidator(_target_name)] = "features"
    """``ema``: latents of an exponential moving average of the encoder (the paper). ``features``: the input features;
    with ``offsets`` (0,), this is masked reconstruction. ``clusters``: the k-means cluster of the input frame, as in
    HuBERT. A target of your own can be named too (``keystep plugins`` lists them)."""
    layers: int = Field(default=1, ge=1)
    """ema: average the outputs of this many last blocks."""
    normalise: Literal["none", "frame", "time"] = "none"
    """ema: standardisation of targets. ``frame``: each vector over its channels. ``time``: each channel over the frames
    of the video."""
    momentum: float = Field(default=0.999, ge=0, le=1)
    """ema: momentum of the moving average, the share of the old weights kept at each step."""
    final_momentum: float | None = Field(default=None, ge=0, le=1)
    """ema: momentum at the last step, reached on a cosine schedule. None: constant momentum."""
    clusters: int = Field(default=64, ge=2)
    """clusters, and features at several offsets: number of k-means clusters."""
    cluster_weight: float = Field(default=1.0, ge=0)
    """features at several offsets: weight of an auxiliary cross-entropy loss, whose target is the proportion of each
    cluster among the frames that are averaged."""
    components: int | None = Field(default=64, ge=1)
    """features: predict at most this many leading principal components of the frames (all tokens together) instead of
    all channels. None: predict all channels."""
    offsets: Offsets = PYRAMID
    """Offsets in time, relative to a frame, of the targets to predict; the targets are concatenated. With several
    offsets, a latent has to describe the frame's temporal neighbourhood. In seconds, or text such as 7.2tau. (0,): the
    frame's own target only (the paper)."""
    spread: float = Field(default=0.5, ge=0)
    """ema, features: length of the window over which a target is averaged, as a fraction of its offset. Distant targets
    then describe an interval, not a single frame."""
    smooth: int = Field(default=1, ge=1)
    """features, clusters: average the input over this odd number of frames to form the target, which reduces frame
    noise."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of a target of your own, which checks them itself."""

    @property
    def has_shares(self) -> bool:
        """Whether cluster proportions are predicted in addition to the features."""
        return self.kind == "features" and len(self.offsets) > 1 and self.cluster_weight > 0

    @model_validator(mode="after")
    def _width_is_odd(self) -> Self:
        if self.smooth % 2 == 0:
            raise ValueError(f"smooth must be odd, not {self.smooth}")
        return self

    @model_validator(mode="after")
    def _own_targets_have_named_settings(self) -> Self:
        if self.settings and self.kind in TARGETS.own:
            name = next(iter(self.settings))
            raise ValueError(f"settings.{name}: only targets of your own have these; set target.{name} for {self.kind}")
        return self

    @model_serializer(mode="wrap")
    def _leave_out_empty_settings(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Records of a run and their hashes are the same as before there were such settings."""
        return {name: value for name, value in dump(self).items() if name != "settings" or value}


class MaskingConfig(Config):
    """Masking: which frames are hidden from the encoder and predicted."""

    kind: Literal["random", "spans"] = "spans"
    """``random``: mask frames independently (the paper). ``spans``: mask spans of consecutive frames."""
    ratio: float = Field(default=0.6, gt=0, lt=1)
    """Fraction of frames to mask."""
    shortest: Span = "0.75tau"
    """spans: minimum span length, in frames or as text such as 8s."""
    longest: Span = "6tau"
    """spans: maximum span length. Lengths are drawn uniformly from ``shortest`` to ``longest``."""

    @model_validator(mode="after")
    def _lengths_ordered(self) -> Self:
        shortest, longest = self.shortest, self.longest
        if isinstance(shortest, int) and isinstance(longest, int) and shortest > longest:
            raise ValueError(f"shortest {self.shortest} must not exceed longest {self.longest}")
        return self


class ObjectiveConfig(Config):
    """The loss between predictions and targets."""

    distance: Literal["l1", "l2", "smooth_l1"] = "l2"
    """Loss for ``ema`` and ``features`` targets. Clusters always use cross-entropy."""
    visible_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss at visible frames, relative to hidden ones; 0 in the paper."""
    average: Literal["frames", "parts"] = "frames"
    """How the loss is averaged over a batch. ``frames``: every frame has equal weight. ``parts``: every gradient
    accumulation step has equal weight, however many frames it has, and those missing from an epoch's last batch count
    as zero (the authors)."""


class TrainConfig(Config):
    """Optimisation, data loading, checkpoints and logging."""

    steps: int = Field(default=0, ge=0)
    """Number of optimiser steps. 0: computed from the data, so that each frame is seen 12 times on average. This is
    raised to at least 300 steps, but limited to 40 passes over the data (docs/quality.md explains why)."""
    epochs: int | None = Field(default=None, ge=1)
    """Number of passes over the videos, as in the authors' code; the last batch of a pass may be smaller. If set,
    ``steps`` is computed from it."""
    batch_size: int = Field(default=2, ge=1)
    """Number of crops per optimiser step, over all devices."""
    crop: Span = "93tau"
    """Crop length, in frames or as text such as 100s. Crops are drawn at random positions; shorter videos are used
    whole."""
    crop_segments: int | None = Field(default=None, ge=1)
    """Crop this many consecutive true segments instead, as in the authors' code. Needs labels."""
    bucket: int | None = Field(default=None, ge=1)
    """Sort the shuffled videos by length within groups of this many batches, which reduces padding. The batches are
    then shuffled again."""
    accumulate: int = Field(default=1, ge=1)
    """Gradient accumulation steps per batch; more need less memory."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate."""
    schedule: Literal["cosine", "constant", "drop"] = "cosine"
    """Learning rate schedule. ``cosine``: decay to ``final_share``. ``drop``: divide by ten at ``drop_at`` (the
    paper)."""
    drop_at: float = Field(default=0.5, ge=0, le=1)
    """drop: fraction of the steps after which the learning rate drops."""
    final_share: float = Field(default=0.02, ge=0, le=1)
    """cosine: final learning rate, as a fraction of ``learning_rate``."""
    warmup: int = Field(default=100, ge=0)
    """Number of linear warm-up steps; at most a quarter of all steps."""
    weight_decay: float = Field(default=0.04, ge=0)
    """Weight decay of AdamW."""
    decay_all: bool = False
    """Apply weight decay to norms, biases and the mask token too, as in the authors' code."""
    clip: float = Field(default=1.0, gt=0)
    """Maximum gradient norm; larger gradients are clipped."""
    live_share: float = Field(default=0.5, ge=0, le=1)
    """Fraction of the steps that train with the model's ``live_attention``, if it has one."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Numerical precision: float32, or mixed precision with bfloat16."""
    accelerator: str = "auto"
    """``cpu``, ``cuda`` or ``auto``."""
    devices: int = Field(default=1, ge=1)
    """Number of devices per machine."""
    nodes: int = Field(default=1, ge=1)
    """Number of machines. Start one process per device with torchrun or SLURM."""
    workers: int = Field(default=0, ge=0)
    """Number of data loading processes. 0: load data in the training process."""
    seed: int = Field(default=0, ge=0)
    """Seed of the initial weights, crops and masks."""
    save_every: int = Field(default=500, ge=1)
    """Number of steps between checkpoints."""
    keep: int = Field(default=2, ge=1)
    """Number of most recent checkpoints to keep."""
    monitor_every: int = Field(default=0, ge=0)
    """Number of steps between health checks of the representation. 0: chosen so that there are 12 checks."""
    stop_early: bool = True
    """Stop early when predictions on the validation videos of ``data.split`` keep getting worse, and keep the weights
    of the best health check. Has no effect without validation videos, or with ``ema`` targets, which change during
    training."""
    log_every: int = Field(default=10, ge=1)
    """Number of steps between lines in metrics.jsonl."""
    tensorboard: bool = False
    """Also write TensorBoard files. Needs the extra ``track``."""

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        parts = self.accumulate * self.devices * self.nodes
        if self.batch_size % parts:
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of {parts} "
                f"({self.nodes} nodes x {self.devices} devices x {self.accumulate} accumulation steps), as it counts "
                f"the crops of all of them; set train.batch_size to {-(-self.batch_size // parts) * parts}"
            )
        return self

    @model_validator(mode="after")
    def _steps_are_known(self) -> Self:
        if self.crop_segments is not None and not self.steps and self.epochs is None:
            raise ValueError(
                "crop_segments: crops vary in length, so steps cannot be computed from the data; set steps or epochs"
            )
        return self

    @model_validator(mode="after")
    def _epochs_in_one_process(self) -> Self:
        if self.epochs is not None and self.devices * self.nodes > 1:
            raise ValueError(
                f"epochs {self.epochs} with {self.devices * self.nodes} processes: the last batch of an epoch cannot "
                "be divided evenly; set steps instead"
            )
        return self

    @property
    def crop_frames(self) -> int:
        """Crop length in frames, once resolved (`RunConfig.settled`)."""
        return settled_frames(self.crop)

    def settled_steps(self, lengths: Sequence[int]) -> int:
        """Return the number of optimiser steps for videos of these lengths in frames."""
        if self.epochs is not None:
            return self.epochs * self.steps_an_epoch(len(lengths))
        if self.steps:
            return self.steps
        seen = sum(min(length, self.crop_frames) for length in lengths) / len(lengths) * self.batch_size  # a step
        steps_a_pass = sum(lengths) / seen
        return ceil(min(max(LEAST_STEPS, PASSES * steps_a_pass), MOST_PASSES * steps_a_pass))

    def settled_looks(self, steps: int) -> int:
        """Return the number of steps between health checks for a run of ``steps`` steps."""
        return self.monitor_every or ceil(steps / LOOKS)

    def batches_an_epoch(self, videos: int) -> int:
        """Return the number of batches (gradient accumulation steps) in one pass over ``videos`` videos."""
        return -(-videos // (self.batch_size // self.accumulate))

    def steps_an_epoch(self, videos: int) -> int:
        """Return the number of optimiser steps in one pass over ``videos`` videos."""
        return -(-self.batches_an_epoch(videos) // self.accumulate)


class DataConfig(Config):
    """Which features to read, and how."""

    root: Path
    """Feature folder, with features/*.npy."""
    source_rate: Rate | None = None
    """Rate of the features on disk in Hz. Required if store.json does not state it."""
    rate: Rate | None = None
    """Average the features down to this rate in Hz. None: keep the source rate."""
    tau: float | None = Field(default=None, gt=0)
    """Decorrelation time of the features in seconds, the unit of times such as 7.2tau. None: measure it on the training
    videos."""
    split: Annotated[str | None, BeforeValidator(lambda value: None if value is None else str(value))] = None
    """Train on the training videos of this split. None: train on all videos of the folder."""
    groups: str | None = None
    """Regular expression that extracts a video's group (person or site) from its name, such as ^(P[0-9]+)_. If a
    validation part is taken from the training videos, groups are kept together. None: read splits/groups.csv, if
    there is one."""
    with_valid: bool = False
    """Also train on the split's validation videos, as in the authors' recipes, which have no validation part."""
    on_error: OnError = "raise"
    """``raise``: stop at a video that cannot be used. ``skip``: leave such videos out and list them."""

    @model_validator(mode="after")
    def _valid_of_a_split(self) -> Self:
        if self.with_valid and self.split is None:
            raise ValueError("with_valid needs a split; without one, all videos are used for training")
        return self


class RunConfig(Config):
    """All settings of a pretraining run."""

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
                f"target.layers {self.target.layers} must not exceed the encoder's depth, {self.model.depth}"
            )
        return self

    @model_validator(mode="after")
    def _readout_is_trained(self) -> Self:
        if self.model.readout_dim and (
            self.model.visible_predictions == "predictor" or not self.objective.visible_weight
        ):
            raise ValueError(
                f"readout_dim {self.model.readout_dim}: the readout layer would not be trained without a loss on "
                "predictions from visible latents; set model.readout_dim to null"
            )
        return self

    @property
    def needs_tau(self) -> bool:
        """Whether any setting depends on tau, the decorrelation time of the features."""
        spans = (self.masking.shortest, self.masking.longest) if self.masking.kind == "spans" else ()
        return len(self.model.bands) > 1 or needs_tau((*self.target.offsets, *spans, self.train.crop))

    def settled(self, tau: float | None, rate: float | Fraction) -> Self:
        """Return a copy with all offsets resolved to seconds and all spans to frames.

        Args:
            tau: decorrelation time of the features in seconds; may be None if `needs_tau` is False.
            rate: frames per second.
        """
        offsets = tuple(sorted({round(seconds(offset, tau), 3) for offset in self.target.offsets}))
        spans = {}
        if self.masking.kind == "spans":  # unused otherwise
            spans = {name: frames(getattr(self.masking, name), tau, rate) for name in ("shortest", "longest")}
        return self.model_copy(
            update={
                "data": self.data.model_copy(update={"tau": tau}),
                "model": self.model.model_copy(update={"tau": tau and tau * float(rate)}),
                "target": build(TargetConfig, self.target.model_dump(), {"offsets": offsets}),
                "masking": build(MaskingConfig, self.masking.model_dump(), spans),
                "train": self.train.model_copy(update={"crop": max(2, frames(self.train.crop, tau, rate))}),
            }
        )


def run_config(run: Path) -> RunConfig:
    """Read the settings of an existing run.

    Raises:
        InputError: if the folder has no ``config.yaml``, or the file has unknown names or invalid values.
    """
    if not (run / "config.yaml").exists():
        raise InputError(f"{run}: no config.yaml; not the folder of a run")
    settings = read_yaml(run / "config.yaml")
    try:
        return build(RunConfig, settings)
    except InputError as error:
        raise InputError(f"{run / 'config.yaml'}: {error}") from error


def seed_runs(folder: Path) -> list[Path]:
    """Return the runs ``seed0``, ``seed1``, ... of `keystep pretrain --seeds` in a folder, ordered by seed."""
    runs = (path.parent for path in folder.glob("seed*/config.yaml") if path.parent.name[4:].isdigit())
    return sorted(runs, key=lambda run: int(run.name[4:]))
