"""Live streams: what comes in by a socket comes out as steps, whatever happens in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clips import write_clip
from fastapi.testclient import TestClient
from PIL import Image
from starlette.websockets import WebSocketDisconnect

from keystep.data.folder import open_dataset
from keystep.extraction.run import extract
from keystep.heads import Head, linear_head
from keystep.heads.linear import Affine
from keystep.opening import SourceOptions, extractor_of
from keystep.pjepa import PJEPA
from keystep.serve import batches
from keystep.serve import live as live_module
from keystep.serve import streams as streams_module
from keystep.serve.stream_sources import Sources
from keystep.serve.workspace import Workspace

Open = Callable[..., TestClient]
WIDTH = 6
CAUSAL = {"kind": "causal", "window": 12}


@pytest.fixture
def model(make_model: Callable[..., PJEPA]) -> PJEPA:
    return make_model(CAUSAL, input_dim=WIDTH)


@pytest.fixture
def head(model: PJEPA, tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(3)
    width = model.latent_dim(model.config.attention)
    affine = Affine(torch.randn(3, width, generator=generator), torch.zeros(3))
    made = linear_head(affine, names=("wait", "cut", "tie"), origin={"weights": model.fingerprint, "mode": "causal"})
    made.save(tmp_path / "head.safetensors")
    return tmp_path / "head.safetensors"


@pytest.fixture
def serve(mstcn: Path, model: PJEPA, head: Path, opened: Open) -> Callable[..., TestClient]:
    def start(**options: Any) -> TestClient:
        workspace = Workspace(open_dataset(mstcn, source_rate=4), model=model)
        return opened(workspace, head=head, **options)

    return start


@pytest.fixture
def client(serve: Callable[..., TestClient]) -> Iterator[TestClient]:
    with serve() as client:
        yield client


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)


def opened_stream(client: TestClient, **source: Any) -> str:
    answer = client.post("/api/streams", json={"source": {"kind": "push", **source}, "name": "a"})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def pushing(client: TestClient, stream: str, query: str = "") -> Any:
    return client.websocket_connect(f"ws://127.0.0.1:8000/api/streams/{stream}/push{query}")


def item(client: TestClient, stream: str) -> dict[str, Any]:
    return client.get(f"/api/streams/{stream}").json()


def answered(client: TestClient, stream: str, frames: int) -> dict[str, Any]:
    for _ in range(500):
        found = item(client, stream)
        if found["frames"] >= frames or found["state"] == "failed":
            return found
        time.sleep(0.01)
    raise AssertionError(found)


@contextmanager
def told(client: TestClient, *streams: str) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """The steps of streams, as they are published."""
    steps: dict[str, list[dict[str, Any]]] = {stream: [] for stream in streams}
    own = client.app.state.services.streams  # type: ignore[attr-defined]
    for stream in streams:
        own.find(stream).events.publish = lambda kind, data, kept=steps[stream]: kept.append(data)
    yield steps


def offline(model: PJEPA, head: Head, frames: np.ndarray) -> np.ndarray:
    latents = model.encode(torch.from_numpy(frames)[None], pattern=model.config.stream_attention)[0]
    return head.probabilities(latents).numpy()


def check(steps: list[dict[str, Any]], model: PJEPA, client: TestClient, frames: np.ndarray) -> None:
    head = client.app.state.services.head.head  # type: ignore[attr-defined]
    expected = offline(model, head, frames)
    assert [step["frame"] for step in steps] == list(range(len(frames)))
    assert [step["time"] for step in steps] == pytest.approx([frame / 4 for frame in range(len(frames))])
    assert [step["step"] for step in steps] == [head.name(index) for index in expected.argmax(1)]
    likely = [[step["probabilities"][name] for name in head.names] for step in steps]
    np.testing.assert_allclose(likely, expected, atol=1e-4)


def test_ten_streams_side_by_side_each_give_what_its_video_gives_offline(client: TestClient, model: PJEPA) -> None:
    streams = [opened_stream(client) for _ in range(10)]
    frames = {stream: rows(20 + 7 * number, number) for number, stream in enumerate(streams)}
    with told(client, *streams) as steps:
        for start in range(0, 90, 9):
            for stream in streams:
                with pushing(client, stream) as socket:
                    assert socket.receive_json()["next"] == min(start, len(frames[stream]))
                    if len(part := frames[stream][start : start + 9]):
                        socket.send_bytes(part.tobytes())
        for stream in streams:
            assert answered(client, stream, len(frames[stream]))["dropped"] == 0
    for stream in streams:
        check(steps[stream], model, client, frames[stream])


def test_a_stream_goes_on_after_the_server_was_started_again(
    serve: Callable[..., TestClient], model: PJEPA, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = rows(40)
    with serve() as client:
        stream = opened_stream(client)
        with told(client, stream) as before, pushing(client, stream) as socket:
            socket.send_bytes(frames[:25].tobytes())
            answered(client, stream, 25)
    with serve() as client:
        assert [found["id"] for found in client.get("/api/streams").json()["items"]] == [stream]
        with told(client, stream) as after, pushing(client, stream) as socket:
            assert socket.receive_json()["next"] == 25
            socket.send_bytes(frames[25:].tobytes())
            assert answered(client, stream, 40)["name"] == "a"
        check(before[stream] + after[stream], model, client, frames)


def test_a_killed_server_asks_again_for_what_came_after_its_last_save(serve: Callable[..., TestClient]) -> None:
    frames = rows(30)
    with serve() as client:
        stream = opened_stream(client)
        own = client.app.state.services.streams  # type: ignore[attr-defined]
        with pushing(client, stream) as socket:
            socket.send_bytes(frames[:10].tobytes())
            answered(client, stream, 10)
            own.save()
            own.save = lambda: None  # as if it were killed
            socket.send_bytes(frames[10:].tobytes())
            answered(client, stream, 30)
    with serve() as client, pushing(client, stream) as socket:
        assert socket.receive_json()["next"] == 10


def test_an_ended_stream_is_forgotten_for_good(serve: Callable[..., TestClient]) -> None:
    with serve() as client:
        stream = opened_stream(client)
        assert client.delete(f"/api/streams/{stream}").status_code == 204
        assert client.get(f"/api/streams/{stream}").status_code == 404
    with serve() as client:
        assert client.get("/api/streams").json()["items"] == []


def test_of_too_many_frames_the_oldest_are_dropped_and_counted(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "WAITING", 10)
    stream = opened_stream(client)
    own = client.app.state.services.streams  # type: ignore[attr-defined]
    with told(client, stream) as steps, pushing(client, stream) as socket:
        with own._computing:
            socket.send_bytes(rows(4).tobytes())
            socket.send_bytes(rows(30).tobytes())
            while item(client, stream)["next"] < 34:
                time.sleep(0.01)
        found = answered(client, stream, 10)
        time.sleep(0.05)
    assert found["dropped"] + len(steps[stream]) == 34 and found["dropped"] >= 20
    assert [step["frame"] for step in steps[stream]][-10:] == list(range(24, 34))
    assert f"keystep_stream_dropped_total {found['dropped']}" in client.get("/metrics").text


def test_a_client_may_go_on_later_but_not_earlier(client: TestClient) -> None:
    stream = opened_stream(client)
    with told(client, stream) as steps:
        with pushing(client, stream, "?frame=7") as socket:
            assert socket.receive_json()["next"] == 7
            socket.send_bytes(rows(2).tobytes())
            assert answered(client, stream, 2)["dropped"] == 7
        assert [step["frame"] for step in steps[stream]] == [7, 8]
    assert "go on with frame 9" in refused(client, stream, query="?frame=3")


def refused(client: TestClient, stream: str, *messages: bytes | str, query: str = "") -> str:
    """The reason for which a socket is closed."""
    with pushing(client, stream, query) as socket:
        for message in messages:
            (socket.send_text if isinstance(message, str) else socket.send_bytes)(message)  # type: ignore[operator]
        with pytest.raises(WebSocketDisconnect) as closed:
            while True:
                socket.receive_json()
    assert closed.value.code in (1001, 1008, 1009)
    return closed.value.reason


MALFORMED = {
    "23 bytes are no whole rows of 6": b"x" * 23,
    "0 bytes are no whole rows": b"",
    "row 0 holds NaN": np.full((1, WIDTH), np.nan, np.float32).tobytes(),
    "a text message": "[1, 2, 3]",
    "a message of 2097176 bytes": b"\0" * (2097152 + 24),
    "more than 32 frames a second": rows(300).tobytes(),
}


@pytest.mark.parametrize(("reason", "message"), MALFORMED.items(), ids=[*MALFORMED])
def test_what_cannot_be_used_is_one_clear_reason_and_the_stream_lives(
    client: TestClient, reason: str, message: bytes | str
) -> None:
    stream = opened_stream(client)
    assert reason in refused(client, stream, message)
    with pushing(client, stream) as socket:
        assert socket.receive_json()["next"] == 0
        socket.send_bytes(rows(1).tobytes())
        assert answered(client, stream, 1)["state"] == "live"


def test_frames_that_overflow_end_their_stream_and_no_other(client: TestClient, model: PJEPA) -> None:
    good, bad = opened_stream(client), opened_stream(client)
    own, frames = client.app.state.services.streams, rows(3)  # type: ignore[attr-defined]
    with told(client, good) as steps:
        with own._computing:
            own.put(own.find(bad), np.full((1, WIDTH), 3e38, np.float32))
            own.put(own.find(good), frames)
        answered(client, good, 3)
        found = answered(client, bad, 1)
    assert (found["state"], found["frames"]) == ("failed", 0) and "overflow" in found["message"]
    check(steps[good], model, client, frames)
    assert "overflow" in refused(client, bad)


def test_only_one_client_feeds_a_stream(client: TestClient) -> None:
    stream = opened_stream(client)
    with pushing(client, stream) as socket:
        socket.receive_json()
        assert "another client" in refused(client, stream)
    assert "no such stream" in refused(client, "0" * 12)


def test_there_are_only_so_many_streams(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_module, "MOST_STREAMS", 2)
    opened_stream(client), opened_stream(client)
    answer = client.post("/api/streams", json={"source": {"kind": "push"}})
    assert answer.status_code == 429 and "end one of them" in answer.json()["error"]


def test_files_are_played_only_from_the_folders_that_are_served(
    client: TestClient, mstcn: Path, model: PJEPA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams_module.Streams, "pause", lambda own, live, seconds: not live.over)

    def opening(path: str) -> Any:
        return client.post("/api/streams", json={"source": {"kind": "file", "path": path}})

    played = sorted((mstcn / "features").glob("*.npy"))[0]
    answer = opening(f"features/{played.name}")
    assert answer.status_code == 201, answer.text
    length = client.app.state.services.workspace.folder.length(played.stem)  # type: ignore[attr-defined]
    found = answered(client, answer.json()["id"], length)
    assert found["frames"] == length and found["dropped"] == 0
    assert opening("/etc/passwd").status_code == 403
    assert opening("../head.safetensors").status_code == 403
    assert opening("features/nothing.npy").status_code == 422


def test_addresses_and_cameras_are_opened_only_where_that_was_allowed(serve: Callable[..., TestClient]) -> None:
    with serve() as client:
        answer = client.post("/api/streams", json={"source": {"kind": "url", "url": "rtsp://camera/1"}})
        assert answer.status_code == 403 and "--allow-sources" in answer.json()["error"]
    with serve(allow_sources=True) as client:
        answer = client.post("/api/streams", json={"source": {"kind": "url", "url": "file:///etc/passwd"}})
        assert answer.status_code == 422


def test_an_address_of_an_earlier_server_is_not_opened_where_that_is_not_allowed_any_more(
    serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sources, "_read", lambda own, streams, live: False)
    with serve(allow_sources=True) as client:
        assert client.post("/api/streams", json={"source": {"kind": "url", "url": "rtsp://a/1"}}).status_code == 201
    monkeypatch.setattr(Sources, "_read", lambda own, streams, live: pytest.fail("it was opened"))
    with serve() as client:
        for _ in range(200):
            (found,) = client.get("/api/streams").json()["items"]
            if found["state"] == "failed":
                break
            time.sleep(0.01)
        assert found["state"] == "failed" and "--allow-sources" in found["message"]


def test_without_a_head_there_are_no_streams_and_with_a_learned_one_there_are(mstcn: Path, opened: Open) -> None:
    with opened(Workspace(open_dataset(mstcn, source_rate=4))) as client:
        answer = client.post("/api/streams", json={"source": {"kind": "push"}})
        assert answer.status_code == 409 and "--head" in answer.json()["error"]


def test_a_model_without_a_window_forgets_what_no_longer_fits_and_its_streams_go_on(
    mstcn: Path, make_model: Callable[..., PJEPA], opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model({"kind": "causal"}, input_dim=WIDTH)
    monkeypatch.setattr(batches, "MOST_STATE", 10 * 2 * 2 * 16 * 4)
    made = linear_head(Affine(torch.randn(2, 16), torch.zeros(2)), origin={"weights": model.fingerprint})
    made.save(mstcn / "head.safetensors")
    frames = rows(40)
    with opened(Workspace(open_dataset(mstcn, source_rate=4), model=model), head=mstcn / "head.safetensors") as client:
        assert client.get("/api/streams").json()["window"] == 10 / 4
        stream = opened_stream(client)
        with told(client, stream) as steps, pushing(client, stream) as socket:
            socket.send_bytes(frames.tobytes())
            assert answered(client, stream, 40)["state"] == "live"
        limited = client.app.state.services.streams.model  # type: ignore[attr-defined]
    assert limited.config.stream_attention.window == 10 and model.config.stream_attention.window is None
    whole, bounded = offline(model, made, frames), offline(limited, made, frames)
    found = [step["probabilities"]["class 0"] for step in steps[stream]]
    np.testing.assert_allclose(found, bounded[:, 0], atol=1e-4)
    np.testing.assert_allclose(found[:10], whole[:10, 0], atol=1e-4)
    assert np.abs(found - whole[:, 0]).max() > 1e-3


def test_pictures_that_are_pushed_give_what_the_extractor_gives_offline(tmp_path: Path, opened: Open) -> None:
    (tmp_path / "videos").mkdir()
    write_clip(tmp_path / "videos" / "a.mp4", frames=60)
    extract([tmp_path / "videos"], "toy_backbones:colours", out=tmp_path / "data")
    folder = open_dataset(tmp_path / "data")
    pictures = np.random.default_rng(5).integers(0, 255, (24, 2, 2, 3)).astype(np.uint8).repeat(16, 1).repeat(16, 2)
    head = linear_head(Affine(torch.randn(3, 12, generator=torch.Generator().manual_seed(1)), torch.zeros(3)))
    with opened(Workspace(folder)) as client:
        own = client.app.state.services.streams  # type: ignore[attr-defined]
        own._given = lambda: head
        stream = opened_stream(client, format="jpeg", rate=12)
        with told(client, stream) as steps, pushing(client, stream) as socket:
            assert socket.receive_json()["format"] == "jpeg"
            for picture in pictures:
                socket.send_bytes(jpeg(picture))
            seconds = 23 / 12
            answered(client, stream, int(seconds * own.rate))
        assert "not a JPEG" in refused(client, stream, b"GIF89a")
    decoded = [np.array(Image.open(BytesIO(jpeg(picture)))) for picture in pictures]
    extractor = extractor_of(Sources(Workspace(folder), False)._described(head), SourceOptions())
    features = extractor(decoded, [Fraction(index, 12) for index in range(24)]).features
    found = [step["probabilities"][f"class {index}"] for step in steps[stream] for index in range(3)]
    expected = head.probabilities(torch.from_numpy(features)).numpy()[: len(steps[stream])]
    np.testing.assert_allclose(found, expected.ravel(), atol=1e-4)
    assert len(steps[stream]) >= len(features) - 1


def jpeg(picture: np.ndarray) -> bytes:
    found = BytesIO()
    Image.fromarray(picture).save(found, "JPEG", quality=95)
    return found.getvalue()


def test_what_was_learned_here_answers_streams_of_features(mstcn: Path, opened: Open) -> None:
    with opened(Workspace(open_dataset(mstcn, source_rate=4))) as client:
        client.post("/api/learning")
        assert client.app.state.services.learner.wait(30)  # type: ignore[attr-defined]
        stream = opened_stream(client)
        with pushing(client, stream) as socket:
            socket.send_bytes(rows(5).tobytes())
            assert answered(client, stream, 5)["last"]["step"] in ("wait", "cut", "tie a knot")
        restarted = stream
    with opened(Workspace(open_dataset(mstcn, source_rate=4))) as client, pushing(client, restarted) as socket:
        assert socket.receive_json()["next"] == 5
        socket.send_bytes(rows(2).tobytes())
        assert answered(client, restarted, 7)["frames"] == 7


def test_metrics_count_frames_and_their_latency(client: TestClient) -> None:
    stream = opened_stream(client)
    with pushing(client, stream) as socket:
        socket.send_bytes(rows(5).tobytes())
        answered(client, stream, 5)
    text = client.get("/metrics").text
    assert "keystep_stream_frames_total 5" in text and "keystep_streams 1" in text
    assert 'keystep_stream_seconds_bucket{le="+Inf"} 5' in text and "keystep_stream_seconds_count 5" in text
