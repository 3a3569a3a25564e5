"""An actor of `keystep.engines.ray`: a process on a machine of the cluster that does one job at a time."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import torch

from keystep.engines.work import check_shared
from keystep.errors import InputError
from keystep.plugins import allow


@dataclass(frozen=True)
class Said:
    """What a worker says about a job, or about its beginning.

    Attributes:
        value: the result.
        problem: message of an `InputError`; None: there was none.
        reports: those that were not fetched yet.
        node: the machine, when it begins.
    """

    value: Any = None
    problem: str | None = None
    reports: list[tuple[float, int]] = field(default_factory=list)
    node: str = ""

    def result(self) -> Any:
        """The result.

        Raises:
            InputError: of this job.
        """
        if self.problem is not None:
            raise InputError(self.problem)
        return self.value


class _Stopped(BaseException):
    """Ends a job from within, past everything that handles errors, so that what is half written is removed."""


@dataclass(frozen=True)
class Here:
    """What a worker has to have in common with this process.

    Attributes:
        worker: its number.
        threads: for torch.
        folder: to be in, so that relative paths mean the same.
        places: where Python looks for modules.
        plugins: that files may name.
    """

    worker: int
    threads: int
    folder: Path
    places: tuple[str, ...]
    plugins: tuple[str, ...]

    def enter(self) -> None:
        """Make this process so.

        Raises:
            InputError: this machine has no such folder.
        """
        check_shared(self.folder)
        os.chdir(self.folder)
        sys.path += [place for place in self.places if place not in sys.path]
        allow(*self.plugins)


class Worker:
    """An actor. One thread is at a job while the other is asked for reports."""

    def __init__(self, here: Here) -> None:
        self._here = here
        self._reports: SimpleQueue[tuple[float, int]] = SimpleQueue()
        self._stopping = False

    def begin(self, sent: list[Any]) -> Said:
        """Make ready for jobs."""
        import ray

        try:
            self._here.enter()
            self._run = ray.get(sent[0])(self._here.worker, self._report)
        except InputError as error:
            return Said(problem=str(error))
        return Said(node=ray.get_runtime_context().get_node_id())

    def work(self, *arguments: object) -> Said:
        """Do a job."""
        torch.set_num_threads(self._here.threads)  # it is of this thread alone
        try:
            return Said(self._run(*arguments), reports=self.reports())
        except InputError as error:
            return Said(problem=str(error), reports=self.reports())
        except _Stopped:
            return Said()

    def reports(self) -> list[tuple[float, int]]:
        """What was reported since the last call."""
        found = []
        with suppress(Empty):
            while True:
                found.append(self._reports.get_nowait())
        return found

    def stop(self) -> None:
        """End the job at its next report."""
        self._stopping = True

    def _report(self, amount: float, count: int) -> None:
        if self._stopping:
            raise _Stopped
        self._reports.put((amount, count))
