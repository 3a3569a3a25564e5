"""A pretraining run: a folder that says what was done, can be killed at any time, and goes on where it stopped.

::

    run/config.yaml            every setting
    run/metrics.jsonl          losses, rates and monitors by step
    run/checkpoints/step-*/    all that a resume needs
    run/model/                 the result: config.json + model.safetensors
"""

from __future__ import annotations

import logging
import math
import os
import shlex
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from lightning_fabric import Fabric
from torch.utils.data import DataLoader

from keystep import persistence
from keystep.config import DataConfig, ModelConfig, RunConfig
from keystep.config.base import build, write_yaml
from keystep.data.crops import Crops, TrainingBatch, collate
from keystep.data.folder import FeatureFolder, open_dataset
from keystep.data.problems import Problems
from keystep.data.statistics import Statistics, measure
from keystep.diagnostics import Health, Monitor, pad_labels
from keystep.errors import InputError, Interrupted
from keystep.masking import draw_hidden
from keystep.pjepa import PJEPA, Origin
from keystep.progress import SILENT, Progress, Task
from keystep.target import build_target, channel_norm, prediction_width, shifts_of
from keystep.train.records import Metrics
from keystep.train.state import Checkpoints, checkpoint_bytes
from keystep.train.step import Learner, StepResult, add_up, build_optimizer, train_step

log = logging.getLogger(__name__)

MONITOR_VIDEOS = 16


def pretrain(config: RunConfig, out: Path | str, *, resume: bool = False, progress: Progress = SILENT) -> PJEPA:
    """Train a P-JEPA and return it, in eval mode, as `keystep.load` of the run's folder would.

    Args:
        out: the run's folder; empty or absent, unless ``resume``.
        resume: go on from the newest checkpoint in ``out``, or from the start if none was written yet (``config`` must
            be the run's own, see `keystep.config.run_config`).
        progress: reports the steps; called in the main process only.

    Raises:
        InputError: bad settings, data or checkpoint; `MOST_IN_A_ROW` steps in a row without a finite gradient.
        Interrupted: Ctrl-C or SIGTERM, after saving.
    """
    run = Path(out)
    checkpoints = Checkpoints(run / "checkpoints", config.train.keep)
    _check_folder(run, resume)
    fabric = _fabric(config)
    progress = progress if fabric.is_global_zero else SILENT
    folder, videos, held_out, statistics = _read_data(config, progress)
    config = _settled(config, folder, videos)
    learner = _build(config, fabric, statistics, folder.timeline.rate)
    identity: dict[str, object] = {"fingerprint": folder.fingerprint(), "videos": list(videos)}
    start = _restore(learner, checkpoints, identity) if resume and checkpoints.steps() else 0
    if fabric.is_global_zero:
        _check_space(run, learner, checkpoints, start)
        if not resume:
            write_yaml(run / "config.yaml", config)
    crops = Crops(
        folder,
        videos,
        config.train,
        config.masking,
        segments=config.model.oracle,
        process=fabric.global_rank,
        processes=fabric.world_size,
    )
    monitor = _monitor(folder, held_out or videos, config)
    done, steps = start, config.train.steps
    with (
        _stop_signal() as asked_to_stop,
        progress.task(f"pretraining {run.name}", total=steps, unit="steps", initial=start) as task,
    ):
        observer = _Observer(learner, monitor, run, start, progress, task) if fabric.is_global_zero else None
        try:
            for done, result in enumerate(_steps(learner, crops, start), start=start + 1):
                if observer is not None:
                    try:
                        observer.after(done, result)
                    except OSError as error:
                        raise InputError(
                            f"{observer.metrics.path}: cannot be written: {error.strerror}; {_way_on(run, checkpoints)}"
                        ) from error
                learner.skips.check(f"step {done}", _remedy(config))
                stop = _anyone(fabric, asked_to_stop())
                due = done % config.train.save_every == 0 and result.taken  # else the older checkpoint is the safer one
                if due or done == config.train.steps or stop:
                    _save(learner, checkpoints, done, identity, run)
                if stop:
                    raise Interrupted(f"stopped after step {done}; go on with --resume {run}")
        finally:
            if observer is not None:
                with suppress(OSError):  # what could not be written has been reported
                    observer.metrics.close()
    if fabric.is_global_zero:
        persistence.save_model(run / "model", learner.model)
        if learner.skips.total:
            log.warning(learner.skips.summary())
    fabric.barrier()
    model = learner.model.eval()
    model.zero_grad(set_to_none=True)
    model.origin = Origin(str(run / "model"), run, config, tuple(videos))
    return model


def _steps(learner: Learner, crops: Crops, start: int) -> Iterator[StepResult]:
    """Run the remaining steps."""
    loader = DataLoader(
        crops,
        batch_size=None,  # the data set gives whole batches
        sampler=range(crops.parts(start).start, len(crops)),
        num_workers=learner.config.train.workers,
    )
    batches: Iterator[TrainingBatch] = iter(loader)
    for step in range(start, learner.config.train.steps):
        yield train_step(learner, step, [next(batches) for _ in crops.parts(step)])


