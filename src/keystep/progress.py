"""How far long work is: one protocol, and what shows it in a terminal, in a notebook and in a log.

Functions that take long accept ``progress``, by default `SILENT`, and report to it:

    with progress.task("encoding", total=len(names), unit="videos") as task:
        for name in names:
            ...
            task.advance(note=name)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console

SECONDS_BETWEEN_LINES = 15.0


class Task(Protocol):
    """One piece of work that is counted."""

    total: float | None
    """How much there is to do, in units; None while it is not known. May be set later."""

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Report ``amount`` more units as done. ``note``: a few words on the state, such as a loss or a speed."""


class Progress(Protocol):
    """Receives the progress of long work."""

    def task(
        self, description: str, total: float | None = None, unit: str = "", initial: float = 0, even: bool = True
    ) -> AbstractContextManager[Task]:
        """Begin a piece of work of ``total`` units, such as 12 ``videos``; leaving the context ends it.

        Args:
            initial: units that an earlier, resumed run has done already.
            even: whether units take about as long as each other. If not, nothing is said about the time left.
        """

    def message(self, text: str) -> None:
        """Report one line of text beside the counting, such as a measurement on the way."""


class Count:
    """A task that reports every change to a function of (done, total, note)."""

    def __init__(
        self, total: float | None, changed: Callable[[float, float | None, str], None], initial: float = 0
    ) -> None:
        self.total = total
        self.done = initial
        self._changed = changed

    def advance(self, amount: float = 1, note: str = "") -> None:
        self.done += amount
        self._changed(self.done, self.total, note)


class Silent:
    """No-op progress."""

    @contextmanager
    def task(
        self, description: str, total: float | None = None, unit: str = "", initial: float = 0, even: bool = True
    ) -> Iterator[Task]:
        yield Count(total, lambda done, total, note: None)

    def message(self, text: str) -> None:
        pass


SILENT = Silent()


class Bars:
    """Rich progress bars with the rate and the time left, in a terminal or a notebook.

    Args:
        console: where to draw; by default rich's own, which finds out whether it is in a notebook.
    """

    def __init__(self, console: Console | None = None) -> None:
        from keystep.terminal import Terminal

        self.console = console or Terminal()

    @contextmanager
    def task(
        self, description: str, total: float | None = None, unit: str = "", initial: float = 0, even: bool = True
    ) -> Iterator[Task]:
        from rich import progress

        columns = (
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.TextColumn("{task.fields[count]}"),
            progress.TextColumn("{task.fields[note]}", markup=False),
            progress.TimeElapsedColumn(),
            *((progress.TextColumn("left"), progress.TimeRemainingColumn()) if even else ()),
        )
        with progress.Progress(*columns, console=self.console) as display:
            bar = display.add_task(
                description, total=total, completed=int(initial), count=_count(initial, total, unit), note=""
            )

            def changed(done: float, total: float | None, note: str) -> None:
                display.update(bar, completed=done, total=total, count=_count(done, total, unit), note=note)

            yield Count(total, changed, initial)

    def message(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, markup=False)


class Lines:
    """Plain lines at intervals, for logs and for output that is no terminal.

    Args:
        write: receives each line; by default keystep's logger, at level INFO.
        interval: seconds between two lines of a task. The first line comes after one interval, the last at its end if
            any came before.
    """

    def __init__(self, write: Callable[[str], object] | None = None, interval: float = SECONDS_BETWEEN_LINES) -> None:
        self.write = write or logging.getLogger("keystep").info
        self.interval = interval

    @contextmanager
    def task(
        self, description: str, total: float | None = None, unit: str = "", initial: float = 0, even: bool = True
    ) -> Iterator[Task]:
        started = printed = time.monotonic()
        lines = 0

        def changed(done: float, total: float | None, note: str) -> None:
            nonlocal printed, lines
            now = time.monotonic()
            complete = lines > 0 and done == total
            if now - printed < self.interval and not complete:
                return
            printed, lines = now, lines + 1
            spent = now - started
            known = even and total is not None and initial < done < total
            left = f"{(total - done) * spent / (done - initial):.0f} s left" if known else ""  # type: ignore[operator]
            after = "" if even or complete else f"after {spent:.0f} s"
            self.write("  ".join(filter(None, (f"{description}: {_count(done, total, unit)}", note, left or after))))

        yield Count(total, changed, initial)

    def message(self, text: str) -> None:
        self.write(text)


def _count(done: float, total: float | None, unit: str) -> str:
    """``3 of 12 videos``"""
    share = f"{done:,.0f}" if total is None else f"{done:,.0f} of {total:,.0f}"
    return f"{share} {unit}".rstrip()
