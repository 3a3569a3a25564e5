"""A pretraining run: a folder with settings, metrics and checkpoints, which can be resumed after any interruption.

::

    run/config.yaml            every setting
    run/metrics.jsonl          losses, learning rates and monitored values by step
    run/checkpoints/step-*/    the complete training state
    run/model/                 the result: config.json + model.safetensors
"""

from __future__ import annotations

import logging
import math
import re
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from lightning_fabric import Fabric
from torch.utils.data import DataLoader

from keystep.config import RunConfig
from keystep.config.base import write_yaml
from keystep.data.crops import Crops, TrainingBatch
from keystep.diagnostics import Health, Monitor
from keystep.errors import InputError, Interrupted
from keystep.locking import INSIDE, owning
from keystep.pjepa import PJEPA, Origin
from keystep.plugins import TARGETS
from keystep.progress import SILENT, Progress, Task
from keystep.stopping import handling_stops
from keystep.train.early import EarlyStop
from keystep.train.records import Metrics
from keystep.train.setup import (
    buffers,
    build_learner,
    build_model,
    build_monitor,
    is_first_process,
    open_fabric,
    read_data,
    settle_config,
    watch_processes,
)
from keystep.train.state import Checkpoints, checkpoint_bytes
from keystep.train.step import Learner, StepResult, sum_over_processes, train_step

log = logging.getLogger(__name__)

_LOST = re.compile("gloo|nccl|connection (closed|reset|refused)", re.IGNORECASE)
"""Matches torch's messages after another process has died."""
GRACE_SECONDS = 5.0
"""Seconds after the first request to stop; a later one then interrupts the step."""


def pretrain(config: RunConfig, out: Path | str, *, resume: bool = False, progress: Progress = SILENT) -> PJEPA:
    """Train a P-JEPA.

    Args:
        config: all settings of the run.
        out: the run's folder; empty or absent, unless ``resume``.
        resume: continue from the newest checkpoint in ``out``, or from the start if there is none. ``config`` must be
            the run's own (`keystep.config.run_config`).
        progress: reports the steps; called in the main process only.

    Returns:
        The trained model in eval mode, as `keystep.load` of the run's folder returns it.

    Raises:
        InputError: invalid settings, data or checkpoint; `MOST_IN_A_ROW` consecutive steps without a finite gradient;
            another process trains in ``out``; or files of the run were removed.
        Interrupted: Ctrl-C, SIGTERM or a closed terminal, after a checkpoint was saved.
    """
    run = Path(out)
    try:
        with owning(run) if is_first_process() else nullcontext():
            return _pretrain(config, run, resume, progress)
    except RuntimeError as error:
        if config.train.devices * config.train.nodes == 1 or not _LOST.search(str(error)):
            raise
        raise InputError(_lost_message(run, Checkpoints(run / "checkpoints", config.train.keep))) from error


def _pretrain(config: RunConfig, run: Path, resume: bool, progress: Progress) -> PJEPA:
    target = TARGETS.find(config.target.kind)  # before the data are read
    checkpoints = Checkpoints(run / "checkpoints", config.train.keep)
    _check_folder(run, resume)
    fabric = open_fabric(config)
    progress = progress if fabric.is_global_zero else SILENT
    folder, videos, held_out, statistics = read_data(config, progress)
    config = settle_config(config, folder, videos, progress)
    learner = build_learner(config, fabric, statistics, folder, videos)
    fingerprint = folder.fingerprint()
    early = EarlyStop(config.train.stop_early and bool(held_out) and not target.moves)
    saved = _Saved(run, checkpoints, {"fingerprint": fingerprint, "videos": list(videos)}, early)
    start = saved.restore(learner) if resume and checkpoints.steps() else 0
    if fabric.is_global_zero:
        _check_space(run, learner, checkpoints, start, early)
        if not resume:
            write_yaml(run / "config.yaml", config)
    ranks = {"process": fabric.global_rank, "processes": fabric.world_size}
    crops = Crops(folder, videos, config.train, config.masking, segments=config.model.oracle, **ranks)
    monitor = build_monitor(folder, held_out or videos, config)
    stop_request, steps = _StopRequest(), config.train.steps
    with (
        handling_stops(stop_request.handle),
        watch_processes(fabric, lambda: _lost_message(run, checkpoints)),
        progress.task(f"pretraining {run.name}", total=steps, unit="steps", initial=start) as task,
    ):
        observer = _Observer(learner, monitor, early, run, start, progress, task) if fabric.is_global_zero else None
        try:
            _train(learner, crops, start, saved, observer, stop_request)
        finally:
            if observer is not None:
                with suppress(OSError):  # already reported
                    observer.metrics.close()
    model = learner.model.eval()
    model.zero_grad(set_to_none=True)
    model.origin = Origin(str(run / "model"), run, config, tuple(videos), fingerprint)
    if fabric.is_global_zero:
        model.save_pretrained(run / "model")
        _check_files(run)
        if learner.skips.total:
            log.warning(learner.skips.summary())
    fabric.barrier()
    return model


