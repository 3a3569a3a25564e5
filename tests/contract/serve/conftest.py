"""A small application without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from keystep.data.folder import open_dataset
from keystep.serve.app import create_app
from keystep.serve.learning import SlotPrediction
from keystep.serve.survey import Suggestion
from keystep.serve.workspace import Workspace


class Knows:
    """A learner that has learned: every video is half of class 0 and half of class 1."""

    revision = 3

    def __init__(self, workspace: Workspace, *_: object) -> None:
        self.workspace = workspace

    def head(self) -> object:
        return object()

    def status(self) -> dict:
        return {"state": "idle"}

    def prediction(self, name: str) -> SlotPrediction:
        slots = self.workspace.slots[name]
        confidence = np.linspace(0, 1, slots, dtype=np.float32)
        return SlotPrediction((np.arange(slots) >= slots // 2).astype(np.int64), confidence, ("wait", "cut"), 3)

    def uncertainty(self, name: str) -> float:
        return 1 / self.workspace.slots[name]

    def suggestions(self, count: int) -> list[Suggestion]:
        return [Suggestion(self.workspace.names[1], 0, 5, "least certain", 0.5)][:count]

    def close(self) -> None: ...


@pytest.fixture
def workspace(mstcn: Path) -> Workspace:
    return Workspace(open_dataset(mstcn, source_rate=4))


@pytest.fixture
def client(workspace: Workspace) -> Iterator[TestClient]:
    with open_client(workspace) as client:
        yield client


@pytest.fixture
def learned(workspace: Workspace) -> Iterator[TestClient]:
    with open_client(workspace, learner=Knows) as client:
        yield client


def open_client(workspace: Workspace, base_url: str = "http://127.0.0.1:8000", **options: object) -> TestClient:
    return TestClient(create_app(workspace, **options), base_url=base_url, raise_server_exceptions=False)  # type: ignore[arg-type]


@pytest.fixture
def opened() -> Callable[..., TestClient]:
    return open_client
