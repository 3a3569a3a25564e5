"""Set up a pretraining run: data, settings that depend on them, model, target, optimiser and monitor."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction

import numpy as np
import torch
from lightning_fabric import Fabric

from keystep.batch import SequenceBatch
from keystep.config import DataConfig, ModelConfig, RunConfig
from keystep.config.base import build
from keystep.config.times import settled_frames
from keystep.data.crops import collate
from keystep.data.folder import FeatureFolder, open_dataset
from keystep.data.problems import Problems
from keystep.data.statistics import Statistics, measure
from keystep.data.time_scale import decorrelation_time
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
"""Environment variables in which launchers give a process its rank."""
POLL_SECONDS = 0.5
"""Interval at which the other processes are checked."""
MONITOR_VIDEOS = 8
FRAMES_A_CLUSTER = 8
CLOCK_VIDEOS, CALIBRATION_VIDEOS = 64, 32
"""Number of evenly spaced videos on which the time scale and the deviations of the targets are measured."""


def open_fabric(config: RunConfig) -> Fabric:
    """Launch Fabric with the devices, nodes and precision of ``config.train``.

    Raises:
        InputError: another number of processes than configured was launched, or a device or precision is not available.
    """
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
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"  # positions need float64, which others lack
    try:
        fabric = Fabric(
            accelerator=accelerator,
            devices=train.devices,
            num_nodes=train.nodes,
            precision=train.precision,
            strategy="ddp_find_unused_parameters_true" if processes > 1 else "auto",  # a step uses one attention of two
        )
        fabric.launch()
    except (RuntimeError, ValueError) as error:
        raise InputError(f"train.accelerator {accelerator}, {train.devices} devices: {error}") from error
    return fabric


def is_first_process() -> bool:
    """Whether this process has rank 0 according to the environment, which is known before Fabric is launched."""
    return all(os.environ.get(name, "0") == "0" for name in RANKS)


@contextmanager
def watch_processes(fabric: Fabric, message: Callable[[], str]) -> Iterator[None]:
    """While active, exit with ``message`` (status 2) when a process that this one started has died.

    Otherwise Fabric would kill this process without a message. Most failures appear as errors of the next collective
    operation; this one covers those during long local work.
    """
    launcher, over = getattr(fabric.strategy, "launcher", None), threading.Event()

    def watch() -> None:
        while not over.wait(POLL_SECONDS):
            if any(child.poll() for child in launcher.procs) and not over.wait(2 * POLL_SECONDS):  # type: ignore[union-attr]
                print(f"keystep: error: {message()}", file=sys.stderr, flush=True)
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
    """Open the data set of a run and read all training videos once.

    Args:
        config: settings of the run.
        progress: reports the videos.

    Returns:
        (folder, training videos, held-out videos for the monitor, channel statistics of the training videos).

    Raises:
        InputError: as for `open_dataset` and `keystep.data.statistics.measure`.
    """
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
            folder.with_tokens(config.model.tokens),
            videos,
            config.train.seed,
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


def build_model(config: RunConfig) -> PJEPA:
    """Build the untrained model of a run, a function of its config and seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        return PJEPA(config.model)


