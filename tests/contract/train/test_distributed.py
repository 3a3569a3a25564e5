"""Two processes that share the work train the weights of one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file


def command_of(root: Path, run: Path, devices: int, steps: int = 8, **settings: object) -> list[str]:
    fixed = {
        "model.dim": 16,
        "model.depth": 2,
        "model.heads": 2,
        "model.readout_dim": 24,
        "train.crop": 24,
        "train.batch_size": 4,
        "train.steps": steps,
        "train.save_every": 5,
        "train.accelerator": "cpu",
        "train.devices": devices,
        **settings,
    }
    command = [sys.executable, "-m", "keystep", "pretrain", str(root), "--source-rate", "4", "--out", str(run)]
    for name, value in fixed.items():
        command += ["--set", f"{name}={value}"]
    return command


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


@pytest.mark.parametrize("victim", ["first", "second"])
def test_a_process_that_is_killed_ends_the_run_in_one_line_that_says_how_to_go_on(
    shared_mstcn: Path, tmp_path: Path, victim: str
) -> None:
    run = tmp_path / "run"
    child = subprocess.Popen(command_of(shared_mstcn, run, 2, steps=5000), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while not list(run.glob("checkpoints/step-*/state.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    (second,) = (int(pid) for pid in Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split())
    os.kill(child.pid if victim == "first" else second, signal.SIGKILL)
    _, said = child.communicate(timeout=120)  # the end of the pipe, which both processes hold
    assert "Traceback" not in said, said
    assert f"{run}: another process of this run has ended" in said, said
    assert f"keystep pretrain --resume {run}" in said


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"target.kind": "clusters", "target.clusters": 8},
        {
            "target.kind": "ema",
            "target.momentum": 0.9,
            "train.accumulate": 2,
            "objective.visible_weight": 0,
            "model.readout_dim": "null",
        },
        {"objective.average": "parts", "train.accumulate": 2},
    ],
    ids=["features", "clusters", "ema, accumulated", "averaged over parts"],
)
def test_two_gloo_processes_give_the_weights_of_one(
    mstcn: Path, tmp_path: Path, keystep: Callable[..., tuple[int, str, str]], settings: dict[str, object]
) -> None:
    """The crops differ in length, so a mean of means would be wrong; only frame-weighted sums agree."""
    status, _, said = keystep(*command_of(mstcn, tmp_path / "one", 1, **settings)[3:])  # type: ignore[arg-type]
    assert status == 0, said
    same_parts = settings.get("objective.average") == "parts"  # which parts there are then matters
    parts = {} if same_parts else {"train.accumulate": 1}
    command = command_of(mstcn, tmp_path / "two", 2, **settings | parts)  # type: ignore[arg-type]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=2e-5, rtol=0, msg=lambda text, name=name: name + text)