def _train(
    learner: Learner, crops: Crops, start: int, saved: _Saved, observer: _Observer | None, stop_request: _StopRequest
) -> None:
    """Run the remaining steps, saving on the way; if they end early, with the weights of the best evaluation."""
    train, early = learner.config.train, saved.early
    over = early.stopped_at is not None
    for step, result in enumerate(() if over else _steps(learner, crops, start), start=start + 1):
        if observer is not None:
            try:
                observer.after(step, result)
            except OSError as error:
                failure = f"{observer.metrics.path}: cannot be written: {error.strerror}"
                raise InputError(f"{failure}; {saved.make_room()}") from error
        learner.skips.check(f"step {step}", _remedy(learner.config))
        stop, over = _any_process(learner.fabric, stop_request(), early.stopped_at is not None)
        due = step % train.save_every == 0 and result.taken  # else the older checkpoint is safer
        if due or step == train.steps or stop or over:
            stop_request.saving = True
            saved.save(learner, step)
            stop_request.saving = False
        if stop:
            raise Interrupted(f"stopped after step {step}; continue with --resume {saved.run}")
        if over:
            break
    if over:
        _restore_best(learner, early)


def _steps(learner: Learner, crops: Crops, start: int) -> Iterator[StepResult]:
    """Run the remaining steps."""
    loader = DataLoader(
        crops,
        batch_size=None,  # the data set returns whole batches
        sampler=range(crops.parts(start).start, len(crops)),
        num_workers=learner.config.train.workers,
    )
    batches: Iterator[TrainingBatch] = iter(loader)
    for step in range(start, learner.config.train.steps):
        yield train_step(learner, step, [next(batches) for _ in crops.parts(step)])


@dataclass(frozen=True)
class _Saved:
    """What is saved of a run while it trains.

    identity: what the run was trained on; it cannot be resumed on anything else.
    """

    run: Path
    checkpoints: Checkpoints
    identity: Mapping[str, object]
    early: EarlyStop

    def save(self, learner: Learner, step: int) -> None:
        """Write a checkpoint in the main process; the others wait."""
        if learner.fabric.is_global_zero:
            record = {**self.identity, "skipped_steps": learner.skips.total, "looks": self.early.looks}
            _check_files(self.run)
            try:
                self.checkpoints.save(step, learner.model, learner.target, learner.optimizer, record, self.early.best)
            except InputError as error:
                raise InputError(f"{error}; {self.make_room()}") from error
        learner.fabric.barrier()

    def restore(self, learner: Learner) -> int:
        """Load the newest checkpoint, including the state of early stopping; returns its step."""
        step = self.checkpoints.steps()[-1]
        record = self.checkpoints.load(step, learner.model, learner.target, learner.optimizer)
        if any(record.get(name) != value for name, value in self.identity.items()):
            raise InputError(
                f"{learner.config.data.root}: features, labels or the split changed since "
                f"{self.checkpoints.path(step)} was written, so the run cannot be resumed; restore them, or start a "
                "new run with another --out"
            )
        learner.skips.total = record.get("skipped_steps", 0)
        if self.early.active:
            self.early.looks = [(at, loss) for at, loss in record.get("looks", [])]
            self.early.best = self.checkpoints.load_best(step, learner.model)
        return step

    def make_room(self) -> str:
        """Advice where the disk is full."""
        return _resume_advice(self.run, self.checkpoints, "make room, then ")


