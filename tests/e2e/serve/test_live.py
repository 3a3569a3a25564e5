"""Live streams on the page: pushed to the server, and as a server tells them that the test makes up."""

import json
from typing import Any
from urllib.request import urlopen

import numpy as np
from drawn import COLOURS, STEPS
from look import Server, Windows, until
from websockets.sync.client import connect

STEP = {
    "frame": 7,
    "time": 1.75,
    "step": "place it",
    "probability": 0.8,
    "probabilities": {"place it": 0.8, "check": 0.15, "wait": 0.05},
    "delay": 0.031,
}


def test_features_that_a_client_pushes_are_steps_on_the_page(server: Server, windows: Windows) -> None:
    page = windows.open(server.address)
    page.keyboard.press("l")
    page.wait_for_selector("#accuracy b")
    page.get_by_role("link", name="Live").click()
    page.locator("#open-stream [name=name]").fill("bench")
    page.get_by_role("button", name="Open a stream").click()
    card = page.locator(".stream", has=page.get_by_role("heading", name="bench"))
    card.get_by_text("waiting for the first frame").wait_for()
    until(page, "[...keystep.live.cards.values()].every(card => card.stop)")
    rows = np.load(server.data / "features" / "assembly_01.npy").T.astype("<f4")
    with connect(pushing(server)) as socket:
        assert json.loads(socket.recv())["width"] == rows.shape[1]
        for part in np.split(rows, 6):
            socket.send(part.tobytes())
        card.get_by_text("60 frames").wait_for()
        card.get_by_text("live · ").wait_for()
    card.get_by_text("ms behind").wait_for()
    labels = server.labels("assembly_01")
    steps = page.evaluate("[...keystep.live.cards.values()][0].steps.map(step => step.step)")
    assert len(steps) == 60
    assert np.mean([found == true for found, true in zip(steps, labels, strict=True)]) > 0.9
    shown = {tuple(colour) for colour in page.evaluate(RIBBON)}
    assert {tuple(COLOURS[STEPS.index(step)].tolist()) for step in set(steps)} <= shown
    shares = [int(text.split()[0]) for text in card.locator(".bars .value").all_inner_texts()]
    assert len(shares) == 3 and shares == sorted(shares, reverse=True) and 90 <= sum(shares) <= 101
    assert card.locator(".stream-now").inner_text() == steps[-1]
    card.get_by_role("button", name="End bench").click()
    page.get_by_text("No stream is open.").wait_for()


RIBBON = """() => {
    const canvas = document.querySelector(".ribbon");
    const line = canvas.getContext("2d").getImageData(0, 5, canvas.width, 1).data;
    return Array.from({length: canvas.width}, (_, x) => [...line.slice(4 * x, 4 * x + 3)]);
}"""


def pushing(server: Server) -> str:
    """Where to push the frames of the only stream."""
    with urlopen(f"{server.address}api/streams") as answer:
        (stream,) = json.load(answer)["items"]
    return f"{server.address.replace('http', 'ws')}api/streams/{stream['id']}/push"


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
