"""Progress for the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console

from keystep.progress import Bars, Lines, Progress


def progress_on(console: Console) -> Progress:
    """Bars in a terminal, lines at intervals elsewhere."""
    if console.is_terminal:
        return Bars(console)
    return Lines(lambda line: console.print(line, soft_wrap=True, markup=False))


class Tick(Protocol):
    """Called when one more item is done."""

    def __call__(self, note: str = "") -> None: ...


@contextmanager
def counting(console: Console, what: str, total: int | None) -> Iterator[Tick]:
    """A task of `progress_on`; call the yielded function after each item with a note."""
    with progress_on(console).task(what, total) as task:
        yield lambda note="": task.advance(note=note)
