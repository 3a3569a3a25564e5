"""Calls every public name of keystep on tiny data, in a process of its own: FOLDER [MODULE ...], imported first."""

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keystep


class Watched:
    """keystep, and which of its names were used."""

    def __init__(self) -> None:
        self.used: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.used.add(name)
        return getattr(keystep, name)


def call_everything(api: Any, root: Path) -> None:
    """From features on disk to a live stream."""
    import numpy as np
    from trees import mstcn

    prepared = api.prepare("gtea", mstcn(root / "in", ("background", "take", "open"), name="S{1}_Tea_C{0}"))
    data = api.open_dataset(prepared.folder, source_rate=prepared.source_rate)
    given = {"root": prepared.folder, "source_rate": prepared.source_rate}
    small = {"dim": 16, "heads": 2, "depth": 1, "predictor_depth": 1}
    config = api.RunConfig(data=given, model=small, train={"steps": 1, "crop": 16, "batch_size": 2})
    assert "features" in api.plugins.TARGETS.names()
    trained, model = api.pretrain(config, out=root / "run"), api.load(root / "run")
    assert isinstance(model, api.PJEPA) and model.fingerprint == trained.fingerprint
    settings = {"probe": {"penalties": [0.01]}}
    asked = {"modes": ["causal"], "task": "remaining", "quick": True}
    results = api.evaluate(data, {"x": model}, **asked, config=settings, out=root / "out")
    forecaster = api.foresight.load_forecaster(root / "out" / "foresight" / "x-causal-seed0.safetensors")
    head = api.load_head(root / "out" / "heads" / "x-causal-seed0.safetensors")
    assert repr(results.heads["x-causal-seed0"]) == repr(head)
    name = data.split("1").test[0]
    features = np.ascontiguousarray(data.vectors(name))
    latents = api.encode(model, features, mode="causal")
    assert len(forecaster.forecast(latents)) == len(latents)
    (prediction,) = api.predict(model, head, features)
    stream = api.Stream(model, head)
    live = [*stream.push(features).labels, *stream.flush().labels]
    assert live == prediction.labels and len(live) == len(latents)
    scores = api.evals.metrics.segmentation_scores([live], [live])
    assert (
        scores["accuracy"] == 100
        and api.stream.delays(model, 3, rate=1) == (0, 0)
        and api.heads.describe(head).delay == 0
    )
    assert all(callable(one) for one in (api.interop.official.load, api.export.export_step, api.progress.SILENT.task))
    try:
        api.load(root / "nowhere")
    except api.InputError:
        assert api.__version__
    if find_spec("av") is not None:
        from clips import write_clip

        write_clip(root / "video.mp4")
        found = api.extract(root / "video.mp4", "toy_backbones:colours", out=root / "features")
        assert [record["video"] for record in found.to_records()] == ["video"]
    else:
        api.used.add("extract")  # needs the extra 'video'


if __name__ == "__main__":
    for module in sys.argv[2:]:
        importlib.import_module(module)
    watched = Watched()
    call_everything(watched, Path(sys.argv[1]))
    assert set(dir(keystep)) <= watched.used, set(dir(keystep)) - watched.used
