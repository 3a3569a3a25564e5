"""Server-sent events: told from any thread, to everybody, in order."""

from __future__ import annotations

import asyncio
import threading

import pytest

from keystep.serve import events
from keystep.serve.events import WAITING, Events


async def listening(bus: Events) -> tuple[list[str], asyncio.Task[None]]:
    """What a page has received so far, and the task that receives."""
    heard: list[str] = []

    async def listen() -> None:
        async for message in bus.subscribe():
            heard.append(message)

    task = asyncio.create_task(listen())
    while not heard:
        await asyncio.sleep(0)
    return heard, task


def test_all_pages_hear_what_a_thread_tells_until_the_bus_is_closed() -> None:
    async def run() -> None:
        bus = Events()
        pages = [await listening(bus) for _ in range(2)]
        assert bus.subscribers == 2
        teller = threading.Thread(target=lambda: [bus.publish("learning", {"progress": n}) for n in range(3)])
        teller.start()
        teller.join()
        bus.close()
        await asyncio.gather(*(task for _, task in pages))
        for heard, _ in pages:
            assert heard[1:] == [f'event: learning\ndata: {{"progress": {n}}}\n\n' for n in range(3)]
        assert bus.subscribers == 0

    asyncio.run(run())


def test_a_page_that_does_not_read_loses_the_oldest_and_holds_up_nobody() -> None:
    async def run() -> None:
        bus = Events()
        stream = bus.subscribe()
        await anext(stream)
        for number in range(WAITING + 10):
            bus.publish("annotation", {"revision": number})
        await asyncio.sleep(0)
        assert '"revision": 10}' in await anext(stream)

    asyncio.run(run())


def test_a_quiet_connection_is_kept_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "QUIET", 0.01)

    async def run() -> None:
        stream = Events().subscribe()
        await anext(stream)
        assert (await anext(stream)).startswith(": ")

    asyncio.run(run())


def test_a_page_that_has_gone_is_forgotten() -> None:
    async def run() -> None:
        bus = Events()
        _, task = await listening(bus)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert bus.subscribers == 0
        bus.publish("annotation", {})

    asyncio.run(run())


def test_telling_after_the_loop_has_ended_is_no_error() -> None:
    bus = Events()

    async def run() -> None:
        await anext(bus.subscribe())

    loop = asyncio.new_event_loop()
    loop.run_until_complete(run())
    loop.close()
    bus.publish("annotation", {})
