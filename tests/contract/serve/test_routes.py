"""What the page gets from the server."""

from __future__ import annotations

import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image


def test_the_project_says_what_is_there(client: TestClient, mstcn: Path) -> None:
    found = client.get("/api/project").json()
    assert (found["name"], found["rate"], found["videos"], found["labelled_videos"]) == (mstcn.name, 4.0, 6, 6)
    assert [(each["id"], each["name"], each["key"]) for each in found["classes"]] == [
        (0, "wait", "1"),
        (1, "cut", "2"),
        (2, "tie a knot", "3"),
    ]
    assert found["model"] is None and found["read_only"] is False
    assert [lane["id"] for lane in found["lanes"]] == ["labels", "prediction", "confidence", "change", "colour"]


def test_videos_are_searched_filtered_sorted_and_paged(client: TestClient) -> None:
    def names(**query: object) -> list[str]:
        return [item["name"] for item in client.get("/api/videos", params=query).json()["items"]]

    everything = [f"video.{index}" for index in range(6)]
    assert names() == everything
    assert names(search="VIDEO 3") == ["video.3"]
    assert names(sort="length") == everything[::-1]
    assert names(show="unlabelled") == []
    assert names(offset=2, limit=2) == ["video.2", "video.3"]
    assert client.get("/api/videos", params={"search": "video", "limit": 1}).json()["total"] == 6


def test_a_video_says_how_long_it_is_and_what_it_has(client: TestClient, learned: TestClient) -> None:
    found = client.get("/api/videos/2").json()
    assert (found["id"], found["name"], found["slots"], found["seconds"]) == (2, "video.2", 30, 7.5)
    assert found["media"] is None and found["uncertainty"] is None and found["labelled"] == 1.0
    assert found["lanes"] == ["labels", "change", "colour"]
    assert "prediction" in learned.get("/api/videos/2").json()["lanes"]


def test_a_saved_annotation_comes_back_and_is_on_disk(client: TestClient, mstcn: Path) -> None:
    spans = [{"start": 0, "stop": 12, "label": "cut"}]
    saved = client.put("/api/videos/1/annotation", json={"base_revision": 0, "spans": spans, "author": "Ada"})
    assert saved.json() == {"revision": 1, "spans": spans, "merged": False}
    assert client.get("/api/videos/1/annotation").json() == {"revision": 1, "spans": spans}
    assert client.get("/api/videos/1").json()["labelled"] == 12 / 25
    assert (mstcn / "groundTruth" / "video.1.txt").read_text().startswith("cut\n" * 12 + "(unlabelled)\n")


def test_two_windows_on_one_video_are_merged_or_told(client: TestClient) -> None:
    def put(base: int, *spans: tuple[int, int, str]) -> dict:
        body = [{"start": a, "stop": b, "label": label} for a, b, label in spans]
        answer = client.put("/api/videos/0/annotation", json={"base_revision": base, "spans": body})
        return {"status": answer.status_code, **answer.json()}

    assert put(0, (0, 20, "wait"))["revision"] == 1
    assert put(1, (0, 5, "cut"), (5, 20, "wait"))["status"] == 200
    other = put(1, (0, 15, "wait"), (15, 20, "tie a knot"))
    assert other["merged"] and [span["label"] for span in other["spans"]] == ["cut", "wait", "tie a knot"]
    refused = put(1, (0, 5, "tie a knot"), (5, 20, "wait"))
    assert refused["status"] == 409 and refused["revision"] == 3 and refused["spans"] == other["spans"]
    assert "somebody else" in refused["error"]


def test_a_class_is_added_once_and_gets_a_colour(client: TestClient) -> None:
    added = client.post("/api/classes", json={"name": "sew"})
    assert added.status_code == 201 and added.json()["classes"][3]["name"] == "sew"
    assert len({each["colour"] for each in added.json()["classes"]}) == 4
    again = client.post("/api/classes", json={"name": "sew"})
    assert again.status_code == 409 and "already" in again.json()["error"]


def test_label_rows_are_class_ids_a_column(client: TestClient) -> None:
    client.put(
        "/api/videos/0/annotation", json={"base_revision": 0, "spans": [{"start": 5, "stop": 10, "label": "cut"}]}
    )
    row = client.get("/api/videos/0/lanes/labels", params={"width": 4})
    assert row.headers["X-Revision"] == "1" and row.headers["content-type"] == "application/octet-stream"
    assert np.frombuffer(row.content, "<i2").tolist() == [-1, 1, -1, -1]
    part = client.get("/api/videos/0/lanes/labels", params={"start": 4, "stop": 6, "width": 2})
    assert np.frombuffer(part.content, "<i2").tolist() == [-1, 1]


def test_predictions_are_rows_and_stretches(learned: TestClient) -> None:
    row = learned.get("/api/videos/0/lanes/prediction", params={"width": 20})
    assert np.frombuffer(row.content, "<i2").tolist() == [0] * 10 + [1] * 10 and row.headers["X-Revision"] == "3"
    levels = np.frombuffer(learned.get("/api/videos/0/lanes/confidence", params={"width": 20}).content, np.uint8)
    assert levels[0] == 0 and levels[-1] == 255
    spans = learned.get("/api/videos/0/lanes/prediction/spans").json()["spans"]
    assert [(span["start"], span["stop"], span["label"]) for span in spans] == [(0, 10, "wait"), (10, 20, "cut")]
    assert spans[0]["confidence"] < 0.5 < spans[1]["confidence"]
    assert learned.get("/api/suggestions").json()["items"][0]["reason"] == "least certain"


