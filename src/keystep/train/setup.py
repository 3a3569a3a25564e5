"""What a pretraining run begins with: data, settled settings, model, target, optimiser and monitor."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction

import numpy as np
import torch
from lightning_fabric import Fabric

from keystep.batch import SequenceBatch
from keystep.config import DataConfig, ModelConfig, RunConfig
from keystep.config.base import build
from keystep.config.times import settled_frames
from keystep.data.clock import decorrelation_time
from keystep.data.crops import collate
from keystep.data.folder import FeatureFolder, open_dataset
from keystep.data.problems import Problems
from keystep.data.statistics import Statistics, measure
from keystep.diagnostics import Monitor, pad_labels
from keystep.errors import InputError
from keystep.masking import draw_hidden
from keystep.pjepa import PJEPA
from keystep.plugins import TARGETS
from keystep.progress import Progress
from keystep.target import build_target, prediction_width, set_statistics, shifts_of
from keystep.train.step import Learner, build_optimizer

log = logging.getLogger(__name__)

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
"""Environment variables in which launchers tell processes their numbers."""
LOOK_SECONDS = 0.5
"""Between two looks at whether other processes live."""
MONITOR_VIDEOS = 8
FRAMES_A_CLUSTER = 8
CLOCK_VIDEOS, CALIBRATION_VIDEOS = 64, 32
"""Videos, evenly spaced over all, that the time scale and the deviations of the targets are measured on."""


def open_fabric(config: RunConfig) -> Fabric:
    train = config.train
    processes = train.devices * train.nodes
    launched = int(os.environ.get("WORLD_SIZE", processes))
    if launched != processes:  # each would train alone, in the same folder
        raise InputError(
            f"the launcher started {launched} processes, the settings ask for {train.nodes} nodes x {train.devices} "
            "devices; set train.nodes and train.devices to what was launched"
        )
    accelerator = train.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"  # others lack float64, which positions need
    try:
        fabric = Fabric(
            accelerator=accelerator,
            devices=train.devices,
            num_nodes=train.nodes,
            precision=train.precision,
            strategy="ddp_find_unused_parameters_true" if processes > 1 else "auto",  # a step has one of two attentions
        )
        fabric.launch()
    except (RuntimeError, ValueError) as error:
        raise InputError(f"train.accelerator {accelerator}, {train.devices} devices: {error}") from error
    return fabric


def is_first_process() -> bool:
    """Whether this is the one of all processes of a training that writes, as far as is known before they meet."""
    return all(os.environ.get(name, "0") == "0" for name in RANKS)


@contextmanager
def telling_deaths(fabric: Fabric, said: Callable[[], str]) -> Iterator[None]:
    """End this process with one line once another one that it started has died, before Fabric kills it without a word.

    Most deaths show as errors of the next exchange; the line is for those that come in the middle of long work.
    """
    launcher, over = getattr(fabric.strategy, "launcher", None), threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_SECONDS):
            if any(child.poll() for child in launcher.procs) and not over.wait(2 * LOOK_SECONDS):  # type: ignore[union-attr]
                print(f"keystep: error: {said()}", file=sys.stderr, flush=True)
                os._exit(2)

    if getattr(launcher, "procs", None):
        threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def read_data(
    config: RunConfig, progress: Progress
) -> tuple[FeatureFolder, tuple[str, ...], tuple[str, ...], Statistics]:
    """(folder, training videos, held-out videos for the monitor, channel statistics of the training videos)."""
    data = config.data
    folder = open_dataset(
        data.root,
        source_rate=data.source_rate,
        rate=data.rate,
        problems=Problems(on_error=data.on_error),
        labels_needed=config.model.oracle or config.train.crop_segments is not None,
        groups=data.groups,
    )
    if folder.problems.notes:
        log.warning(
            "%s (%d such notes; keystep inspect lists them)", folder.problems.notes[0], len(folder.problems.notes)
        )
    videos, held_out = _parts(folder, data)
    with progress.task("reading videos", total=len(videos), unit="videos") as task:
        statistics, readable = measure(
            folder,
            videos,
            config.train.seed,
            tokens=folder.tokens_as(config.model.tokens),
            centred=config.model.centring,
            smooth=config.target.smooth,
            progress=lambda video: task.advance(note=video),
        )
    return folder, readable, held_out, statistics


def _parts(folder: FeatureFolder, data: DataConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(videos to train on, videos held out for the monitor)."""
    if data.split is None:
        return tuple(sorted(folder.videos)), ()
    split = folder.split(data.split)
    return (split.train + split.valid, ()) if data.with_valid else (split.train, split.valid)


