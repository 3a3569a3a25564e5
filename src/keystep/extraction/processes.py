"""Extracting videos in this process, or in several that end when they are told to, and with this one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from keystep.data.problems import Problems
from keystep.errors import InputError
from keystep.extraction.extractor import Extractor
from keystep.extraction.folder import Advance, Outcome, Writing

GRACE = 10.0
"""Seconds that a worker has to remove what it has half written."""

Make = Callable[[int], Extractor]
"""Loads the backbone in worker ``i``; it travels to the other processes."""


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
    with _crew(writing, make, min(workers, len(videos))) as crew:
        yield from _shared(videos, crew, problems, advance)


@dataclass(frozen=True)
class _Refusal:
    """What a worker says instead of an outcome. fatal: it could not begin at all."""

    reason: str
    fatal: bool = False


@dataclass(frozen=True)
class _Worker:
    """A process, and the only way to it: no queue is shared that a dying one could leave locked."""

    process: BaseProcess
    pipe: Connection

    def give(self, name: str, path: Path) -> None:
        with suppress(OSError):  # it has died, which shows when it is asked for the outcome
            self.pipe.send((name, path))

    def answer(self, name: str) -> Outcome | _Refusal | tuple[float, int]:
        try:
            answer: Outcome | _Refusal | tuple[float, int] = self.pipe.recv()
        except (EOFError, OSError) as error:
            self.process.join(GRACE)
            raise InputError(
                f"{name}: the worker process died of it (exit status {self.process.exitcode}), perhaps for want of "
                "memory; run again to go on, with fewer --workers"
            ) from error
        return answer


def _shared(videos: dict[str, Path], crew: list[_Worker], problems: Problems, advance: Advance) -> Iterator[Outcome]:
    """Give each worker a video, and the next one when it is done."""
    rest, free = iter(videos.items()), list(crew)
    at_work: dict[Connection, tuple[_Worker, str]] = {}
    while True:
        for worker, (name, path) in zip(free, rest, strict=False):
            worker.give(name, path)
            at_work[worker.pipe] = worker, name
        if not at_work:
            return
        free = []
        for pipe in wait(list(at_work)):
            worker, name = at_work[pipe]  # type: ignore[index]
            answer = worker.answer(name)
            if isinstance(answer, tuple):
                advance(*answer)
                continue
            del at_work[worker.pipe]
            free.append(worker)
            outcome = _outcome(name, answer, problems)
            if outcome is not None:
                yield outcome


def _outcome(name: str, answer: Outcome | _Refusal, problems: Problems) -> Outcome | None:
    def settled() -> Outcome:
        if isinstance(answer, _Refusal):
            raise InputError(answer.reason)
        return answer

    if isinstance(answer, _Refusal) and answer.fatal:
        return settled()
    return problems.attempt(name, settled)


@contextmanager
def _crew(writing: Writing, make: Make, size: int) -> Iterator[list[_Worker]]:
    """Worker processes, which are ended on the way out, whatever they are at."""
    context = multiprocessing.get_context("spawn")  # a forked torch may hang
    crew: list[_Worker] = []
    try:
        with _deaf():
            for index in range(size):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs, writing, make, index, size), daemon=True)
                crew.append(_Worker(process, ours))
                process.start()
                theirs.close()  # so that a worker's death ends the pipe
        yield crew
    finally:
        started = [worker for worker in crew if worker.process.pid is not None]
        for worker in started:
            worker.process.terminate()
        for worker in started:
            worker.process.join(GRACE)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        for worker in crew:
            worker.pipe.close()


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


def _work(pipe: Connection, writing: Writing, make: Make, index: int, of: int) -> None:
    """What a worker process does, until the pipe to it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the first process, which ends us
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(max(1, torch.get_num_threads() // of))
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the first process has gone
        try:
            extractor = make(index)
        except InputError as error:
            pipe.send(_Refusal(str(error), fatal=True))
            return
        while True:
            name, path = pipe.recv()
            try:
                answer: Outcome | _Refusal = writing.write(
                    extractor, name, path, lambda seconds, frames: pipe.send((seconds, frames))
                )
            except InputError as error:
                answer = _Refusal(str(error))
            pipe.send(answer)


def _leave(number: int, frame: object) -> None:
    raise SystemExit  # so that files half written are removed


def _end_with_parent() -> None:
    """A first process that was killed cannot end its workers: they look after it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)
