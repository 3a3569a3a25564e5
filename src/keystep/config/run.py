"""Every setting of keystep, once: frozen, checked, with its meaning under it.

Files (YAML), the command line's ``--set`` and Python use the same names. Unknown names are errors that suggest the
nearest one; errors list everything that is wrong at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from keystep.config.base import Config, build, read_yaml
from keystep.config.model import ModelConfig
from keystep.config.times import Offset, Span, frames, needs_tau, seconds, settled_frames
from keystep.errors import InputError
from keystep.plugins import SPEC, TARGETS
from keystep.types import OnError, Rate

Offsets = Annotated[tuple[Offset, ...], Field(min_length=1)]

PASSES, LEAST_STEPS, MOST_PASSES = 12, 300, 40
"""How long to train where nothing is said: docs/quality.md."""
LOOKS = 12
"""Looks at the representation in a training."""
PYRAMID: tuple[Offset, ...] = (0.0, *(f"{sign * 0.9 * 2**level:g}tau" for level in range(7) for sign in (-1, 1)))
"""Offsets of the targets: at every time scale from a gesture to half an hour of an operation."""


def _target_name(name: str) -> str:
    """Refuse what is no target. A module's is looked for when it is used: settings can be read without its code."""
    if not SPEC.fullmatch(name):
        TARGETS.check(name)
    return name


class TargetConfig(Config):
    """What has to be predicted of a frame."""

    kind: Annotated[str, AfterValidator(_target_name)] = "features"
    """``ema``: latents of a slow copy of the encoder (the paper). ``features``: the input itself; with ``offsets``
    (0,), masked reconstruction. ``clusters``: the k-means cluster of the input frame (as HuBERT). Or a target of your
    own (``keystep plugins``)."""
    layers: int = Field(default=1, ge=1)
    """ema: average the outputs of the last so many blocks."""
    normalise: Literal["none", "frame", "time"] = "none"
    """ema: standardise each target vector, or each channel over the video's frames."""
    momentum: float = Field(default=0.999, ge=0, le=1)
    """ema: share of the old weights kept at each step."""
    final_momentum: float | None = Field(default=None, ge=0, le=1)
    """ema: momentum at the last step, reached along a cosine; None keeps it constant."""
    clusters: int = Field(default=64, ge=2)
    """clusters, and features at several offsets: how many kinds of frames are told apart, by k-means."""
    cluster_weight: float = Field(default=1.0, ge=0)
    """features at several offsets: weight of a second target beside the first, which says what kinds of frames there
    are instead of how they look: the share of each cluster in each average, compared by cross-entropy."""
    components: int | None = Field(default=64, ge=1)
    """features: predict this many leading principal components of the frames (with all their tokens) instead of all
    channels, where those are more; None: all channels."""
    offsets: Offsets = PYRAMID
    """Times from a frame at which the targets lie that it has to predict, side by side: with more than one, its latent
    has to say what its neighbourhood looks like. Seconds, or a text such as 7.2tau. (0,): its own target alone (the
    paper)."""
    spread: float = Field(default=0.5, ge=0)
    """ema, features: average a target over this share of its distance, so that far ones say how things are there and
    not what a single frame shows."""
    smooth: int = Field(default=1, ge=1)
    """features, clusters: average the input over this odd number of frames before it becomes a target, so that noise of
    single frames need not be predicted."""

    @property
    def has_shares(self) -> bool:
        """Whether shares of clusters stand beside the features."""
        return self.kind == "features" and len(self.offsets) > 1 and self.cluster_weight > 0

    @model_validator(mode="after")
    def _width_is_odd(self) -> Self:
        if self.smooth % 2 == 0:
            raise ValueError(f"smooth {self.smooth} has no middle frame; make it odd")
        return self


