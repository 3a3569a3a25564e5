"""Progress bars with rate and time left; plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

import keystep.progress

PLAIN_SECONDS = 15.0


def bars(console: Console, how_far: ProgressColumn | None = None) -> Progress:
    """A rich progress display in keystep's columns. how_far: by default items done, of how many."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        how_far or MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def progress_on(console: Console) -> keystep.progress.Progress:
    """Bars in a terminal, lines at intervals elsewhere."""
    if console.is_terminal:
        return keystep.progress.Bars(console)
    return keystep.progress.Lines(lambda line: console.print(line, soft_wrap=True, markup=False))


class Tick(Protocol):
    """Called when one more item is done."""

    def __call__(self, note: str = "") -> None: ...


@contextmanager
def counting(console: Console, what: str, total: int | None) -> Iterator[Tick]:
    """A bar over ``total`` items; call the yielded function after each with a note."""
    with bars(console) as progress:
        task = progress.add_task(what, total=total, note="")
        last = time.monotonic()

        def tick(note: str = "") -> None:
            nonlocal last
            progress.update(task, advance=1, note=note)
            if not console.is_terminal and time.monotonic() - last > PLAIN_SECONDS:
                last = time.monotonic()
                console.print(f"{what}: {progress.tasks[0].completed:.0f} of {total or '?'}  {note}")

        yield tick


class VideoProgress:
    """A bar over the seconds of several videos, with frames a second, how many times real time, and time left."""

    def __init__(self, console: Console, videos: Collection[str], seconds: Mapping[str, float]) -> None:
        self.console, self.videos = console, len(videos)
        self.total = sum(seconds.values())
        self.done, self.frames, self.seconds = 0, 0, 0.0
        self._started = self._printed = time.monotonic()
        self._bars = bars(console, TaskProgressColumn())
        self._task = self._bars.add_task(self._what(), total=self.total or None, note="")

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bars.stop()

    def advance(self, seconds: float, frames: int) -> None:
        """So many seconds of video, so many of its frames, are done."""
        self.seconds, self.frames = self.seconds + seconds, self.frames + frames
        self._show()

    def finished(self, name: str) -> None:
        """One video is whole."""
        self.done += 1
        self._show()

    def _what(self) -> str:
        return f"extracting {min(self.done + 1, self.videos)} of {self.videos}"

    def _show(self) -> None:
        now = time.monotonic()
        spent = max(1e-6, now - self._started)
        note = f"{self.frames / spent:,.0f} frames/s, {self.seconds / spent:.1f} x real time"
        self._bars.update(self._task, completed=self.seconds, description=self._what(), note=note)
        if not self.console.is_terminal and now - self._printed > PLAIN_SECONDS:
            self._printed = now
            left = f", {(self.total - self.seconds) * spent / self.seconds:.0f} s left" if self.seconds else ""
            self.console.print(f"{self._what()} videos: {note}{left}")
