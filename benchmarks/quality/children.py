"""Pieces of work in processes of their own, one thread each, that end when the study does."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from keystep.errors import InputError

GRACE = 20.0
"""Seconds that a child has to save its training before it is killed."""
ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"),
    "OMP_WAIT_POLICY": "PASSIVE",
}


def side_by_side(commands: Mapping[str, Sequence[str]], at_once: int) -> Iterator[str]:
    """Run commands in the order given, so many at a time; yields the name of each that ended well.

    Children share the process group, so Ctrl-C reaches them too; on any other end of this process they are told to
    stop, and killed if they do not. A failure does not stop the others.

    Raises:
        InputError: some failed; they have said why.
    """
    waiting, running, failed = deque(commands), dict[str, subprocess.Popen[bytes]](), list[str]()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                name = waiting.popleft()
                running[name] = _start(commands[name])
            time.sleep(0.1)
            for name in [name for name, child in running.items() if child.poll() is not None]:
                if running.pop(name).returncode:
                    failed.append(name)
                else:
                    yield name
    finally:
        _stop(list(running.values()))
    if failed:
        raise InputError(f"{len(failed)} of {len(commands)} failed: {', '.join(failed)}; the same command tries again")


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """A child whose standard input ends when this process does, whatever ends it."""
    return subprocess.Popen(list(command), stdin=subprocess.PIPE, env={**os.environ, **ONE_THREAD})


def _stop(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        child.terminate()
    deadline = time.monotonic() + GRACE
    for child in children:
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def end_with_parent() -> None:
    """In a child: stop as on SIGTERM when the parent is gone, even if it was killed."""

    def watch() -> None:
        os.read(0, 1)  # nobody writes: it returns at the end of the pipe
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