def settle_config(config: RunConfig, folder: FeatureFolder, videos: Sequence[str], progress: Progress) -> RunConfig:
    """Fill in the settings that depend on the data: times in seconds and frames, widths, steps where none are given.

    Args:
        config: the settings as given.
        folder: the data set at the run's rate.
        videos: the training videos.
        progress: gets messages about tau and the resulting times.

    Raises:
        InputError: the features are constant, so that tau is undefined; or all target offsets exceed the crops.
    """
    rate, tau = folder.timeline.rate, config.data.tau
    if tau is None and config.needs_tau:
        try:
            clock = decorrelation_time(folder.every_vector(_sample_evenly(videos, CLOCK_VIDEOS)), rate)
        except InputError as error:
            raise InputError(f"{folder.root}: {error}, or state data.tau in seconds") from error
        progress.message(f"the autocorrelation of the features falls to one half after {clock}")
        tau = clock.tau
    lengths = [folder.length(name) for name in videos]
    config = _limit_clusters(config.settled(tau, rate), sum(lengths))
    _check_offsets(config, lengths, rate)
    widths = {
        "input_dim": folder.width,
        "tokens": folder.with_tokens(config.model.tokens).tokens,
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
    progress.message(_describe_times(config, float(rate)))
    return config


def _limit_clusters(config: RunConfig, frames: int) -> RunConfig:
    """Limit the clusters of the target to one per `FRAMES_A_CLUSTER` of ``frames`` frames."""
    target = config.target
    if not target.has_shares:
        return config
    clusters = min(target.clusters, max(2, frames // FRAMES_A_CLUSTER))
    return config.model_copy(update={"target": target.model_copy(update={"clusters": clusters})})


def _describe_times(config: RunConfig, rate: float) -> str:
    """One line with the resulting times in seconds."""
    distances = sorted(abs(offset) for offset in config.target.offsets if isinstance(offset, float) and offset)
    parts = [f"targets {_format_seconds(distances[0])} to {_format_seconds(distances[-1])} s away"] if distances else []
    if config.masking.kind == "spans":
        spans = (settled_frames(span) / rate for span in (config.masking.shortest, config.masking.longest))
        parts.append("spans of {} to {} s hidden".format(*map(_format_seconds, spans)))
    if config.train.crop_segments is None:
        parts.append(f"crops of {_format_seconds(config.train.crop_frames / rate)} s")
    return ", ".join([*parts, f"{config.train.steps} steps"])


def _format_seconds(seconds: float) -> str:
    return f"{seconds:.3g}" if seconds < 100 else f"{seconds:,.0f}"


def _check_offsets(config: RunConfig, lengths: Sequence[int], rate: Fraction) -> None:
    """Raise InputError if all offsets exceed the crops; warn if all round to the same frame at this rate."""
    shifts = shifts_of(config.target.offsets, rate)
    if len(config.target.offsets) > 1 and len(shifts) == 1:
        log.warning(
            "target.offsets all round to the same frame at %s frames per second, so the target is that of one frame; "
            "set target.offsets to longer times",
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
    """Build model, target and optimiser on the device.

    The target's offsets are calibrated on up to `CALIBRATION_VIDEOS` training videos. Processes share the main one's
    target, because k-means may differ between machines.

    Args:
        config: settings of the run, complete.
        fabric: of the run.
        statistics: of the training videos.
        folder: the data set.
        videos: the training videos.
    """
    model = build_model(config)
    set_statistics(model.encoder, statistics)
    target = build_target(config.target, model.encoder, statistics, config.train.seed, folder.timeline.rate)
    target = target.to(fabric.device)
    kind = TARGETS.find(config.target.kind)
    if not (kind.moves or kind.ids):
        target.calibrate(
            (
                SequenceBatch.pad([folder.features(name)]).to(fabric.device)
                for name in _sample_evenly(videos, CALIBRATION_VIDEOS)
            ),
            config.model.attention,
        )
    if fabric.world_size > 1:
        for tensor in target.state_dict().values():
            tensor.copy_(fabric.broadcast(tensor))
    optimizer = build_optimizer(model, config.train)
    wrapped, wrapped_optimizer = fabric.setup(model, optimizer)
    return Learner(config, fabric, model, wrapped, target, wrapped_optimizer)


def buffers(model: PJEPA) -> dict[str, torch.Tensor]:
    """The model's buffers by name, such as channel statistics."""
    return dict(model.named_buffers())


def build_monitor(folder: FeatureFolder, videos: Sequence[str], config: RunConfig) -> Monitor:
    """Build the monitor from fixed crops of up to `MONITOR_VIDEOS` videos, from the middle of each.

    Args:
        folder: the data set.
        videos: to choose from.
        config: settings of the run, complete.

    Raises:
        InputError: none of the videos can be read.
    """
    labelled = bool(folder.classes) and all(folder.video(name).labels is not None for name in videos)
    chosen = _sample_evenly(videos, MONITOR_VIDEOS)
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


def _sample_evenly(videos: Sequence[str], count: int) -> Sequence[str]:
    """At most ``count`` of the videos, evenly spaced."""
    return videos if len(videos) <= count else [videos[place * len(videos) // count] for place in range(count)]