class _Observer:
    """Writes metrics, monitors the representation and reports progress; never touches the training."""

    def __init__(
        self, learner: Learner, monitor: Monitor, run: Path, start: int, progress: Progress, task: Task
    ) -> None:
        self.learner, self.monitor, self.progress, self.task = learner, monitor, progress, task
        self.reported = start
        self.train = learner.config.train
        self.metrics = Metrics(run, start, self.train.tensorboard)
        self.start_health = self._untrained_health()
        if start == 0:
            self.metrics.write(0, self.start_health.metrics())
        self.clock, self.frames = time.monotonic(), 0.0

    def _untrained_health(self) -> Health:
        """Health at step 0; on resume, of the same seed's fresh model."""
        fresh = _fresh_model(self.learner.config)
        fresh.load_state_dict({**fresh.state_dict(), **_buffers(self.learner.model)})
        return self._look(fresh.to(self.learner.fabric.device))

    def _look(self, model: PJEPA) -> Health:
        return self.monitor.look(model, self.learner.target, self.learner.config.model.attention)

    def after(self, step: int, result: StepResult) -> None:
        """Record what step number ``step`` (1-based) did."""
        self.frames += float(result.frames)
        loss = float(result.loss)
        if not result.taken:
            log.warning("step %d: the gradient is not finite; step skipped (%d so far)", step, self.learner.skips.total)
        if step % self.train.log_every == 0 or step == self.train.steps or not result.taken:
            speed = self.frames / max(1e-9, time.monotonic() - self.clock)
            self.clock, self.frames = time.monotonic(), 0.0
            self.metrics.write(
                step,
                {
                    "loss": loss,
                    "hidden": float(result.hidden),
                    "visible": float(result.visible),
                    "gradient_norm": float(result.gradient_norm),
                    "learning_rate": self.learner.optimizer.param_groups[0]["lr"],
                    "frames_per_second": speed,
                    "skipped_steps": self.learner.skips.total,
                },
            )
            self.task.advance(step - self.reported, note=f"loss {loss:.4f}  {speed:,.0f} frames/s")
            self.reported = step
        if step % self.train.monitor_every == 0 or step == self.train.steps:
            health = self._look(self.learner.model)
            if not math.isfinite(health.effective_rank):
                raise InputError(
                    f"the latents are not finite at step {step}; lower train.learning_rate, or look for extreme values "
                    "in the features"
                )
            self.metrics.write(step, health.metrics())
            for line in health.warnings(self.start_health):
                log.warning("step %d: %s", step, line)
            self.progress.message(f"step {step}: {health}")


def _fabric(config: RunConfig) -> Fabric:
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
            strategy="ddp" if processes > 1 else "auto",
        )
        fabric.launch()
    except (RuntimeError, ValueError) as error:
        raise InputError(f"train.accelerator {accelerator}, {train.devices} devices: {error}") from error
    return fabric


