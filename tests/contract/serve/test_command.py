"""``keystep serve`` and ``keystep label``: what they refuse, and what they run."""

from __future__ import annotations

import re
import shlex
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from clips import write_clip
from fastapi import FastAPI
from fastapi.testclient import TestClient

from keystep.cli.commands import app
from keystep.locking import owning

Run = Callable[..., tuple[int, str, str]]
ANY_PORT = ("--source-rate", "4", "--port", "0")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[FastAPI]]:
    """Applications that would have been served."""
    import uvicorn

    apps: list[FastAPI] = []

    def take(config: uvicorn.Config) -> SimpleNamespace:
        apps.append(config.app)  # type: ignore[arg-type]
        return SimpleNamespace(run=lambda sockets: None, handle_exit=None)

    monkeypatch.setattr(uvicorn, "Server", take)
    yield apps


def test_serve_says_where_it_listens(keystep: Run, mstcn: Path, ran: list[FastAPI]) -> None:
    status, said, _ = keystep("serve", mstcn, *ANY_PORT)
    assert status == 0 and len(ran) == 1
    assert "6 videos at http://127.0.0.1:" in said and "token" not in said


def test_another_address_gets_a_token_that_is_printed_and_needed(keystep: Run, mstcn: Path, ran: list[FastAPI]) -> None:
    _, said, _ = keystep("serve", mstcn, *ANY_PORT, "--host", "0.0.0.0")
    token = said.split("?token=")[1].split()[0]
    client = TestClient(ran[0], base_url="http://192.0.2.7:8000")
    assert len(token) >= 30
    assert client.get("/api/project").status_code == 401
    assert client.get("/api/project", params={"token": token}).status_code == 200


def test_a_second_server_on_the_same_folder_is_refused(keystep: Run, mstcn: Path, ran: list[FastAPI]) -> None:
    with owning(mstcn):
        status, _, said = keystep("serve", mstcn, *ANY_PORT)
    assert status == 2 and "is writing there" in said and not ran


def test_a_folder_that_cannot_be_written_to_is_only_looked_at(
    keystep: Run, mstcn: Path, ran: list[FastAPI], monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("keystep.cli.serving", "keystep.serve.workspace"):
        monkeypatch.setattr(f"{place}.is_writable", lambda folder: False)
    before = sorted(mstcn.rglob("*"))
    status, said, _ = keystep("serve", mstcn, *ANY_PORT)
    client = TestClient(ran[0], base_url="http://127.0.0.1")
    assert status == 0 and "can only be looked at" in said
    assert client.get("/api/project").json()["read_only"] is True
    assert client.get("/api/videos/0/lanes/colour").status_code == 200
    refused = client.put("/api/videos/0/annotation", json={"base_revision": 0, "spans": []})
    assert refused.status_code == 403 and "cannot be written" in refused.json()["error"]
    assert client.post("/api/classes", json={"name": "sew"}).status_code == 403
    assert sorted(mstcn.rglob("*")) == before


def test_a_port_that_is_taken_is_one_line(keystep: Run, mstcn: Path, ran: list[FastAPI]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, _, said = keystep("serve", mstcn, "--source-rate", "4", "--port", port)
    assert status == 2 and f"port {port}" in said and said.count("\n") == 1


def test_without_the_extra_one_line_says_how_to_get_it(
    keystep: Run, mstcn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keystep.cli.serving.find_spec", lambda name: None if name == "fastapi" else object())
    status, _, said = keystep("serve", mstcn, *ANY_PORT)
    assert status == 2 and "pip install 'keystep[serve]'" in said


def test_recordings_that_are_named_otherwise_are_noted(
    keystep: Run, mstcn: Path, ran: list[FastAPI], tmp_path: Path
) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "other.mp4").touch()
    _, said, _ = keystep("serve", mstcn, *ANY_PORT, "--videos", tmp_path / "films")
    assert "no file of" in said and "is named as" in said


def test_label_goes_from_videos_to_the_page_and_goes_on_where_it_was(
    keystep: Run, ran: list[FastAPI], tmp_path: Path
) -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (20, 16, 16, 3)).astype(np.uint8)
    (tmp_path / "films").mkdir()
    for index in range(2):
        path = tmp_path / "films" / f"v{index}.avi"
        write_clip(path, frames=20, rate=5, height=16, width=16, codec="mpeg4", picture=pictures.__getitem__)
    words = ("label", tmp_path / "films", "--out", tmp_path / "out", "--backbone", "toy_backbones:colours", "--port", 0)
    status, said, _ = keystep(*words)
    assert status == 0 and "too few to learn a model from" in said and "2 videos at http" in said
    client = TestClient(ran[0], base_url="http://127.0.0.1")
    assert client.post("/api/classes", json={"name": "sew"}).status_code == 201
    spans = [{"start": 0, "stop": 4, "label": "sew"}]
    assert client.put("/api/videos/0/annotation", json={"base_revision": 0, "spans": spans}).status_code == 200
    assert client.get("/api/videos/0/thumbnail").status_code == 200
    assert keystep(*words)[0] == 0
    again = TestClient(ran[1], base_url="http://127.0.0.1")
    assert again.get("/api/videos/0/annotation").json() == {"revision": 1, "spans": spans}


def test_the_commands_of_the_guide_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[3] / "docs" / "serve.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines() if line.startswith("keystep")]
    monkeypatch.chdir(tmp_path)
    for name in ("VIDEOS", "DATA", "runs/pjepa"):
        (tmp_path / name).mkdir(parents=True)
    assert {words[1] for words in lines} == {"serve", "label"}
    for _, name, *rest in lines:
        typer.main.get_command(app).commands[name].make_context(name, rest)  # type: ignore[attr-defined]
