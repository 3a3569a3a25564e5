"""The commands that are put to the test, on small data that are made here."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from arena import Content, Victim, start
from release import packed, regular_times
from small import QUICK

from keystep.config.base import assignments

MODEL = (
    "model.dim=16",
    "model.heads=2",
    "model.depth=1",
    "model.readout_dim=16",
    "train.crop=24",
    "train.batch_size=2",
)
CLASSES = ("wait", "cut", "tie a knot")
RATE = ("--source-rate", "4")


def write_data(root: Path, videos: int = 6, frames: int = 40) -> Path:
    """Labelled videos with 6 numbers a frame that show the class, in the MS-TCN layout."""
    rng = np.random.default_rng(0)
    looks = rng.normal(size=(len(CLASSES), 6))
    for part in ("features", "groundTruth", "splits"):
        (root / part).mkdir(parents=True)
    names = [f"video{index:02d}" for index in range(videos)]
    for index, name in enumerate(names):
        labels = np.repeat(rng.integers(0, 3, frames), 5)[: frames + 3 * index]
        features = looks[labels] + 0.5 * rng.normal(size=(len(labels), 6))
        np.save(root / "features" / f"{name}.npy", features.T.astype(np.float32))
        (root / "groundTruth" / f"{name}.txt").write_text("\n".join(CLASSES[label] for label in labels))
    (root / "mapping.txt").write_text("".join(f"{number} {name}\n" for number, name in enumerate(CLASSES)))
    for part, chosen in (("train", names[:-3]), ("valid", names[-3:-2]), ("test", names[-2:])):
        (root / "splits" / f"{part}.split1.bundle").write_text("".join(f"{name}.txt\n" for name in chosen))
    return root


def arrays(out: Path) -> Content:
    """Bytes of all features, and whether the folder says that it is whole."""
    whole = json.loads((out / "store.json").read_text())["complete"] if (out / "store.json").exists() else None
    return {"whole": whole, **{path.name: path.read_bytes() for path in (out / "features").glob("[!.]*.npy")}}


def encode(model: Path, data: Path) -> Victim:
    """Latents of a folder."""
    words = ["encode", str(model), str(data), *RATE, "--out"]
    return Victim("encode", lambda out: [*words, str(out)], arrays)


def import_(root: Path, videos: int = 12) -> Victim:
    """An archive in the authors' format."""
    archive = root / "archive.pt"
    torch.save(packed({f"P{index:02d}.pt": regular_times(40 + index, 4) for index in range(videos)}), archive)
    return Victim("import", lambda out: ["import", "official", str(archive), "--out", str(out)], arrays)


def pretrain(data: Path, steps: int = 60) -> Victim:
    """A training with a checkpoint every five steps."""
    settings = (*MODEL, f"train.steps={steps}", "train.save_every=5", "train.log_every=1", "train.monitor_every=1000")
    options = [word for setting in settings for word in ("--set", setting)]

    def begin(out: Path) -> list[str]:
        return ["pretrain", str(data), *RATE, "--split", "1", "--out", str(out), *options]

    def resume(out: Path) -> list[str]:
        return ["pretrain", "--resume", str(out)] if (out / "config.yaml").exists() else begin(out)

    def content(out: Path) -> Content:
        weights, metrics = out / "model" / "model.safetensors", out / "metrics.jsonl"
        lines = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
        for line in lines:
            line.pop("frames_per_second", None)
        return {"weights": weights.read_bytes() if weights.exists() else None, "metrics": lines}

    return Victim("pretrain", begin, content, resume)


def evaluate(data: Path, model: Path) -> Victim:
    """Probes of a model and the controls."""
    words = ["eval", str(data), *RATE, "--split", "1", "--model", f"pjepa={model}", "--quick", *QUICK, "--overwrite"]

    def content(out: Path) -> Content:
        if not (out / "result.json").exists():
            return {}
        record = json.loads((out / "result.json").read_text())
        return {"rows": record["rows"], "gate": record["gate"], "page": (out / "report.html").exists()}

    return Victim("eval", lambda out: [*words, "--out", str(out)], content)


def stream(video: Path, model: Path, head: Path) -> Victim:
    """A long video, a few frames at a time, with its state."""
    words = ["stream", str(model), str(video), "--head", str(head), *RATE, "--chunk", "4"]

    def content(out: Path) -> Content:
        said = (out / "steps.jsonl").read_text().splitlines() if (out / "steps.jsonl").exists() else []
        return {"said": [(line["frame"], line["step"], line["probability"]) for line in map(json.loads, said)]}

    return Victim(
        "stream", lambda out: [*words, "--state", str(out / "state"), "--out", str(out / "steps.jsonl")], content
    )


def extract(root: Path, workers: int = 2) -> Victim:
    """Videos, in several processes."""
    from clips import write_clip

    (root / "videos").mkdir()
    child = os.fork()  # whose threads the encoder's are
    if not child:
        for index in range(6):
            write_clip(root / "videos" / f"clip{index}.mp4", frames=80, height=16, width=16, rate=10)
        os._exit(0)
    os.waitpid(child, 0)
    words = ["extract", str(root / "videos"), "--backbone", "toy_backbones:colours", "--rate", "10"]
    return Victim("extract, 2 workers", lambda out: [*words, "--workers", str(workers), "--out", str(out)], arrays)


def run(words: list[str], root: Path) -> None:
    """Do something in a child that has to succeed."""
    child = start(words, root / "log")
    if os.waitpid(child, 0)[1]:
        raise RuntimeError((root / "log").read_text())


def recipe(data: Path, root: Path) -> Victim:
    """Two trainings at once, their probes, and temporal heads."""
    settings = assignments([*MODEL, "train.steps=20", "train.save_every=5"])
    judged = {"probe": {"penalties": [0.01]}, "modes": ["causal"], "heads": ["mstcn"], "training": {"epochs": 3}}
    models = {name: {"settings": settings} for name in ("first", "second")}
    file = root / "recipe.yaml"
    file.write_text(json.dumps({"source_rate": "4", "models": models, "evaluation": judged}))
    words = ["run", str(file), "--root", str(data), "--out"]

    def content(out: Path) -> Content:
        result = out / "results" / "result.json"
        record = json.loads(result.read_text()) if result.exists() else {}
        weights = {path.parts[-3]: path.read_bytes() for path in out.glob("*/model/model.safetensors")}
        return {"rows": record.get("rows"), "heads": record.get("head_rows"), **weights}

    return Victim("run, 2 trainings and heads", lambda out: [*words, str(out)], content)


def all_victims(root: Path, name: str) -> Iterator[Victim]:
    """The command of a name, with a model and a head that are trained here where it needs one."""
    root.mkdir()
    data, model, result = write_data(root / "data"), root / "model", root / "result"
    if name in ("encode", "stream", "eval"):
        run(pretrain(data, steps=10).begin(model), root)
    if name == "pretrain":
        yield pretrain(data)
    elif name == "import":
        yield import_(root)
    elif name == "extract":
        yield extract(root)
    elif name == "encode":
        yield encode(model, write_data(root / "many", videos=40, frames=120))
    elif name == "stream":
        run(evaluate(data, model).begin(result), root)
        np.save(root / "long.npy", np.random.default_rng(1).normal(size=(1500, 6)).astype(np.float32))
        yield stream(root / "long.npy", model, result / "heads" / "pjepa-causal-seed0.safetensors")
    elif name == "eval":
        yield evaluate(data, model)
    else:
        yield recipe(data, root)
