"""Files of models, their training and their streams, each with a small sound one and the reader that commands use."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import made_results
import numpy as np
import torch
from harness import Kind
from mutations import JSON, LINES, NPY, SAFETENSORS, forged_bytes, mutated
from torch import Tensor

import keystep
from keystep.cli.streaming import _lines_before
from keystep.config import ModelConfig, run_config
from keystep.config.base import build, read_yaml
from keystep.data.timeline import Timeline
from keystep.foresight import Clock, Forecaster, load_forecaster
from keystep.foresight.forecaster import TIMES, read_out_widths
from keystep.heads import build_head, head_config, load_head
from keystep.heads.checkpoints import Checkpoint
from keystep.loading import load
from keystep.persistence import load_tensors, save_tensors
from keystep.recipe import Recipe, RecipeModel, plan, read_recipe
from keystep.stream import LiveSteps
from keystep.stream.sources import from_array, from_bytes, from_growing, from_lines
from keystep.train.records import read_metrics
from keystep.train.state import Checkpoints
from keystep.types import parse_rate

WIDTH, CLASSES = 6, ("rest", "open the box", "close it")
RECIPES = Path(__file__).parents[2] / "recipes"


def _tensor_bytes(tensors: dict[str, Tensor]) -> bytes:
    return b"".join(
        f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        for name, tensor in sorted(tensors.items())
    )


def _model(**changes: Any) -> keystep.PJEPA:
    settings = {
        "input_dim": WIDTH,
        "dim": 16,
        "depth": 1,
        "predictor_depth": 1,
        "heads": 2,
        "readout_dim": 16,
        "tau": 2.0,
    }
    torch.manual_seed(0)
    return keystep.PJEPA(build(ModelConfig, settings, changes)).eval()


def _head(model: keystep.PJEPA, kind: str = "linear") -> Any:
    pattern = model.config.stream_attention
    assert pattern is not None
    head = build_head(head_config(kind), model.latent_dim(pattern), len(CLASSES), seed=0).eval()
    head.names, head.origin = CLASSES, {"mode": "causal", "rate": "10"}
    return head


def _head_bytes(head: Any) -> bytes:
    return _tensor_bytes(head.state_dict()) + repr((head.names, head.origin, head.config)).encode()


def _forecaster() -> Forecaster:
    rng, classes = np.random.default_rng(0), len(CLASSES)
    columns = sum(read_out_widths(classes, (1.0, 5.0))) + len(TIMES)
    return Forecaster(
        CLASSES,
        (1.0, 5.0),
        10.0,
        Clock(np.array([20.0, 30.0])),
        rng.normal(size=(WIDTH + Clock.width, columns)).astype(np.float32),
        np.zeros(columns, np.float32),
        np.full((3, classes, classes + 1), 0.25),
        np.full(3, 0.5),
        np.ones(classes),
        (2.0, 3.0),
        np.array([[-1.0, 1.0]] * len(TIMES)),
        {"mode": "causal"},
    )


def _forecaster_bytes(forecaster: Forecaster) -> bytes:
    arrays = (getattr(forecaster, name) for name in ("weight", "bias", "usual", "trust", "waits", "margins"))
    rest = (forecaster.names, forecaster.horizons, forecaster.rate, forecaster.scales, forecaster.origin)
    return b"".join(array.tobytes() for array in (*arrays, forecaster.clock.durations)) + repr(rest).encode()


def models(root: Path) -> Iterator[Kind]:
    _model().save_pretrained(root / "model")
    read = partial(load, root / "model", "cpu")
    yield Kind("model config json", root / "model/config.json", read, JSON)
    file = root / "model/model.safetensors"
    yield Kind("model safetensors", file, read, SAFETENSORS, lambda model: _tensor_bytes(model.state_dict()))
    yield Kind("model safetensors, forged", file, read, forged_bytes)
    for kind in ("linear", "attentive"):
        _head(_model(), kind).save(root / f"{kind}.safetensors")
        path = root / f"{kind}.safetensors"
        yield Kind(f"head safetensors ({kind})", path, partial(load_head, path), SAFETENSORS, _head_bytes)
        yield Kind(f"head safetensors ({kind}), forged", path, partial(load_head, path), forged_bytes)
    _forecaster().save(root / "forecaster.safetensors")
    path = root / "forecaster.safetensors"
    yield Kind("forecaster safetensors", path, partial(load_forecaster, path), SAFETENSORS, _forecaster_bytes)
    yield Kind("forecaster safetensors, forged", path, partial(load_forecaster, path), forged_bytes)
    save_tensors(root / "optimizer.safetensors", {"a/exp_avg": torch.ones(3, 4), "a/step": torch.tensor(3.0)})
    read_optimizer = partial(load_tensors, root / "optimizer.safetensors")
    yield Kind("plain safetensors", root / "optimizer.safetensors", read_optimizer, SAFETENSORS, _tensor_bytes)


def checkpoints(root: Path) -> Iterator[Kind]:
    model, target = _model(), torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    sum(parameter.sum() for parameter in model.parameters()).backward()  # type: ignore[union-attr]  # of tensors
    optimizer.step()
    kept = Checkpoints(root / "run/checkpoints", 2)
    record = {"skipped_steps": 0, "looks": [[5.0, 0.25]], "videos": ["video0"], "fingerprint": "0" * 64}
    kept.save(5, model, target, optimizer, record, {})
    (root / "run/config.yaml").write_text(json.dumps({"data": {"root": "data"}}))

    def resumed() -> None:
        kept.load(5, model, target, optimizer), load(root / "run", "cpu")

    yield Kind("checkpoint json", kept.path(5) / "state.json", resumed, JSON)
    yield Kind("checkpoint safetensors", kept.path(5) / "optimizer.safetensors", resumed, SAFETENSORS)
    head = build_head(head_config("linear"), 8, len(CLASSES), seed=0)
    again = torch.optim.AdamW(head.parameters())
    trained = Checkpoint(root, {"seed": 0})
    trained.save(head, again, head.state_dict(), [{"selection": 40.0}], 1)

    def gone_on() -> None:
        state = trained.load(head, again)
        assert state is not None
        [epoch["selection"] for epoch in state.history][state.best_epoch - 1]

    yield Kind("head checkpoint json", trained.path / "state.json", gone_on, JSON)


def streams(root: Path) -> Iterator[Kind]:
    root.mkdir()
    chance = np.random.default_rng(1)
    frames = chance.normal(size=(40, WIDTH)).astype(np.float32)
    patterns = {
        "causal": {"kind": "causal", "window": 8},
        "in blocks": {"kind": "block_causal", "block": 4},
    }
    for name, pattern in patterns.items():
        model = _model(live_attention=pattern)
        head = _head(model)
        live = LiveSteps(model, head, Timeline(rate=parse_rate(10)))
        live.feed(frames[:22])
        path = root / f"{name}.state"
        live.save(path, {"source": "-", "place": None})

        def resumed(model: keystep.PJEPA = model, head: Any = head, path: Path = path) -> Any:
            again = LiveSteps(model, head, Timeline(rate=parse_rate(10)))
            again.resume(path)
            return again.feed(frames[22:24]) + again.close()

        def said(readings: Any) -> bytes:
            return b"".join(repr(reading.frame).encode() + reading.probabilities.tobytes() for reading in readings)

        yield Kind(f"stream state ({name})", path, resumed, SAFETENSORS, said)
        yield Kind(f"stream state ({name}), forged", path, resumed, forged_bytes)
    model = _model()
    live = LiveSteps(model, _head(model), Timeline(rate=parse_rate(10)))
    before = live.state

    def fed(chunks: Any) -> None:
        live.state = before
        for chunk in chunks:
            live.feed(chunk.features, chunk.times)

    lines = root / "input.jsonl"
    rows = [{"time": index / 10, "features": row.tolist()} for index, row in enumerate(frames[:5].round(3))]
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def read_lines() -> None:
        with lines.open(encoding="utf-8") as file:
            fed(from_lines(file, WIDTH))

    yield Kind("standard input jsonl", lines, read_lines, LINES)
    raw = root / "input.float32"
    raw.write_bytes(frames[:5].astype("<f4").tobytes())
    yield Kind("standard input float32", raw, lambda: fed(from_bytes(io.BytesIO(raw.read_bytes()), WIDTH)), mutated)
    np.save(root / "array.npy", frames[:9])
    yield Kind("array npy", root / "array.npy", lambda: fed(from_array(root / "array.npy", WIDTH, 8)), NPY)
    growing = root / "growing"
    growing.mkdir()
    np.save(growing / "1.npy", frames[:4])
    (growing / "END").touch()
    yield Kind("growing npy", growing / "1.npy", lambda: fed(from_growing(growing, WIDTH, 0.0)), NPY)
    out = root / "said.jsonl"
    out.write_text("".join(json.dumps({"frame": frame, "step": "rest"}) + "\n" for frame in range(6)))
    yield Kind("stream output jsonl", out, lambda: [*_lines_before(out, 4)], LINES)


def runs(root: Path) -> Iterator[Kind]:
    (root / "run").mkdir(parents=True)
    settings = {
        "data": {"root": "data", "source_rate": "30"},
        "model": {"dim": 32},
        "train": {"steps": 50, "crop": "8s"},
    }
    (root / "run/config.yaml").write_text(json.dumps(settings, indent=1))
    yield Kind("run config yaml", root / "run/config.yaml", partial(run_config, root / "run"), JSON)
    (root / "plain.yaml").write_text(
        "data:\n  root: data\nmodel: {dim: 32, heads: &h 4, predictor_heads: *h}\ntrain:\n  steps: 50\n"
    )
    yield Kind("settings yaml", root / "plain.yaml", partial(read_yaml, root / "plain.yaml"), mutated)
    (root / "recipe.yaml").write_bytes((RECIPES / "gtea.yaml").read_bytes())
    yield Kind("recipe yaml", root / "recipe.yaml", partial(read_recipe, root / "recipe.yaml"), mutated)
    recipe, planned = Recipe(models={"small": RecipeModel()}), root / "planned"
    planned.mkdir()
    (planned / "recipe.json").write_text(json.dumps(plan(recipe, root, planned).record))
    yield Kind("recipe json", planned / "recipe.json", partial(plan, recipe, root, planned), JSON)
    path = root / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in made_results.made_curve(0)[:12]))
    yield Kind("metrics jsonl", path, partial(read_metrics, path), LINES)
