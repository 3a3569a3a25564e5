"""Live streams on the page, told by a server that the test makes up."""

import json
from typing import Any

from look import Server, Windows

STEP = {
    "frame": 7,
    "time": 1.75,
    "step": "place it",
    "probability": 0.8,
    "probabilities": {"place it": 0.8, "check": 0.15, "wait": 0.05},
    "delay": 0.031,
}


def test_a_stream_shows_its_step_probabilities_and_delay(server: Server, windows: Windows) -> None:
    context = windows.context()
    item = {"id": "0123456789ab", "name": "bench", "state": "live", "message": "", "frames": 8, "dropped": 2}

    def streams(route: Any) -> None:
        route.fulfill(json={"items": [{**item, "last": None}]})

    def steps(route: Any) -> None:
        route.fulfill(content_type="text/event-stream", body=f"event: step\ndata: {json.dumps(STEP)}\n\n")

    context.route("**/api/streams", streams)
    context.route("**/api/streams/*/events", steps)
    page = windows.open(server.address, context)
    page.get_by_role("link", name="Live").click()
    page.locator(".stream .bars li").nth(2).wait_for()
    said = page.locator(".stream").inner_text()
    assert said.split("\n")[:2] == ["bench", "place it"]
    page.get_by_text("8 frames · 2 dropped · 31 ms behind").wait_for()
    assert "80 %" in said
    page.get_by_role("link", name="Videos").click()
    page.locator("#timeline").wait_for()


def test_a_server_without_streams_shows_no_live_view(server: Server, windows: Windows) -> None:
    context = windows.context()
    context.route("**/api/streams", lambda route: route.fulfill(status=404, json={"error": "Not Found"}))
    page = windows.open(server.address, context)
    assert not page.get_by_role("link", name="Live").is_visible()