class MaskingConfig(Config):
    """Which frames are hidden from the encoder and predicted."""

    kind: Literal["random", "spans"] = "spans"
    """``random``: every frame alone (the paper). ``spans``: stretches of neighbouring frames."""
    ratio: float = Field(default=0.6, gt=0, lt=1)
    """Share of the frames that is hidden."""
    shortest: Span = "0.75tau"
    """spans: smallest length, in frames or as a text such as 8s."""
    longest: Span = "6tau"
    """spans: largest length; lengths are uniform in between."""

    @model_validator(mode="after")
    def _lengths_ordered(self) -> Self:
        shortest, longest = self.shortest, self.longest
        if isinstance(shortest, int) and isinstance(longest, int) and shortest > longest:
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
    """Optimiser steps. 0: worked out from the data, so that each frame is seen 12 times on average, 300 steps at least,
    though no frame more than 40 times (docs/quality.md says why)."""
    epochs: int | None = Field(default=None, ge=1)
    """Train for so many passes over the videos instead, as the authors do: each ends with a smaller batch. ``steps`` is
    then worked out from the data."""
    batch_size: int = Field(default=2, ge=1)
    """Crops an optimiser step sees, over all devices."""
    crop: Span = "93tau"
    """Length of a crop, in frames or as a text such as 100s, drawn anywhere in a video; shorter videos are used
    whole."""
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
    """Steps of linear increase at the start, a quarter of all at most."""
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
    monitor_every: int = Field(default=0, ge=0)
    """Steps between looks at the health of the representation. 0: worked out, so that there are 12 looks."""
    stop_early: bool = True
    """Stop when predictions on held-out videos only get worse, and keep the weights of the best look. Held out are the
    validation videos of ``data.split``; without them, and with ``ema`` targets, which move, nothing stops."""
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
                f"{self.accumulate} accumulated parts; give a multiple of {parts}"
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

    @property
    def crop_frames(self) -> int:
        """Frames of a crop, once settled."""
        return settled_frames(self.crop)

    def settled_steps(self, lengths: Sequence[int]) -> int:
        """Optimiser steps over videos of so many frames each."""
        if self.epochs is not None:
            return self.epochs * self.steps_an_epoch(len(lengths))
        if self.steps:
            return self.steps
        seen = sum(min(length, self.crop_frames) for length in lengths) / len(lengths) * self.batch_size  # a step
        steps_a_pass = sum(lengths) / seen
        return ceil(min(max(LEAST_STEPS, PASSES * steps_a_pass), MOST_PASSES * steps_a_pass))

    def settled_looks(self, steps: int) -> int:
        """Steps between two looks, of so many in all."""
        return self.monitor_every or ceil(steps / LOOKS)

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
    tau: float | None = Field(default=None, gt=0)
    """Seconds after which the features are half forgotten, the unit of times such as 7.2tau; None: measured on the
    training videos."""
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

    @model_validator(mode="after")
    def _readout_is_trained(self) -> Self:
        if self.model.readout_dim and (
            self.model.visible_predictions == "predictor" or not self.objective.visible_weight
        ):
            raise ValueError(
                f"readout_dim {self.model.readout_dim} would stay random: only predictions of visible frames from "
                "their latents train it; set model.readout_dim to null"
            )
        return self

    @property
    def needs_tau(self) -> bool:
        """Whether a time is stated in units of the features' decorrelation time."""
        spans = (self.masking.shortest, self.masking.longest) if self.masking.kind == "spans" else ()
        return len(self.model.bands) > 1 or needs_tau((*self.target.offsets, *spans, self.train.crop))

    def settled(self, tau: float | None, rate: float | Fraction) -> Self:
        """With offsets in seconds and spans in frames.

        Args:
            tau: of the features, in seconds; None where nothing needs it.
            rate: frames a second.
        """
        offsets = tuple(sorted({round(seconds(offset, tau), 3) for offset in self.target.offsets}))
        spans = {}
        if self.masking.kind == "spans":  # else nothing reads them
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
        InputError: the folder has no ``config.yaml``, or one with unknown names or bad values.
    """
    if not (run / "config.yaml").exists():
        raise InputError(f"{run}: no config.yaml; this is not a run that can be resumed")
    settings = read_yaml(run / "config.yaml")
    try:
        return build(RunConfig, settings)
    except InputError as error:
        raise InputError(f"{run / 'config.yaml'}: {error}") from error


def seed_runs(folder: Path) -> list[Path]:
    """The runs ``seed0`` and so on that `keystep pretrain --seeds` made in a folder, in their order."""
    runs = (path.parent for path in folder.glob("seed*/config.yaml") if path.parent.name[4:].isdigit())
    return sorted(runs, key=lambda run: int(run.name[4:]))
