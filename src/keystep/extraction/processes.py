"""Extracting videos in this process, or in several that end with this one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import torch

from keystep.data.problems import Problems
from keystep.errors import InputError
from keystep.extraction.extractor import Extractor
from keystep.extraction.folder import REPORT_SECONDS, Advance, Outcome, Writing

GRACE = 10.0
"""Seconds that a worker has to remove what it has half written."""

Make = Callable[[int], Extractor]
"""Loads the backbone in worker ``i``; it is pickled for the other processes."""
Reports = SimpleQueue[tuple[float, int]]
"""Seconds and frames, as `Advance` takes them, from workers to the first process."""


def extract_videos(
    writing: Writing, videos: dict[str, Path], make: Make, problems: Problems, advance: Advance, workers: int = 1
) -> Generator[Outcome, None, None]:
    """Extract videos, in this process or in several; yields each as it is finished.

    Whoever does not take all of them should close the iterator, which ends the workers.

    Raises:
        InputError: a bad video (unless ``problems`` skips it); a worker process died.
    """
    if workers == 1 or len(videos) < 2:
        extractor = make(0)
        for name, path in videos.items():
            outcome = problems.attempt(name, lambda name=name, path=path: writing.write(extractor, name, path, advance))  # type: ignore[misc]
            if outcome is not None:
                yield outcome
        return
    reports: Reports = multiprocessing.get_context("spawn").SimpleQueue()
    with _pools(writing, make, min(workers, len(videos)), reports) as pools:
        for name, done in _shared(videos, pools, lambda: _forward(reports, advance)):
            outcome = problems.attempt(name, lambda name=name, done=done: _result(name, done))  # type: ignore[misc]
            if outcome is not None:
                yield outcome


class _Fatal(Exception):
    """No video can be extracted: the backbone cannot be loaded, or a worker process died."""


def _shared(
    videos: dict[str, Path], pools: list[ProcessPoolExecutor], tick: Callable[[], None]
) -> Iterator[tuple[str, Future[Outcome]]]:
    """Give each worker a video, and the next one when it is done; yields finished ones, calls ``tick`` in between."""
    rest, free = iter(videos.items()), list(pools)
    at_work: dict[Future[Outcome], tuple[ProcessPoolExecutor, str]] = {}
    while True:
        for pool, (name, path) in zip(free, rest, strict=False):
            at_work[pool.submit(_extract, name, path)] = pool, name
        if not at_work:
            return
        finished = wait(at_work, REPORT_SECONDS, FIRST_COMPLETED).done
        tick()
        free = []
        for future in finished:
            pool, name = at_work.pop(future)
            free.append(pool)
            yield name, future


def _forward(reports: Reports, advance: Advance) -> None:
    while not reports.empty():
        advance(*reports.get())


def _result(name: str, done: Future[Outcome]) -> Outcome:
    try:
        return done.result()
    except BrokenProcessPool as error:
        raise _Fatal(
            f"{name}: the worker process died of it, perhaps for want of memory; run again to go on, with fewer "
            "--workers"
        ) from error


@contextmanager
def _pools(writing: Writing, make: Make, size: int, reports: Reports) -> Iterator[list[ProcessPoolExecutor]]:
    """Pools of one process each, so that a death tells whose it was; on the way out all end, whatever they are at."""
    context = multiprocessing.get_context("spawn")  # a forked torch may hang
    theirs, ours = context.Pipe(duplex=False)
    try:
        with ExitStack() as stack:
            stack.callback(theirs.close)
            pools = [
                ProcessPoolExecutor(
                    1, context, initializer=_begin, initargs=(writing, make, index, size, reports, theirs)
                )
                for index in range(size)
            ]
            for pool in pools:
                stack.callback(pool.shutdown, wait=True, cancel_futures=True)
            stack.callback(ours.close)  # first of all, which ends the workers
            with _deaf():
                for pool in pools:
                    pool.submit(os.getpid)  # any task starts the process
            yield pools
    except _Fatal as error:
        raise InputError(str(error)) from error
    except BrokenProcessPool as error:  # refuses a video
        raise InputError("a worker process died between two videos; run again to go on") from error


@contextmanager
def _deaf() -> Iterator[None]:
    """Ctrl-C goes by unheard, for the moment in which processes are started that should never hear it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


class _Worker:
    """What a worker process needs for its videos. The backbone is loaded with the first, so that its error is told."""

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
"""Of this process, if it is a worker."""


def _begin(writing: Writing, make: Make, index: int, of: int, reports: Reports, parent: Connection) -> None:
    """Make this process a worker, until the first process closes its end of the pipe ``parent``, or dies."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the first process, which ends us
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(max(1, torch.get_num_threads() // of))
    _worker = _Worker(writing, make, index, reports)


def _extract(name: str, path: Path) -> Outcome:
    """One video, in a worker."""
    try:
        return _worker.writing.write(_worker.extractor, name, path, lambda *done: _worker.reports.put(done))
    except SystemExit:  # files half written are removed; the pool would take it for an answer and wait for more work
        os._exit(1)


def _leave(number: int, frame: object) -> None:
    raise SystemExit  # so that files half written are removed


def _end_with(parent: Connection) -> None:
    with suppress(EOFError, OSError):
        parent.recv()  # nothing is ever sent
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)
