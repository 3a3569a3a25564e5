"""Requests that the description allows, and many that it does not: no answer is a fault of the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from fastapi import FastAPI

from keystep.data.folder import open_dataset
from keystep.serve.app import create_app
from keystep.serve.workspace import Workspace

schemathesis = pytest.importorskip("schemathesis", reason="needs the extra 'browser'")

HOST = {"Host": "127.0.0.1:8000"}
ENDLESS = "/api/events"
"""A stream that ends with the server."""
EXAMPLES = 30
"""Requests of each kind to each route: about a thousand in all."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """Three small videos without labels, and a recording that is none."""
    root = tmp_path_factory.mktemp("served") / "data"
    (root / "features").mkdir(parents=True)
    (root / "mapping.txt").write_text("0 cut\n1 sew\n")
    rng = np.random.default_rng(0)
    for index in range(3):
        np.save(root / "features" / f"v{index}.npy", rng.normal(size=(30 + 7 * index, 5)).astype(np.float32))
    film = root.parent / "v0.mp4"
    film.write_bytes(rng.bytes(5000))
    yield create_app(Workspace(open_dataset(root, source_rate=4), videos={"v0": film}))


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_no_request_is_a_fault_of_the_server(app: FastAPI, mode: schemathesis.GenerationMode) -> None:
    asked = 0
    for found in schemathesis.openapi.from_asgi("/openapi.json", app, headers=HOST).get_all_operations():
        operation = found.ok()
        if operation.path == ENDLESS:
            continue

        @hypothesis.settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: schemathesis.Case) -> None:
            nonlocal asked
            asked += 1
            answer = case.call(headers=HOST)
            assert answer.status_code < 500 or answer.status_code == 503, answer.text
            if answer.status_code >= 400:
                assert "error" in answer.json() and "Traceback" not in answer.text

        with suppress(hypothesis.errors.Unsatisfiable):  # a route that takes nothing can be asked nothing wrong
            ask()
    assert asked > 300


def test_labels_that_were_saved_meanwhile_can_be_read(app: FastAPI) -> None:
    root: Path = app.state.services.workspace.root
    for name in open_dataset(root, source_rate=4).videos:
        assert app.state.services.annotations.current(name)[0] >= 0
