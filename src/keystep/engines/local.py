"""Work in this process, or in several processes of this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.queues import SimpleQueue
from typing import Any

import torch

from keystep.engines.work import Begin, CannotBegin, Report, Result, device_of
from keystep.errors import InputError
from keystep.workers import CONTEXT, shared, worker_pools


@dataclass(frozen=True)
class Local:
    """Processes of this machine. One worker is this process itself.

    Attributes:
        workers: number of processes. With more than one, a script needs ``if __name__ == "__main__"``.
    """

    workers: int = 1

    @property
    def alone(self) -> bool:
        """Whether the work is done by this process."""
        return self.workers == 1

    def kind(self) -> str:
        """See `keystep.engines.Engine`."""
        return torch.device(device_of(0)).type

    def run(
        self,
        begin: Begin[Result],
        jobs: Mapping[str, tuple[object, ...]],
        report: Report,
        device: str | None = None,
    ) -> Generator[tuple[str, Callable[[], Result]], None, None]:
        """See `keystep.engines.Engine`."""
        if not jobs:
            return
        if self.alone or len(jobs) < 2:
            work = begin(0, report)
            for name, arguments in jobs.items():
                yield name, partial(work, *arguments)
            return
        reports: SimpleQueue[tuple[float, int]] = CONTEXT.SimpleQueue()
        with _pools(min(self.workers, len(jobs)), begin, reports) as pools:
            for name, done in shared(pools, _work, jobs, lambda: _forward(reports, report)):
                yield name, _result(name, done)


def _forward(reports: SimpleQueue[tuple[float, int]], report: Report) -> None:
    while not reports.empty():
        report(*reports.get())


def _result(name: str, done: Future[Result]) -> Callable[[], Result]:
    """The function that gives a result.

    Raises:
        InputError: the worker died.
    """
    error = done.exception()
    if isinstance(error, BrokenProcessPool):
        raise InputError(
            f"{name}: the worker process died, possibly out of memory; run again to resume, with fewer --workers"
        ) from error
    if isinstance(error, CannotBegin):
        raise InputError(str(error)) from error
    return done.result


@contextmanager
def _pools(
    size: int, begin: Begin[Result], reports: SimpleQueue[tuple[float, int]]
) -> Iterator[list[ProcessPoolExecutor]]:
    """Worker processes; a death between two jobs becomes a one-line error."""
    try:
        with worker_pools(size, _begin, begin, reports) as pools:
            yield pools
    except BrokenProcessPool as error:  # when a job is submitted
        raise InputError("a worker process died between two jobs; run again to resume") from error


class _Worker:
    """State of a worker process. It begins with the first job, so that errors are reported."""

    def __init__(self, begin: Begin[Any], index: int, reports: SimpleQueue[tuple[float, int]]) -> None:
        self._begin, self._index, self._reports = begin, index, reports
        self._work: Callable[..., Any] | None = None

    def __call__(self, *arguments: object) -> Any:
        if self._work is None:
            try:
                self._work = self._begin(self._index, lambda amount, count: self._reports.put((amount, count)))
            except InputError as error:
                raise CannotBegin(str(error)) from error
        return self._work(*arguments)


_worker: _Worker
"""State of this process, if it is a worker."""


def _begin(index: int, begin: Begin[Any], reports: SimpleQueue[tuple[float, int]]) -> None:
    global _worker
    _worker = _Worker(begin, index, reports)


def _work(*arguments: object) -> Any:
    """Run a job in a worker."""
    try:
        return _worker(*arguments)
    except SystemExit:  # unfinished files are removed; the pool would continue as if this were a result
        os._exit(1)
