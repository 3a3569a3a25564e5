"""Live streams are answered by what is learned from the labels, on the latents that streams have."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from keystep.config.attention import AttentionPattern
from keystep.data.folder import open_dataset
from keystep.encoding import encode
from keystep.errors import InputError
from keystep.heads import Head
from keystep.pjepa import PJEPA
from keystep.serve import live_head
from keystep.serve.workspace import Workspace

Open = Callable[..., TestClient]
WIDTH = 6


@pytest.fixture
def model(make_model: Callable[..., PJEPA]) -> PJEPA:
    """Looks at whole recordings, and at the past of streams."""
    live = AttentionPattern(kind="causal", window=12)
    return make_model({"kind": "bidirectional"}, input_dim=WIDTH, live_attention=live)


@pytest.fixture
def serve(mstcn: Path, model: PJEPA, opened: Open) -> Callable[[], TestClient]:
    return lambda: opened(Workspace(open_dataset(mstcn, source_rate=4), model=model))


def opening(client: TestClient) -> Any:
    return client.post("/api/streams", json={"source": {"kind": "push"}})


def pushed(client: TestClient, stream: str, rows: np.ndarray) -> dict[str, Any]:
    """Push rows, and wait until the last is answered."""
    with client.websocket_connect(f"ws://127.0.0.1:8000/api/streams/{stream}/push") as socket:
        last = socket.receive_json()["next"] + len(rows) - 1
        socket.send_bytes(rows.astype("<f4").tobytes())
        for _ in range(500):
            found = client.get(f"/api/streams/{stream}").json()
            if found["last"] is not None and found["last"]["frame"] == last:
                return found
            time.sleep(0.01)
    raise AssertionError(found)


def answering(client: TestClient) -> Head:
    return client.app.state.services.streams.head()  # type: ignore[attr-defined]


def test_steps_of_a_stream_are_those_of_the_learned_head_on_causal_latents_offline(
    serve: Callable[[], TestClient], model: PJEPA
) -> None:
    with serve() as client:
        answer = opening(client)
        assert answer.status_code == 201, answer.text
        stream = answer.json()["id"]
        features = client.app.state.services.workspace.folder.features("video.5")  # type: ignore[attr-defined]
        steps: list[dict[str, Any]] = []
        client.app.state.services.streams.find(stream).events.publish = lambda kind, step: steps.append(step)  # type: ignore[attr-defined]
        pushed(client, stream, features)
        head = answering(client)
        assert head.origin["mode"] == "causal" and head.origin["weights"] == model.fingerprint
        expected = head.probabilities(torch.from_numpy(encode(model, features, mode="causal"))).numpy()
        assert [step["step"] for step in steps] == [head.name(index) for index in expected.argmax(axis=1)]
        found = [[step["probabilities"][head.name(index)] for index in range(3)] for step in steps]
        np.testing.assert_allclose(found, expected, atol=1e-3)
        learning = client.get("/api/streams").json()["learning"]
        assert learning["accuracy"]["videos"] == 6


def test_labels_that_come_later_reach_streams_that_run(serve: Callable[[], TestClient]) -> None:
    with serve() as client:
        stream = opening(client).json()["id"]
        rows = np.random.default_rng(0).normal(size=(3, WIDTH))
        pushed(client, stream, rows)
        client.post("/api/classes", json={"name": "polish"})
        body = {"base_revision": 0, "spans": [{"start": 0, "stop": 20, "label": "polish"}]}
        assert client.put("/api/videos/0/annotation", json=body).status_code == 200
        client.post("/api/learning")
        for _ in range(100):
            pushed(client, stream, rows)
            if "polish" in (answering(client).names or ()):
                return
            time.sleep(0.05)
    raise AssertionError("the stream never heard of it")


def test_a_server_that_starts_again_answers_with_the_same_head(serve: Callable[[], TestClient]) -> None:
    rows = np.random.default_rng(0).normal(size=(4, WIDTH))
    with serve() as client:
        stream = opening(client).json()["id"]
        pushed(client, stream, rows)
        before = answering(client).signature
    with serve() as client:
        assert pushed(client, stream, rows)["frames"] == 8
        assert answering(client).signature == before


def test_without_labels_or_in_a_hurry_nothing_answers_and_it_says_why(
    serve: Callable[[], TestClient], mstcn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_head, "PATIENCE", 0.0)
    with serve() as client:
        answer = opening(client)
        assert answer.status_code == 503 and "try again" in answer.json()["error"] and "progress" in answer.json()
    monkeypatch.undo()
    for path in (mstcn / "groundTruth").iterdir():
        path.write_text("cut\n" * len(path.read_text().splitlines()))
    with serve() as client:
        answer = opening(client)
        assert answer.status_code == 409 and "second class" in answer.json()["error"]
    for path in (mstcn / "groundTruth").iterdir():
        path.unlink()
    (mstcn / "annotations.jsonl").unlink(missing_ok=True)
    with serve() as client:
        answer = opening(client)
        assert answer.status_code == 409 and "--head" in answer.json()["error"]


def test_windows_of_live_streams_that_cannot_be(mstcn: Path, make_model: Callable[..., PJEPA]) -> None:
    def served(attention: dict[str, Any] | None, window: int) -> Workspace:
        model = None if attention is None else make_model(attention, input_dim=WIDTH)
        return Workspace(open_dataset(mstcn, source_rate=4), model=model, live_window=window)

    with pytest.raises(InputError, match="--live-window 5: this model has a window already"):
        served({"kind": "causal", "window": 12}, 5)
    with pytest.raises(InputError, match="--live-window 9999999: at most"):
        served({"kind": "causal"}, 9999999)
    with pytest.raises(InputError, match="give the model with --model"):
        served(None, 5)
    model = served({"kind": "causal"}, 5).live_model
    assert model is not None and model.config.stream_attention == AttentionPattern(kind="causal", window=5)
