"""Extraction of videos in this process or in several worker processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue
from pathlib import Path

from keystep.data.problems import Problems
from keystep.errors import InputError
from keystep.extraction.extractor import Extractor
from keystep.extraction.folder import Advance, Outcome, Writing
from keystep.workers import CONTEXT, shared, worker_pools

Make = Callable[[int], Extractor]
"""Loads the extractor of worker ``i``; pickled for worker processes."""
Reports = SimpleQueue[tuple[float, int]]
"""Progress (see `Advance`) from workers to the main process."""


def extract_videos(
    writing: Writing, videos: dict[str, Path], make: Make, problems: Problems, advance: Advance, workers: int = 1
) -> Generator[Outcome, None, None]:
    """Extract videos in this process or in several, and yield each result when finished.

    Close the iterator to stop the workers early.

    Args:
        writing: where and how to write.
        videos: name -> file.
        make: loads the extractor.
        problems: what to do with unreadable videos.
        advance: called with the progress.
        workers: number of processes.

    Raises:
        InputError: an unreadable video (unless ``problems`` skips it), or a worker process died.
    """
    if workers == 1 or len(videos) < 2:
        extractor = make(0)
        for name, path in videos.items():
            outcome = problems.attempt(name, lambda name=name, path=path: writing.write(extractor, name, path, advance))  # type: ignore[misc]
            if outcome is not None:
                yield outcome
        return
    reports: Reports = CONTEXT.SimpleQueue()
    with _pools(writing, make, min(workers, len(videos)), reports) as pools:
        jobs = {name: (name, path) for name, path in videos.items()}
        for name, done in shared(pools, _extract, jobs, lambda: _forward(reports, advance)):
            outcome = problems.attempt(name, lambda name=name, done=done: _result(name, done))  # type: ignore[misc]
            if outcome is not None:
                yield outcome


class _Fatal(Exception):
    """Error that affects all videos: the backbone cannot be loaded, or a worker process died."""


def _forward(reports: Reports, advance: Advance) -> None:
    while not reports.empty():
        advance(*reports.get())


def _result(name: str, done: Future[Outcome]) -> Outcome:
    try:
        return done.result()
    except BrokenProcessPool as error:
        raise _Fatal(
            f"{name}: the worker process died, possibly out of memory; run again to resume, with fewer --workers"
        ) from error


@contextmanager
def _pools(writing: Writing, make: Make, size: int, reports: Reports) -> Iterator[list[ProcessPoolExecutor]]:
    """Worker processes that can extract; their death becomes a one-line error."""
    try:
        with worker_pools(size, _begin, writing, make, reports) as pools:
            yield pools
    except _Fatal as error:
        raise InputError(str(error)) from error
    except BrokenProcessPool as error:  # when a video is submitted
        raise InputError("a worker process died between two videos; run again to resume") from error


class _Worker:
    """State of a worker process. The backbone is loaded with the first video, so that errors are reported."""

    def __init__(self, writing: Writing, make: Make, index: int, reports: Reports) -> None:
        self.writing, self.reports = writing, reports
        self._make, self._index = make, index
        self._extractor: Extractor | None = None

    @property
    def extractor(self) -> Extractor:
        if self._extractor is None:
            try:
                self._extractor = self._make(self._index)
            except InputError as error:
                raise _Fatal(str(error)) from error
        return self._extractor


_worker: _Worker
"""State of this process, if it is a worker."""


def _begin(index: int, writing: Writing, make: Make, reports: Reports) -> None:
    global _worker
    _worker = _Worker(writing, make, index, reports)


def _extract(name: str, path: Path) -> Outcome:
    """Extract a video in a worker."""
    try:
        return _worker.writing.write(_worker.extractor, name, path, lambda *done: _worker.reports.put(done))
    except SystemExit:  # unfinished files are removed; the pool would continue as if this were a result
        os._exit(1)
