"""Train several models in parallel, such as one recipe with three seeds, which a claim needs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import torch

from keystep.config import RunConfig, run_config
from keystep.errors import InputError, Interrupted
from keystep.persistence import CONFIG
from keystep.progress import SILENT, Count, Progress, Task
from keystep.train.run import pretrain
from keystep.workers import CONTEXT, shared, worker_pools

Report = tuple[int, float, float | None, str]
"""Index of the run, steps done, total steps (None: this is a message), note or message."""
Reports = SimpleQueue[Report]


def pretrain_several(
    runs: Mapping[Path, RunConfig], *, workers: int | None = None, progress: Progress = SILENT
) -> None:
    """Train a model in each folder, as `pretrain` does. Finished runs are skipped and interrupted ones resumed.

    Args:
        runs: folder -> settings; a resumed run uses its own.
        workers: number of parallel processes, which share the threads of this one. None: at most two per core, and one
            if a GPU is available or a run uses several devices.
        progress: reports the steps of all runs as one task.

    Raises:
        InputError: invalid settings or data, or a process died.
        Interrupted: Ctrl-C or SIGTERM, after checkpoints were saved; the same call resumes.
    """
    alone = torch.cuda.is_available() or any(config.train.devices * config.train.nodes > 1 for config in runs.values())
    most = 1 if alone else 2 * (os.cpu_count() or 1)
    size = min(len(runs), workers or most)
    if size < 2:
        for run, config in runs.items():
            _train(config, run, progress)
        return
    reports: Reports = CONTEXT.SimpleQueue()
    try:
        with (
            progress.task(f"pretraining {len(runs)} models", unit="steps") as task,
            worker_pools(size, _init_worker, reports) as pools,
        ):
            shown = _Display(len(runs), reports, task, progress)
            jobs = {str(run): (config, run, place) for place, (run, config) in enumerate(runs.items())}
            for name, done in shared(pools, _train_in_worker, jobs, shown):
                _check(name, done)
            shown()
    except KeyboardInterrupt:
        raise Interrupted("stopped; checkpoints are saved, and the same command continues") from None


def vary_seed(config: RunConfig, out: Path, count: int) -> dict[Path, RunConfig]:
    """Create the settings of runs that differ only in the seed.

    Args:
        config: settings of all runs.
        out: the folder of their folders ``seed0``, ``seed1``, ...
        count: number of seeds.

    Returns:
        Folder of each run -> its settings.
    """
    return {
        out / f"seed{seed}": config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})})
        for seed in range(count)
    }


def _train(config: RunConfig, run: Path, progress: Progress) -> None:
    if (run / "model" / CONFIG).exists():
        progress.message(f"{run}: already finished")
    elif (run / "config.yaml").exists():
        pretrain(run_config(run), run, resume=True, progress=progress)
    else:
        pretrain(config, run, progress=progress)


def _check(name: str, done: Future[None]) -> None:
    try:
        done.result()
    except BrokenProcessPool as error:
        raise InputError(f"{name}: its process died, perhaps out of memory; train fewer at once") from error


class _Display:
    """Shows the reports of all workers as one task; a message that several of them send is shown once."""

    def __init__(self, runs: int, reports: Reports, task: Task, progress: Progress) -> None:
        self.runs, self.reports, self.task, self.progress = runs, reports, task, progress
        self.done: dict[int, float] = {}
        self.messages: set[str] = set()

    def __call__(self) -> None:
        """Show all reports since the last call."""
        while not self.reports.empty():
            place, done, total, text = self.reports.get()
            if total is not None:
                self.task.total = total * self.runs
                self.task.advance(done - self.done.get(place, 0), note=text)
                self.done[place] = done
            elif text not in self.messages:
                self.messages.add(text)
                self.progress.message(text)


_reports: Reports
"""The queue of this process, if it is a worker."""


def _init_worker(index: int, reports: Reports) -> None:
    global _reports
    _reports = reports


def _train_in_worker(config: RunConfig, run: Path, place: int) -> None:
    _train(config, run, _WorkerProgress(place, run.name))


class _WorkerProgress:
    """Progress of a worker: sends steps and messages to the main process, with the run's name once training starts."""

    def __init__(self, place: int, name: str) -> None:
        self.place, self.name, self.training = place, name, False

    @contextmanager
    def task(
        self, description: str, total: float | None = None, unit: str = "", initial: float = 0, even: bool = True
    ) -> Iterator[Task]:
        self.training = self.training or unit == "steps"

        def changed(done: float, total: float | None, note: str) -> None:
            if unit == "steps":
                _reports.put((self.place, done, total, note))

        yield Count(total, changed, initial)

    def message(self, text: str) -> None:
        _reports.put((self.place, 0, None, f"{self.name}, {text}" if self.training else text))
