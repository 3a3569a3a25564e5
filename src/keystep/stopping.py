"""Ending on request."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from keystep.errors import Interrupted

STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Ctrl-C, what service managers send, and what a terminal that is closed sends."""


@contextmanager
def handling_stops(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Have a handler called on a request to stop, but for those that are ignored, as under ``nohup``."""

    def handle(number: int, frame: FrameType | None) -> None:
        _leave_closed_terminal()
        handler(number, frame)

    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread
        return
    heard = [number for number in STOPS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    previous = {number: signal.signal(number, handle) for number in heard}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def _leave_closed_terminal() -> None:
    """Let output go nowhere where the terminal is gone: each line would be an error, in the middle of saving."""
    if os.name != "posix":
        return
    import termios

    for output in (1, 2):
        try:
            termios.tcgetattr(output)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                os.dup2(os.open(os.devnull, os.O_WRONLY), output)


def raise_interrupt(number: int, frame: FrameType | None) -> None:
    """A handler that lets every request to stop act as Ctrl-C does."""
    raise KeyboardInterrupt


@contextmanager
def unbroken() -> Iterator[None]:
    """Put off requests to stop until the end of a block that has to be done whole."""
    asked: list[int] = []
    with handling_stops(lambda number, frame: asked.append(number)):
        yield
    if asked:
        raise KeyboardInterrupt


@contextmanager
def interruptible(message: str) -> Iterator[None]:
    """End work that keeps what is finished with one line on Ctrl-C and its like.

    Raises:
        Interrupted: with the message, which says how to go on.
    """
    try:
        with handling_stops(raise_interrupt):
            yield
    except KeyboardInterrupt:
        raise Interrupted(message) from None
