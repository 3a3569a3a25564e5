"""Two processes that share the work train the weights of one."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file


def train(root: Path, run: Path, devices: int, **settings: object) -> dict[str, torch.Tensor]:
    fixed = {
        "model.dim": 16,
        "model.depth": 2,
        "model.heads": 2,
        "model.readout_dim": 24,
        "train.crop": 24,
        "train.batch_size": 4,
        "train.steps": 8,
        "train.accelerator": "cpu",
        "train.devices": devices,
        **settings,
    }
    command = [sys.executable, "-m", "keystep", "pretrain", str(root), "--source-rate", "4", "--out", str(run)]
    for name, value in fixed.items():
        command += ["--set", f"{name}={value}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return load_file(run / "model" / "model.safetensors")


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
def test_two_gloo_processes_give_the_weights_of_one(mstcn: Path, tmp_path: Path, settings: dict[str, object]) -> None:
    """The crops differ in length, so a mean of means would be wrong; only frame-weighted sums agree."""
    one = train(mstcn, tmp_path / "one", 1, **settings)
    same_parts = settings.get("objective.average") == "parts"  # which parts there are then matters
    two = train(mstcn, tmp_path / "two", 2, **settings | ({} if same_parts else {"train.accumulate": 1}))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=2e-5, rtol=0, msg=lambda text, name=name: name + text)