class _Observer:
    """Writes metrics, monitors the representation and reports progress; does not change the training."""

    def __init__(
        self,
        learner: Learner,
        monitor: Monitor,
        early: EarlyStop,
        run: Path,
        start: int,
        progress: Progress,
        task: Task,
    ) -> None:
        self.learner, self.monitor, self.early, self.progress, self.task = learner, monitor, early, progress, task
        self.reported = start
        self.train = learner.config.train
        self.metrics = Metrics(run, start, self.train.tensorboard)
        self.start_health = self._untrained_health()
        if start == 0:
            self.metrics.write(0, self.start_health.metrics())
        self.clock, self.frames = time.monotonic(), 0.0
        self.warned: set[str] = set()

    def _untrained_health(self) -> Health:
        """Health at step 0. On resume, the untrained model is built again from the seed."""
        fresh = build_model(self.learner.config)
        fresh.load_state_dict({**fresh.state_dict(), **buffers(self.learner.model)})
        return self._look(fresh.to(self.learner.fabric.device))

    def _look(self, model: PJEPA) -> Health:
        return self.monitor.look(model, self.learner.target, self.learner.config.model.attention)

    def after(self, step: int, result: StepResult) -> None:
        """Record the result of step ``step`` (1-based).

        Raises:
            InputError: the latents are not finite.
            OSError: metrics cannot be written.
        """
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
            self.early.see(step, health, self.learner.model)
            self.metrics.write(step, {**health.metrics(), **self.early.record()})
            for sign, line in health.warnings(self.start_health, step / self.train.steps).items():
                if sign not in self.warned:
                    self.warned.add(sign)
                    log.warning("step %d: %s", step, line)
            self.progress.message(f"step {step}: {health}")
            if self.early.stopped_at is not None:
                self.progress.message(self.early.advice(self.train.steps))


def _check_folder(run: Path, resume: bool) -> None:
    if not resume and run.exists() and any(path.name != INSIDE for path in run.iterdir()):
        raise InputError(f"{run}: not empty; continue it with --resume {run}, or choose another --out")


def _check_space(run: Path, learner: Learner, checkpoints: Checkpoints, start: int, early: EarlyStop) -> None:
    """Check that the disk can hold the checkpoints, before hours of training are lost at the first one.

    An old checkpoint is removed only after a new one is complete, so there is temporarily one more than ``keep``.
    """
    train = learner.config.train
    weights, checkpoint = checkpoint_bytes(learner.model, learner.target)
    to_write = len({*range(start + 1, train.steps + 1)} & {*range(0, train.steps, train.save_every), train.steps})
    more = min(to_write, max(1, train.keep + 1 - len(checkpoints.steps())))
    needed = weights + more * (checkpoint + (weights if early.active else 0))
    free = shutil.disk_usage(next(path for path in (run, *run.absolute().parents) if path.exists())).free
    if free < needed:
        raise InputError(
            f"{run}: the disk has {free / 2**20:,.0f} MiB left; this run writes {needed / 2**20:,.0f} MiB ({more} "
            "checkpoints and the model): make room, set train.keep lower, or choose another --out"
        )


def _check_files(run: Path) -> None:
    """Raise InputError if files of the run were removed during training."""
    for name in ("config.yaml", "metrics.jsonl"):
        if not (run / name).exists():
            raise InputError(f"{run / name}: was removed during the run, which therefore stops")


def _remedy(config: RunConfig) -> str:
    """Advice about gradients that are not finite."""
    precise = "" if config.train.precision == "32-true" else ", set train.precision=32-true"
    return f"lower train.learning_rate{precise}"


def _lost_message(run: Path, checkpoints: Checkpoints) -> str:
    return f"{run}: another process of this run has ended, so the run stops; {_resume_advice(run, checkpoints)}"


def _resume_advice(run: Path, checkpoints: Checkpoints, first: str = "") -> str:
    """What was saved of an interrupted run, and the command that continues it; ``first``: what has to be done before"""
    if not (run / "config.yaml").exists():
        return "nothing of it was saved; start it again"
    steps = checkpoints.steps()
    saved = f"the checkpoint of step {steps[-1]} is complete" if steps else "the run has no checkpoint yet"
    return f"{saved}; {first}continue: {shlex.join(['keystep', 'pretrain', '--resume', str(run)])}"


def _restore_best(learner: Learner, early: EarlyStop) -> None:
    """Load the weights of the best evaluation, which the main process has, in every process."""
    if learner.fabric.is_global_zero:
        learner.model.load_state_dict(early.best)
    if learner.fabric.world_size > 1:
        for tensor in learner.model.state_dict().values():
            tensor.copy_(learner.fabric.broadcast(tensor))


def _any_process(fabric: Fabric, *flags: bool) -> list[bool]:
    """For each flag, whether any process raised it, so that all stop after the same step."""
    if fabric.world_size == 1:
        return list(flags)
    raised = sum_over_processes(fabric, torch.tensor(flags, dtype=torch.float32, device=fabric.device))
    return [bool(count > 0) for count in raised]


class _StopRequest:
    """Set by the first signal and read between steps. A later signal interrupts the step, but never a checkpoint."""

    def __init__(self) -> None:
        self.since: float | None = None
        self.saving = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal. Signals within `GRACE_SECONDS` of the first are ignored, as when a key is pressed twice."""
        if self.since is None:
            self.since = time.monotonic()
        elif time.monotonic() - self.since > GRACE_SECONDS and not self.saving:
            raise KeyboardInterrupt

    def __call__(self) -> bool:
        return self.since is not None
