"""What `keystep serve` keeps in its work folder, and reads back: the damaged is made again, or left out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from harness import Kind
from model_kinds import CLASSES, WIDTH, _head, _model
from mutations import JSON, NPY, SAFETENSORS, forged_bytes

from keystep.data.folder import open_dataset
from keystep.data.store import FeatureStore
from keystep.data.timeline import Timeline
from keystep.types import parse_rate

PUSHED = {"id": "0123456789ab", "name": "bench", "source": {"kind": "push"}}


def served(root: Path) -> Iterator[Kind]:
    """Arrays, the history of learning, and states of live streams."""
    if not find_spec("fastapi"):
        return
    from keystep.serve.workspace import Workspace

    model = _model(attention={"kind": "causal", "window": 8}, live_attention=None)
    head = _head(model)
    head.origin = {"mode": "causal", "rate": "10", "weights": model.fingerprint}
    workspace = Workspace(_features(root / "data"), work=root / "work", model=model)
    yield from _arrays(workspace, head, root / "head.safetensors")
    yield from _history(root / "learning")
    yield from _streams(workspace, head)


def _features(root: Path) -> Any:
    store = FeatureStore(root, Timeline(rate=parse_rate(10))).create()
    store.add("v", np.random.default_rng(0).normal(size=(30, WIDTH)).astype(np.float32))
    store.finish()
    return open_dataset(root)


def _arrays(workspace: Any, head: Any, file: Path) -> Iterator[Kind]:
    from keystep.serve.saved_head import SavedHead
    from keystep.serve.signals import Signals

    head.save(file)
    latents, signals, saved = workspace.latents, Signals(workspace), SavedHead(workspace, file)
    colours = signals._path("colours", "v")

    def painted() -> None:
        colours.unlink(missing_ok=True)
        signals.colours("v")

    latents.made("v"), painted(), saved.prediction("v", CLASSES)
    prediction = next((workspace.work / "heads").rglob("v.npy"))
    yield Kind("serve latents npy", latents.out / "v.npy", lambda: latents.made("v").shape, NPY)
    yield Kind("serve painter npy", signals._path("painter", ""), painted, NPY)
    yield Kind("serve colours npy", colours, lambda: signals.colours("v").max(), NPY)
    yield Kind("serve prediction npy", prediction, lambda: saved.prediction("v", CLASSES).spans(), NPY)


def _history(root: Path) -> Iterator[Kind]:
    from keystep.serve.growth import History
    from keystep.serve.ridge import Accuracy

    history = History(root)
    for videos in (2, 3):
        history.add(videos, 60.0 * videos, Accuracy(70.0, 5.0, 30.0, videos, videos))
    yield Kind("serve learning json", root / "learning.json", lambda: History(root).entries, JSON)


def _streams(workspace: Any, head: Any) -> Iterator[Kind]:
    from keystep.serve.batches import Batch
    from keystep.serve.live import Live
    from keystep.serve.metrics import ServerMetrics
    from keystep.serve.streams import Streams

    live, batch = (
        Live(**PUSHED, batch=0, seat=1, rate=10.0, pool=1, width=WIDTH, next=22),
        Batch(workspace.live_model, head),
    )
    _, batch.position = batch.advance({1: np.random.default_rng(1).normal(size=(22, WIDTH)).astype(np.float32)})
    path = workspace.work / "streams" / workspace.live_as / "0.safetensors"
    batch.save(path, batch.position, {"streams": [live.record()]})

    def restored() -> list[dict[str, Any]]:
        logging.disable(logging.WARNING)  # says of each damaged file that it is left out
        try:
            streams = Streams(workspace, lambda: head, ServerMetrics(), lambda own, live: None)
            found = [live.record() for live in streams.all()]
            streams.close()
        finally:
            logging.disable(logging.NOTSET)
        return found

    assert len(restored()) == 1
    yield Kind("serve streams safetensors", path, restored, SAFETENSORS)
    yield Kind("serve streams safetensors, forged", path, restored, forged_bytes)
