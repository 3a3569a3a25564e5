"""A training that gets worse on held-out videos ends with its best weights, however often it is killed on the way."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from keystep.config import RunConfig, run_config
from keystep.config.base import build
from keystep.diagnostics import Health
from keystep.progress import Lines
from keystep.train.run import pretrain

STEPS = 60
SETTINGS = {
    "model": {"dim": 16, "depth": 1, "heads": 2, "predictor_depth": 1, "live_attention": None},
    "target": {"offsets": [0.0]},
    "train": {
        **{"steps": STEPS, "batch_size": 2, "crop": 24, "warmup": 2, "learning_rate": 0.02},
        **{"save_every": 1, "keep": STEPS, "monitor_every": 2, "log_every": 1, "schedule": "constant"},
    },
}


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of which nothing can be learned but by heart, two to train on and one held out."""
    root = tmp_path_factory.mktemp("noise")
    for folder in ("features", "splits"):
        (root / folder).mkdir()
    rng = np.random.default_rng(0)
    for length, (name, part) in enumerate((("a", "train"), ("b", "train"), ("c", "valid"), ("d", "test")), start=30):
        np.save(root / "features" / f"{name}.npy", rng.standard_normal((6, length)).astype(np.float32))
        with (root / "splits" / f"{part}.split1.bundle").open("a") as file:
            file.write(f"{name}.txt\n")
    return root


def settings(root: Path, **train: object) -> RunConfig:
    data = {"root": root, "source_rate": 4, "split": "1"}
    return build(RunConfig, SETTINGS, {"data": data, "train": train})


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def assert_same_bits(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def stopped(noise: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int], list[str]]:
    """(a run that was stopped early, what its metrics say of it, what was said)."""
    run, said = tmp_path_factory.mktemp("stopped") / "run", list[str]()
    pretrain(settings(noise), run, progress=Lines(said.append))
    (record,) = (line for line in metrics(run) if "stopped_at" in line)
    return run, {key: int(record[key]) for key in ("stopped_at", "best_step")}, said


def test_a_sign_of_collapse_is_said_once(
    noise: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Health, "warnings", lambda self, start, done: {"hidden_loss": f"worse ({done:.2f})"})
    pretrain(settings(noise, steps=8), tmp_path / "run")
    assert [line for line in caplog.messages if "worse" in line] == ["step 2: worse (0.25)"]


def test_the_run_ends_with_the_weights_of_its_best_look_and_says_so(
    noise: Path, stopped: tuple[Path, dict[str, int], list[str]]
) -> None:
    run, end, said = stopped
    assert end["best_step"] < end["stopped_at"] < STEPS
    best = load_file(run / "checkpoints" / f"step-{end['best_step']:08d}" / "model.safetensors")
    assert_same_bits(weights(run), best)
    assert metrics(run)[-1]["step"] == end["stopped_at"]
    assert sum("more videos, or fewer steps" in line for line in said) == 1
    looks = [(line["step"], line["monitor/hidden_loss"]) for line in metrics(run) if "monitor/hidden_loss" in line]
    assert min(looks[1:], key=lambda look: look[1])[0] == end["best_step"]


@pytest.mark.parametrize("left", ["before the best", "after the best", "at the stop"])
def test_a_run_that_is_killed_and_resumed_stops_where_it_would_have(
    stopped: tuple[Path, dict[str, int], list[str]], tmp_path: Path, left: str
) -> None:
    whole, end, _ = stopped
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "model")
    steps = {"before the best": end["best_step"] - 1, "after the best": end["stopped_at"] - 1}
    last = steps.get(left, end["stopped_at"])
    for checkpoint in (run / "checkpoints").iterdir():
        if int(checkpoint.name.partition("-")[2]) > last:
            shutil.rmtree(checkpoint)
    pretrain(run_config(run), run, resume=True)
    assert_same_bits(weights(whole), weights(run))
    assert [line["step"] for line in metrics(run)] == [line["step"] for line in metrics(whole)]


def test_nothing_stops_where_it_is_not_asked_for_or_nothing_is_held_out(noise: Path, tmp_path: Path) -> None:
    rarely = {"train": {"save_every": STEPS, "log_every": STEPS}}
    asked_not = settings(noise, stop_early=False, **rarely["train"])
    nothing = build(RunConfig, SETTINGS, rarely, {"data": {"root": noise, "source_rate": 4}})
    moving = build(RunConfig, SETTINGS, rarely, {"data": asked_not.data.model_dump(), "target": {"kind": "ema"}})
    for number, config in enumerate((asked_not, nothing, moving)):
        pretrain(config, tmp_path / str(number))
        assert metrics(tmp_path / str(number))[-1]["step"] == STEPS
        assert not any("stopped_at" in line for line in metrics(tmp_path / str(number)))


def test_two_processes_stop_after_the_same_step_with_the_same_weights(
    noise: Path, stopped: tuple[Path, dict[str, int], list[str]], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    asked = run.with_name("asked.yaml")
    config = settings(noise, devices=2, accelerator="cpu", save_every=1000)
    asked.write_text(json.dumps(config.model_dump(mode="json")))
    command = [sys.executable, "-m", "keystep", "pretrain", "--config", str(asked), "--out", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    (record,) = (line for line in metrics(run) if "stopped_at" in line)
    assert record["stopped_at"] < STEPS and metrics(run)[-1]["step"] == record["stopped_at"]
    assert json.loads((run / "checkpoints" / f"step-{record['stopped_at']:08d}" / "state.json").read_text())["looks"]