def fresh_model(config: RunConfig) -> PJEPA:
    """The untrained model of a run; depends on its seed and config only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        return PJEPA(config.model)


def settled(config: RunConfig, folder: FeatureFolder, videos: Sequence[str], progress: Progress) -> RunConfig:
    """The config with what only the data can say: times in seconds and frames, widths, steps where none are given.

    Raises:
        InputError: the features never change, so that they have no time scale; offsets that no crop reaches.
    """
    rate, tau = folder.timeline.rate, config.data.tau
    if tau is None and config.needs_tau:
        try:
            clock = decorrelation_time(_Vectors(folder, _spread(videos, CLOCK_VIDEOS)), rate)
        except InputError as error:
            raise InputError(f"{folder.root}: {error}, or state data.tau in seconds") from error
        progress.message(f"the features are half forgotten after {clock}")
        tau = clock.tau
    lengths = [folder.length(name) for name in videos]
    config = _with_clusters(config.settled(tau, rate), sum(lengths))
    _check_offsets(config, lengths, rate)
    widths = {
        "input_dim": folder.width,
        "tokens": folder.tokens_as(config.model.tokens),
        "output_dim": prediction_width(config.target, folder.width, config.model.dim, rate),
    }
    steps = config.train.settled_steps(lengths)
    warmup, monitor_every = min(config.train.warmup, steps // 4), config.train.settled_looks(steps)
    config = config.model_copy(
        update={
            "model": build(ModelConfig, config.model.model_dump(), widths),
            "train": config.train.model_copy(update={"steps": steps, "warmup": warmup, "monitor_every": monitor_every}),
        }
    )
    progress.message(_in_seconds(config, float(rate)))
    return config


def _with_clusters(config: RunConfig, frames: int) -> RunConfig:
    """With no more clusters beside the features than so many frames can tell apart."""
    target = config.target
    if not target.has_shares:
        return config
    clusters = min(target.clusters, max(2, frames // FRAMES_A_CLUSTER))
    return config.model_copy(update={"target": target.model_copy(update={"clusters": clusters})})


def _in_seconds(config: RunConfig, rate: float) -> str:
    """What the settled times come to."""
    distances = sorted(abs(offset) for offset in config.target.offsets if isinstance(offset, float) and offset)
    parts = [f"targets {_readable(distances[0])} to {_readable(distances[-1])} s away"] if distances else []
    if config.masking.kind == "spans":
        spans = (settled_frames(span) / rate for span in (config.masking.shortest, config.masking.longest))
        parts.append("spans of {} to {} s hidden".format(*map(_readable, spans)))
    if config.train.crop_segments is None:
        parts.append(f"crops of {_readable(config.train.crop_frames / rate)} s")
    return ", ".join([*parts, f"{config.train.steps} steps"])


def _readable(seconds: float) -> str:
    return f"{seconds:.3g}" if seconds < 100 else f"{seconds:,.0f}"


class _Vectors(Iterable[np.ndarray]):
    """The vectors of some videos, read one video at a time whenever somebody goes through them."""

    def __init__(self, folder: FeatureFolder, videos: Sequence[str]) -> None:
        self.folder, self.videos = folder, videos

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self.folder.vectors, self.videos)


def _check_offsets(config: RunConfig, lengths: Sequence[int], rate: Fraction) -> None:
    """Refuse offsets that no crop reaches, and say it where the rate makes one of them all."""
    shifts = shifts_of(config.target.offsets, rate)
    if len(config.target.offsets) > 1 and len(shifts) == 1:
        log.warning(
            "target.offsets are all within half a frame of each other at %s frames a second: a frame's target is that "
            "of one frame alone; set target.offsets to longer times",
            float(rate),
        )
    longest = min(max(lengths), config.train.crop_frames)
    if config.train.crop_segments is None and min(abs(shift) for shift in shifts) >= longest:
        raise InputError(
            f"target.offsets {list(config.target.offsets)} all reach beyond the longest crop, {longest} frames"
        )


def build_learner(
    config: RunConfig, fabric: Fabric, statistics: Statistics, folder: FeatureFolder, videos: Sequence[str]
) -> Learner:
    """Model, target and optimiser on their device."""
    model = fresh_model(config)
    set_statistics(model.encoder, statistics)
    target = build_target(config.target, model.encoder, statistics, config.train.seed, folder.timeline.rate)
    target = target.to(fabric.device)
    kind = TARGETS.find(config.target.kind)
    if not (kind.moves or kind.ids):
        target.calibrate(
            (
                SequenceBatch.pad([folder.features(name)]).to(fabric.device)
                for name in _spread(videos, CALIBRATION_VIDEOS)
            ),
            config.model.attention,
        )
    if fabric.world_size > 1:  # k-means may end elsewhere on another kind of machine
        for tensor in target.state_dict().values():
            tensor.copy_(fabric.broadcast(tensor))
    optimizer = build_optimizer(model, config.train)
    wrapped, wrapped_optimizer = fabric.setup(model, optimizer)
    return Learner(config, fabric, model, wrapped, target, wrapped_optimizer)


def buffers(model: PJEPA) -> dict[str, torch.Tensor]:
    return dict(model.named_buffers())


def build_monitor(folder: FeatureFolder, videos: Sequence[str], config: RunConfig) -> Monitor:
    """Fixed crops of up to 8 videos, from the middle of each."""
    labelled = bool(folder.classes) and all(folder.video(name).labels is not None for name in videos)
    chosen = _spread(videos, MONITOR_VIDEOS)
    batches, labels = [], []
    for index, name in enumerate(chosen):
        length = folder.length(name)
        start = max(0, (length - config.train.crop_frames) // 2)
        stop = min(length, start + config.train.crop_frames)
        hidden = draw_hidden(stop - start, config.masking, np.random.default_rng((config.train.seed, 3, index)))
        features = folder.problems.attempt(name, lambda name=name, a=start, b=stop: folder.features(name, a, b))  # type: ignore[misc]
        if features is None:
            continue
        ids = folder.labels(name)[start:stop] if labelled else None
        segments = folder.segment_lengths(name, start, stop) if config.model.oracle else None
        batches.append(collate([(features, hidden, segments)]))
        if ids is not None:
            labels.append(pad_labels([ids], stop - start))
    if not batches:
        raise InputError(f"{folder.root}: none of the {len(chosen)} held-out videos can be read")
    return Monitor(batches, labels if labelled else None, config.objective)


def _spread(videos: Sequence[str], count: int) -> Sequence[str]:
    """So many videos at most, evenly spaced."""
    return videos if len(videos) <= count else [videos[place * len(videos) // count] for place in range(count)]
