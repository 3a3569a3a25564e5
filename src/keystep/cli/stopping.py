"""Ending on request."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from keystep.errors import Interrupted


@contextmanager
def stopping_on_terminate() -> Iterator[None]:
    """Let SIGTERM, as service managers send it, act as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def interruptible(message: str) -> Iterator[None]:
    """End work that keeps what is finished with one line on Ctrl-C and SIGTERM.

    Raises:
        Interrupted: with the message, which says how to go on.
    """
    try:
        with stopping_on_terminate():
            yield
    except KeyboardInterrupt:
        raise Interrupted(message) from None
