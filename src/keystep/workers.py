"""Worker processes that end with the process that started them, whatever ends it."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from typing import TypeVar

import torch

from keystep.plugins import allow, allowed

Result = TypeVar("Result")

GRACE = 10.0
"""Seconds that a worker has to remove what it has half written."""

REPORT_SECONDS = 0.2
"""Seconds between two looks at what workers report."""

CONTEXT = multiprocessing.get_context("spawn")  # a forked torch may hang
"""What queues between this process and its workers are made of, too."""


@contextmanager
def worker_pools(size: int, begin: Callable[..., None], *args: object) -> Iterator[list[ProcessPoolExecutor]]:
    """Pools of one process each, so that a death tells whose it was; on the way out all end, whatever they are at.

    The workers share this process's threads. Ctrl-C is for this process alone.

    Args:
        begin: called in each worker with its number and ``args``, all of which are pickled.
    """
    theirs, ours = CONTEXT.Pipe(duplex=False)
    with ExitStack() as stack:
        stack.callback(theirs.close)
        pools = [
            ProcessPoolExecutor(
                1, CONTEXT, initializer=_begin, initargs=(theirs, size, allowed(), begin, (index, *args))
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
        for pool in pools:
            pool.shutdown()  # those that have nothing left to do end by themselves


def shared(
    pools: list[ProcessPoolExecutor],
    work: Callable[..., Result],
    jobs: Mapping[str, tuple[object, ...]],
    tick: Callable[[], None],
) -> Iterator[tuple[str, Future[Result]]]:
    """Give each worker a job, and the next one when it is done.

    Args:
        work: called in a worker with the arguments of a job.
        jobs: their names and arguments.
        tick: called every `REPORT_SECONDS`.

    Yields:
        The name of each finished job and its outcome.
    """
    rest, free = iter(jobs.items()), list(pools)
    at_work: dict[Future[Result], tuple[ProcessPoolExecutor, str]] = {}
    while True:
        for pool, (name, arguments) in zip(free, rest, strict=False):
            at_work[pool.submit(work, *arguments)] = pool, name
        if not at_work:
            return
        finished = wait(at_work, REPORT_SECONDS, FIRST_COMPLETED).done
        tick()
        free = []
        for future in finished:
            pool, name = at_work.pop(future)
            free.append(pool)
            yield name, future


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


def _begin(
    parent: Connection, of: int, plugins: tuple[str, ...], begin: Callable[..., None], args: tuple[object, ...]
) -> None:
    """Make this process a worker, until the first process closes its end of the pipe ``parent``, or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the first process, which ends us
    signal.signal(signal.SIGTERM, _leave)
    atexit.register(signal.signal, signal.SIGTERM, signal.SIG_IGN)  # who is leaving already need not be told
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(max(1, torch.get_num_threads() // of))
    allow(*plugins)
    begin(*args)


def _leave(number: int, frame: object) -> None:
    raise SystemExit  # so that files half written are removed


def _end_with(parent: Connection) -> None:
    with suppress(EOFError, OSError):
        parent.recv()  # nothing is ever sent
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)