def _read_data(
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


def _fresh_model(config: RunConfig) -> PJEPA:
    """The untrained model of a run; depends on its seed and config only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        return PJEPA(config.model)


def _settled(config: RunConfig, folder: FeatureFolder, videos: Sequence[str]) -> RunConfig:
    """The config with what only the data can say: the widths, and the steps where none are given."""
    output_dim = prediction_width(config.target, folder.width, config.model.dim, folder.timeline.rate)
    widths = {"input_dim": folder.width, "tokens": folder.tokens_as(config.model.tokens), "output_dim": output_dim}
    lengths = [folder.length(name) for name in videos]
    _check_offsets(config, lengths, folder.timeline.rate)
    steps = config.train.settled_steps(lengths)
    return config.model_copy(
        update={
            "model": build(ModelConfig, config.model.model_dump(), widths),
            "train": config.train.model_copy(update={"steps": steps}),
        }
    )


def _check_offsets(config: RunConfig, lengths: Sequence[int], rate: Fraction) -> None:
    """Refuse offsets that no crop reaches, and say it where the rate makes one of them all."""
    shifts = shifts_of(config.target.offsets, rate)
    if len(config.target.offsets) > 1 and len(shifts) == 1:
        log.warning(
            "target.offsets are all within half a frame of each other at %s frames a second: a frame's target is that "
            "of one frame alone; set target.offsets to longer times",
            float(rate),
        )
    longest = min(max(lengths), config.train.crop)
    if config.train.crop_segments is None and min(abs(shift) for shift in shifts) >= longest:
        raise InputError(
            f"target.offsets {list(config.target.offsets)} all reach beyond the longest crop, {longest} frames"
        )


def _build(config: RunConfig, fabric: Fabric, statistics: Statistics, rate: Fraction) -> Learner:
    """Model, target and optimiser on their device."""
    model = _fresh_model(config)
    if config.model.input_norm == "channel":
        model.encoder.proj[0] = channel_norm(statistics)
    target = build_target(config.target, model.encoder, statistics, config.train.seed, rate).to(fabric.device)
    if fabric.world_size > 1:  # k-means may end elsewhere on another kind of machine
        for tensor in target.state_dict().values():
            tensor.copy_(fabric.broadcast(tensor))
    optimizer = build_optimizer(model, config.train)
    wrapped, wrapped_optimizer = fabric.setup(model, optimizer)
    return Learner(config, fabric, model, wrapped, target, wrapped_optimizer)


def _buffers(model: PJEPA) -> dict[str, torch.Tensor]:
    return dict(model.named_buffers())


def _monitor(folder: FeatureFolder, videos: Sequence[str], config: RunConfig) -> Monitor:
    """Fixed crops of up to 16 videos, from the middle of each."""
    labelled = bool(folder.classes) and all(folder.video(name).labels is not None for name in videos)
    chosen = [videos[i * len(videos) // MONITOR_VIDEOS] for i in range(MONITOR_VIDEOS)] if len(videos) > 16 else videos
    batches, labels = [], []
    for index, name in enumerate(chosen):
        length = folder.length(name)
        start = max(0, (length - config.train.crop) // 2)
        stop = min(length, start + config.train.crop)
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


def _check_folder(run: Path, resume: bool) -> None:
    if not resume and run.exists() and any(run.iterdir()):
        raise InputError(f"{run}: not empty; go on with --resume {run}, or choose another --out")


def _check_space(run: Path, learner: Learner, checkpoints: Checkpoints, start: int) -> None:
    """Refuse to begin what the disk cannot hold: a training of hours must not be lost at its first checkpoint.

    Old checkpoints are removed only when a new one is whole, so there is one more than are kept.
    """
    train = learner.config.train
    weights, checkpoint = checkpoint_bytes(learner.model, learner.target)
    to_write = len({*range(start + 1, train.steps + 1)} & {*range(0, train.steps, train.save_every), train.steps})
    more = min(to_write, max(1, train.keep + 1 - len(checkpoints.steps())))
    needed = weights + more * checkpoint
    free = shutil.disk_usage(next(path for path in (run, *run.absolute().parents) if path.exists())).free
    if free < needed:
        raise InputError(
            f"{run}: the disk has {free / 2**20:,.0f} MiB left; this run writes {needed / 2**20:,.0f} MiB ({more} "
            "checkpoints and the model): make room, set train.keep lower, or choose another --out"
        )


def _remedy(config: RunConfig) -> str:
    """What to do about gradients that are not finite."""
    precise = "" if config.train.precision == "32-true" else ", set train.precision=32-true"
    return f"lower train.learning_rate{precise}"


def _save(learner: Learner, checkpoints: Checkpoints, step: int, identity: dict[str, object], run: Path) -> None:
    if learner.fabric.is_global_zero:
        record = {**identity, "skipped_steps": learner.skips.total}
        try:
            checkpoints.save(step, learner.model, learner.target, learner.optimizer, record)
        except InputError as error:
            raise InputError(f"{error}; {_way_on(run, checkpoints)}") from error
    learner.fabric.barrier()


def _way_on(run: Path, checkpoints: Checkpoints) -> str:
    """What is left of a run that cannot write any more."""
    steps = checkpoints.steps()
    left = f"the checkpoint of step {steps[-1]} is whole" if steps else "the run has no checkpoint yet"
    return f"{left}; make room, then go on: {shlex.join(['keystep', 'pretrain', '--resume', str(run)])}"


def _restore(learner: Learner, checkpoints: Checkpoints, identity: dict[str, object]) -> int:
    """Load the newest checkpoint; returns its step."""
    step = checkpoints.steps()[-1]
    record = checkpoints.load(step, learner.model, learner.target, learner.optimizer)
    if any(record.get(name) != value for name, value in identity.items()):
        raise InputError(
            f"{learner.config.data.root}: features, labels or the split changed since {checkpoints.path(step)} was "
            "written; a resumed run would not be the same run"
        )
    learner.skips.total = record.get("skipped_steps", 0)
    return step


def _anyone(fabric: Fabric, flag: bool) -> bool:
    """Whether any process raised its flag, so that all stop after the same step."""
    if fabric.world_size == 1:
        return flag
    return bool(add_up(fabric, torch.tensor(float(flag), device=fabric.device)) > 0)


@contextmanager
def _stop_signal() -> Iterator[_Flag]:
    """Turn the first Ctrl-C or SIGTERM into a flag that is read between steps; a second one acts at once."""
    flag = _Flag()
    if threading.current_thread() is not threading.main_thread():
        yield flag  # signals belong to the main thread
        return
    previous = {number: signal.signal(number, flag.raise_it) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Flag:
    raised = False

    def raise_it(self, number: int, frame: FrameType | None) -> None:
        if self.raised:
            raise KeyboardInterrupt
        self.raised = True

    def __call__(self) -> bool:
        return self.raised