def test_before_anything_is_learned_there_are_no_predictions(client: TestClient) -> None:
    for path in ("lanes/prediction", "lanes/confidence", "lanes/prediction/spans"):
        answer = client.get(f"/api/videos/0/{path}")
        assert answer.status_code == 404 and "learn" in answer.json()["error"]
    assert client.get("/api/suggestions").json() == {"items": []}


def test_colours_and_changes_follow_the_representation(client: TestClient) -> None:
    colours = np.frombuffer(client.get("/api/videos/5/lanes/colour", params={"width": 45}).content, np.uint8)
    assert colours.reshape(45, 3).std(axis=0).min() > 5
    change = np.frombuffer(client.get("/api/videos/5/lanes/change", params={"width": 45}).content, np.uint8)
    assert change.max() == 255
    slots = client.get("/api/videos/5/changes", params={"start": 5, "stop": 40}).json()["slots"]
    assert slots == sorted(slots) and all(5 <= slot < 40 for slot in slots) and slots


def test_similarity_is_a_square_picture_that_is_white_along_its_diagonal(client: TestClient) -> None:
    answer = client.get("/api/videos/5/similarity", params={"size": 16})
    picture = np.asarray(Image.open(BytesIO(answer.content)))
    assert answer.headers["content-type"] == "image/png" and picture.shape == (16, 16)
    assert (np.diag(picture) == 255).all() and (picture == picture.T).all()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/videos/6", 404),
        ("GET", "/api/videos/99999999999999999999", 422),
        ("GET", "/api/videos/-1", 422),
        ("GET", "/api/videos/x", 422),
        ("GET", "/api/videos?limit=100000", 422),
        ("GET", "/api/videos/0/lanes/nothing", 422),
        ("GET", "/api/videos/0/lanes/labels?start=19&stop=21", 422),
        ("GET", "/api/videos/0/lanes/labels?start=5&stop=5", 422),
        ("GET", "/api/videos/0/lanes/labels?width=100000", 422),
        ("GET", "/api/nothing", 404),
        ("DELETE", "/api/project", 405),
    ],
)
def test_what_cannot_be_answered_is_one_clear_line(client: TestClient, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"} and "\n" not in answer.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"base_revision": 0},
        {"base_revision": "0", "spans": []},
        {"base_revision": 0, "spans": [{"start": 0, "stop": 500, "label": "cut"}]},
        {"base_revision": 0, "spans": [{"start": 0, "stop": 5, "label": "unknown"}]},
        {"base_revision": 0, "spans": [{"start": 5, "stop": 5, "label": "cut"}]},
        {"base_revision": 0, "spans": [], "more": 1},
    ],
)
def test_bodies_that_do_not_fit_change_nothing(client: TestClient, mstcn: Path, body: object) -> None:
    answer = client.put("/api/videos/0/annotation", json=body)
    assert answer.status_code == 422 and set(answer.json()) == {"error"}
    assert not (mstcn / "annotations.jsonl").exists()


def test_the_server_says_that_it_is_well(client: TestClient) -> None:
    assert client.get("/healthz").text == "ok\n"


def test_moments_are_found_once_the_index_is_built(client: TestClient) -> None:
    for _ in range(1_000):
        answer = client.get("/api/moments", params={"video": 0, "slot": 3, "count": 2})
        if answer.status_code != 503:
            break
        assert 0 <= answer.json()["progress"] <= 1
        time.sleep(0.01)
    found = answer.json()
    assert found["exact"] is True
    assert {item["video"] for item in found["items"]} <= set(range(len(client.get("/api/videos").json()["items"])))
    assert client.get("/api/project").json()["indexed"] is True
    assert client.get("/api/moments", params={"video": 0, "slot": 10**6}).status_code == 422
    assert client.get("/api/moments", params={"video": 99, "slot": 0}).status_code == 404


def test_metrics_count_requests_by_route_and_say_what_there_is(client: TestClient) -> None:
    for video in (0, 1, 6):
        client.get(f"/api/videos/{video}")
    client.get("/nothing/here")
    lines = client.get("/metrics").text.splitlines()
    assert 'keystep_requests_total{route="/api/videos/{video}",status="200"} 2' in lines
    assert 'keystep_requests_total{route="/api/videos/{video}",status="404"} 1' in lines
    assert "keystep_videos 6" in lines and "keystep_labelled_videos 6" in lines
    assert all(line.startswith("#") or len(line.rsplit(" ", 1)) == 2 for line in lines)


def test_the_description_is_valid_and_names_every_route(client: TestClient) -> None:
    found = client.get("/openapi.json").json()
    assert found["openapi"].startswith("3.")
    assert {"/api/project", "/api/videos/{video}/annotation", "/media/{video}", "/metrics"} <= set(found["paths"])
    for path, methods in found["paths"].items():
        for method, each in methods.items():
            assert each["description"], f"{method} {path} says nothing of itself"


def test_a_full_disk_is_not_the_fault_of_what_was_asked(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        answer = client.put("/api/videos/0/annotation", json={"base_revision": 0, "spans": []})
    assert answer.status_code == 507 and "No space left" in answer.json()["error"]
    assert client.get("/api/videos/0/annotation").json()["revision"] == 0
    again = client.put("/api/videos/0/annotation", json={"base_revision": 0, "spans": []})
    assert again.json()["revision"] == 1


def test_a_fault_of_keystep_is_one_line_without_its_insides(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("/home/somebody/secret")

    monkeypatch.setattr("keystep.serve.signals.Signals.change_points", fail)
    answer = client.get("/api/videos/0/changes")
    assert answer.status_code == 500 and "RuntimeError" in answer.json()["error"] and "secret" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
