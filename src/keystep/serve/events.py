"""Server-sent events: what happens is told to every page that is open."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

WAITING = 256
"""Messages that may wait for one page; of more, the oldest are dropped: pages ask for what they missed."""
QUIET = 15.0
"""Seconds after which a comment tells both ends that the connection lives."""


class Events:
    """A bus from any thread to all subscribers."""

    def __init__(self) -> None:
        self._queues: dict[asyncio.Queue[str | None], asyncio.AbstractEventLoop] = {}
        self._closed = False

    @property
    def subscribers(self) -> int:
        """Pages that listen."""
        return len(self._queues)

    def publish(self, kind: str, data: dict[str, Any]) -> None:
        """Tell everybody; may be called from any thread and never waits."""
        message = f"event: {kind}\ndata: {json.dumps(data, allow_nan=False)}\n\n"
        for queue, loop in list(self._queues.items()):
            _call(loop, _put, queue, message)

    def close(self) -> None:
        """End all subscriptions."""
        self._closed = True
        for queue, loop in list(self._queues.items()):
            _call(loop, _put, queue, None)

    async def subscribe(self) -> AsyncIterator[str]:
        """Messages as the protocol writes them, until the reader goes or the bus is closed."""
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._queues[queue] = asyncio.get_running_loop()
        try:
            yield ": hello\n\n"
            while not self._closed or queue.qsize():
                try:
                    message = await asyncio.wait_for(queue.get(), QUIET)
                except TimeoutError:
                    message = ": still here\n\n"
                if message is None:
                    return
                yield message
        finally:
            self._queues.pop(queue, None)


def _call(loop: asyncio.AbstractEventLoop, *call: Any) -> None:
    try:
        loop.call_soon_threadsafe(*call)
    except RuntimeError:  # the loop of a reader that has gone is closed
        return


def _put(queue: asyncio.Queue[str | None], message: str | None) -> None:
    if queue.qsize() >= WAITING:
        queue.get_nowait()
    queue.put_nowait(message)
