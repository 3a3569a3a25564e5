"""Counts and times of the server, as Prometheus reads them."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from itertools import accumulate

from starlette.types import ASGIApp, Message, Receive, Scope, Send

BOUNDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Borders of histograms, in seconds."""
Labels = tuple[tuple[str, str], ...]


class ServerMetrics:
    """Counters that only grow, histograms, and gauges that are asked for when they are read; for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, dict[Labels, float]] = {}
        self._gauges: dict[str, Callable[[], float]] = {}
        self._histograms: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        self._help: dict[str, str] = {}

    def counter(self, name: str, about: str) -> None:
        """Make a counter known."""
        self._help[name] = about
        self._counts[name] = {}

    def gauge(self, name: str, about: str, value: Callable[[], float]) -> None:
        """Make a gauge known; ``value`` is called whenever the metrics are read."""
        self._help[name] = about
        self._gauges[name] = value

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Let a counter grow."""
        with self._lock:
            values, key = self._counts[name], tuple(sorted(labels.items()))
            values[key] = values.get(key, 0) + amount

    def histogram(self, name: str, about: str) -> None:
        """Make a histogram of seconds known, with the borders `BOUNDS`."""
        self._help[name] = about
        self._histograms[name], self._sums[name] = [0] * (len(BOUNDS) + 1), 0.0

    def observe(self, name: str, seconds: float) -> None:
        """Count a time."""
        with self._lock:
            self._histograms[name][bisect_left(BOUNDS, seconds)] += 1
            self._sums[name] += seconds

    def text(self) -> str:
        """All of them in the text format, version 0.0.4."""
        with self._lock:
            counts = {name: dict(values) for name, values in self._counts.items()}
            histograms = {name: (*values, self._sums[name]) for name, values in self._histograms.items()}
        lines: list[str] = []
        for name, values in counts.items():
            lines += [f"# HELP {name} {self._help[name]}", f"# TYPE {name} counter"]
            lines += [f"{name}{_labels(labels)} {value:g}" for labels, value in sorted(values.items())]
        for name, (*found, total) in histograms.items():
            lines += [f"# HELP {name} {self._help[name]}", f"# TYPE {name} histogram"]
            steps = zip((*BOUNDS, "+Inf"), accumulate(found), strict=True)
            lines += [f'{name}_bucket{{le="{bound}"}} {count:g}' for bound, count in steps]
            lines += [f"{name}_sum {total:g}", f"{name}_count {sum(found):g}"]
        for name, value in self._gauges.items():
            lines += [f"# HELP {name} {self._help[name]}", f"# TYPE {name} gauge", f"{name} {value():g}"]
        return "\n".join(lines) + "\n"


REQUESTS, SECONDS = "keystep_requests_total", "keystep_request_seconds_total"


class Measured:
    """Counts the requests of an application by route and status, and the seconds that they took."""

    def __init__(self, app: ASGIApp, metrics: ServerMetrics) -> None:
        self.app, self.metrics = app, metrics
        metrics.counter(REQUESTS, "Requests by route and status.")
        metrics.counter(SECONDS, "Seconds until requests were answered, streams until they ended.")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, began = 500, time.perf_counter()

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, answer)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self.metrics.add(REQUESTS, route=route, status=str(status))
            self.metrics.add(SECONDS, time.perf_counter() - began, route=route)


def _labels(labels: Labels) -> str:
    pairs = [f'{name}="{_escaped(value)}"' for name, value in labels]
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
