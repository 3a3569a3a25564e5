"""Progress display of the command line."""

from __future__ import annotations

from rich.console import Console

from keystep.progress import Bars, Lines, Progress


def progress_on(console: Console) -> Progress:
    """Return progress bars for a terminal, or else lines at intervals."""
    if console.is_terminal:
        return Bars(console)
    return Lines(lambda line: console.print(line, soft_wrap=True, markup=False))
