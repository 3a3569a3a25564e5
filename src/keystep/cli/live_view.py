"""View of a live stream in the terminal."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from keystep.foresight import Forecaster
from keystep.heads import Head
from keystep.stream import Reading
from keystep.terminal import clock

COLOURS = ("blue", "yellow", "green", "red", "magenta", "cyan", "bright_blue", "bright_yellow", "bright_green")
SHOWN_STEPS = 5
BAR = 30
RIBBON = 70


class LiveView:
    """Shows the current and the likeliest steps, what is foreseen, a ribbon of the last minutes, delay and speed."""

    def __init__(self, console: Console, title: str, head: Head, forecaster: Forecaster | None = None) -> None:
        self.title, self.head, self.forecaster = title, head, forecaster
        self.steps: deque[int] = deque(maxlen=RIBBON * 8)
        self.last: Reading | None = None
        self.milliseconds: deque[float] = deque(maxlen=500)
        self.started = time.monotonic()
        self._live = Live(console=console, refresh_per_second=8, get_renderable=self.render)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def show(self, readings: Sequence[Reading], seconds: float) -> None:
        """Add readings; ``seconds`` is the computation time per frame."""
        if readings:
            self.last = readings[-1]
            self.steps.extend(reading.step for reading in readings if reading.final)
        if seconds:
            self.milliseconds.append(1e3 * seconds)

    def render(self) -> RenderableType:
        """Return the current view."""
        if self.last is None:
            return Text(f"{self.title}: waiting for the first frames")
        reading = self.last
        minutes, seconds = divmod(reading.time, 60)
        place = f"{int(minutes):02d}:{seconds:04.1f}"
        name = Text(self.head.name(reading.step), style=f"bold {_colour(reading.step)}")
        state = "" if reading.final else "  (provisional)"
        first = Text.assemble((place, "bold"), "  ", name, f"  {100 * reading.probability:.0f} %{state}")
        speed = f"{np.median(self.milliseconds or [0.0]):.1f} ms per frame"
        last = Text(f"delay {reading.delay:.2f} s   {speed}   {self.title}", style="dim")
        return Group(first, self._bars(reading), *self._foreseen(reading), self._ribbon(), last)

    def _bars(self, reading: Reading) -> Table:
        table = Table.grid(padding=(0, 1))
        for step in np.argsort(-reading.probabilities)[:SHOWN_STEPS]:
            share = float(reading.probabilities[step])
            bar = Text("█" * round(BAR * share), style=_colour(int(step)))
            table.add_row(self.head.name(int(step)), f"{100 * share:3.0f} %", bar)
        return table

    def _foreseen(self, reading: Reading) -> list[Text]:
        """Return a line with the next step and the time left, if there is a forecaster."""
        if self.forecaster is None or reading.forecast is None:
            return []
        found = self.forecaster.records(reading.forecast)[0]
        following = "the end" if found["next"] is None else found["next"]
        low, high = map(clock, found["remaining_interval"])
        return [
            Text(
                f"next step: {following} in {found['starts_in']:.0f} s  {100 * found['probability']:.0f} %   "
                f"left: {clock(found['remaining'])} ({low} to {high})"
            )
        ]

    def _ribbon(self) -> Text:
        """Return the final steps, oldest first; each mark shows the most frequent step of an interval."""
        steps = list(self.steps)
        size = max(1, -(-len(steps) // RIBBON))
        ribbon = Text()
        for start in range(0, len(steps), size):
            values, counts = np.unique(steps[start : start + size], return_counts=True)
            ribbon.append("▀", style=_colour(int(values[counts.argmax()])))
        return ribbon


def _colour(step: int) -> str:
    return COLOURS[step % len(COLOURS)]
