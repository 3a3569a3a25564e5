"""Labels in, predictions of all other videos out, through the routes."""

from __future__ import annotations

import time

import numpy as np
from fastapi.testclient import TestClient


def fitted(client: TestClient) -> dict:
    assert client.post("/api/learning").status_code == 202
    for _ in range(500):
        found = client.get("/api/learning").json()
        if found["state"] != "running" and (found["accuracy"] or found["message"]):
            return found
        time.sleep(0.02)
    raise AssertionError(found)


def test_what_is_labelled_is_learned_and_predicted_in_all_videos(client: TestClient) -> None:
    found = fitted(client)
    assert found["state"] == "idle" and 0 <= found["accuracy"]["mean"] <= 100, found
    row = np.frombuffer(client.get("/api/videos/3/lanes/prediction", params={"width": 35}).content, "<i2")
    assert set(row.tolist()) <= {0, 1, 2}
    item = client.get("/api/videos/3").json()
    assert "prediction" in item["lanes"] and item["uncertainty"] is not None
    spans = client.get("/api/videos/3/lanes/prediction/spans").json()["spans"]
    assert spans[0]["start"] == 0 and spans[-1]["stop"] == 35 and 0 <= spans[0]["confidence"] <= 1


def test_stretches_that_are_unsure_are_not_learned_from(client: TestClient) -> None:
    client.post("/api/classes", json={"name": "unsure"})
    spans = [{"start": 0, "stop": 20, "label": "unsure"}]
    assert client.put("/api/videos/0/annotation", json={"base_revision": 0, "spans": spans}).status_code == 200
    fitted(client)
    row = np.frombuffer(client.get("/api/videos/0/lanes/prediction", params={"width": 20}).content, "<i2")
    assert 3 not in row.tolist()


def test_learning_can_be_cancelled(client: TestClient) -> None:
    client.post("/api/learning")
    assert client.delete("/api/learning").json()["state"] in ("idle", "running")
