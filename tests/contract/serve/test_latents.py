"""A model's latents stand for the videos once they are encoded, in the background."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

import keystep
from keystep.data.folder import open_dataset
from keystep.encoding import encode
from keystep.errors import InputError
from keystep.heads import build_head, head_config
from keystep.pjepa import PJEPA
from keystep.serve.workspace import Workspace


@pytest.fixture
def model(make_model: Callable[..., PJEPA]) -> PJEPA:
    return make_model({"kind": "bidirectional"}, input_dim=6)


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(400):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it never came")


def test_the_representation_is_what_encode_gives(mstcn: Path, model: PJEPA) -> None:
    workspace = Workspace(open_dataset(mstcn, source_rate=4), model=model)
    found = workspace.representation("video.3")
    np.testing.assert_array_equal(found, encode(model, workspace.folder.features("video.3")))
    assert found.dtype == np.float32 and isinstance(found, np.memmap)


def test_what_is_encoded_is_kept_by_model_and_taken_up_again(
    mstcn: Path, model: PJEPA, make_model: Callable[..., PJEPA]
) -> None:
    workspace = Workspace(open_dataset(mstcn, source_rate=4), model=model)
    assert workspace.latents is not None
    told: list[tuple[int, int]] = []
    workspace.latents.begin(lambda done, total: told.append((done, total)))
    wait_for(lambda: (6, 6) in told)
    again = Workspace(open_dataset(mstcn, source_rate=4), model=model)
    assert again.latents is not None and again.latents.done == 6
    other = Workspace(open_dataset(mstcn, source_rate=4), model=make_model({"kind": "causal"}, input_dim=6))
    assert other.latents is not None and other.latents.done == 0


def test_latents_of_a_slower_model_are_repeated_for_each_slot(
    mstcn: Path, model: PJEPA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keystep.pjepa.Origin, "rate", property(lambda origin: "2"))
    workspace = Workspace(open_dataset(mstcn, source_rate=4), model=model)
    found = workspace.representation("video.1")
    slow = encode(model, open_dataset(mstcn, source_rate=4, rate=2).features("video.1"))
    np.testing.assert_array_equal(found, np.repeat(slow, 2, axis=0)[:25])


def test_a_row_of_a_video_that_is_being_encoded_is_asked_for_again(
    mstcn: Path, model: PJEPA, opened: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keystep.serve.latents.Latents._work", lambda self: None)
    client = opened(Workspace(open_dataset(mstcn, source_rate=4), model=model))
    for path in ("lanes/colour", "lanes/change", "changes", "similarity"):
        answer = client.get(f"/api/videos/0/{path}")
        assert answer.status_code == 503 and set(answer.json()) == {"error", "progress"}, path
    assert client.get("/api/videos/0/lanes/labels").status_code == 200


def test_a_video_that_cannot_be_encoded_is_told_and_holds_up_no_other(mstcn: Path, model: PJEPA) -> None:
    workspace = Workspace(open_dataset(mstcn, source_rate=4), model=model)
    broken = np.load(mstcn / "features" / "video.1.npy")
    broken[0, 0] = np.nan
    np.save(mstcn / "features" / "video.1.npy", broken)
    with pytest.raises(InputError, match="NaN"):
        workspace.representation("video.1")
    assert len(workspace.representation("video.2")) == 30


def test_a_saved_head_is_a_row_of_its_own(
    mstcn: Path, model: PJEPA, opened: Callable[..., TestClient], tmp_path: Path
) -> None:
    head = build_head(head_config("linear"), width=model.latent_dim(), classes=3)
    head.names, head.origin = ("tie a knot", "cut", "sew"), {"weights": model.fingerprint, "mode": "offline"}
    head.save(tmp_path / "head.safetensors")
    workspace = Workspace(open_dataset(mstcn, source_rate=4), model=model)
    client = opened(workspace, head=tmp_path / "head.safetensors")
    assert client.get("/api/project").json()["model"] == model.origin.source
    row = np.frombuffer(client.get("/api/videos/0/lanes/head", params={"width": 20}).content, "<i2")
    ids = keystep.predict(model, head, workspace.folder.features("video.0"))[0].ids
    assert row.tolist() == [[2, 1, -1][label] for label in ids]
    assert "head" in client.get("/api/videos/0").json()["lanes"]


def test_a_head_without_its_model_is_refused(mstcn: Path, opened: Callable[..., TestClient], tmp_path: Path) -> None:
    (tmp_path / "head").touch()
    with pytest.raises(InputError, match="--model"):
        opened(Workspace(open_dataset(mstcn, source_rate=4)), head=tmp_path / "head")
