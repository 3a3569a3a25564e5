"""A step whose gradient is not finite is skipped and counted; a few in a row stop the run; the weights stay."""

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from keystep.config import RunConfig, run_config
from keystep.config.base import build
from keystep.errors import InputError
from keystep.heads import TrainingConfig, head_config, train_head
from keystep.train import run as training
from keystep.train.records import read_metrics
from keystep.train.run import pretrain
from keystep.train.skips import MOST_IN_A_ROW, Skips
from keystep.train.state import Checkpoints
from keystep.train.step import Learner, StepResult, train_step

SETTINGS = {
    "model": {"dim": 16, "depth": 2, "heads": 2, "predictor_depth": 1},
    "target": {"kind": "ema", "momentum": 0.9},
    "train": {"steps": 8, "batch_size": 4, "crop": 24, "warmup": 2, "save_every": 2, "monitor_every": 8, "keep": 9},
}


def config_of(root: Path, **train: object) -> RunConfig:
    return build(RunConfig, SETTINGS, {"data": {"root": root, "source_rate": 4}, "train": train})


class Breaking:
    """Lets the gradients of the given steps (0-based) be NaN, and looks whether they change anything."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
        self.steps = steps
        monkeypatch.setattr(training, "train_step", self)

    def __call__(self, learner: Learner, step: int, batches: list) -> StepResult:
        before = state_of(learner)
        handle = None
        if step in self.steps:
            weight = learner.model.predictor.blocks[0].mlp.fc1.weight  # type: ignore[union-attr]
            handle = weight.register_hook(lambda grad: grad * float("nan"))  # type: ignore[operator]
        result = train_step(learner, step, batches)
        if handle is not None:
            handle.remove()
        after = state_of(learner)
        same = all(torch.equal(before[name], after[name]) for name in before) and before.keys() == after.keys()
        assert same == (step in self.steps) == (not result.taken), "weights, moments and target move together or not"
        return result


def state_of(learner: Learner) -> dict[str, Tensor]:
    """Everything that a step may change."""
    moments = {
        f"{index}/{name}": value.clone()
        for index, group in enumerate(learner.optimizer.state.values())
        for name, value in group.items()
    }
    parts = {"model": learner.model, "target": learner.target}
    return moments | {f"{k}.{n}": v.clone() for k, part in parts.items() for n, v in part.state_dict().items()}


@pytest.mark.parametrize("changes", [{}, {"accumulate": 2}, {"precision": "bf16-mixed"}], ids=str)
def test_a_broken_step_changes_nothing_and_is_counted(
    mstcn: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, object],
) -> None:
    Breaking(monkeypatch, {0, 3, 4})
    run = tmp_path / "run"
    with caplog.at_level(logging.WARNING):
        pretrain(config_of(mstcn, log_every=100, **changes), run)
    lines = [line for line in read_metrics(run / "metrics.jsonl") if "skipped_steps" in line]
    assert [(line["step"], line["skipped_steps"]) for line in lines] == [(1, 1), (4, 2), (5, 3), (8, 3)]
    assert [line["gradient_norm"] is None for line in lines] == [True, True, True, False]
    assert "NaN" not in (run / "metrics.jsonl").read_text()
    assert "step 4: the gradient is not finite; step skipped (2 so far)" in caplog.text
    assert "3 steps were skipped in total" in caplog.messages[-1]
    checkpoints = Checkpoints(run / "checkpoints", 9)
    assert checkpoints.steps() == [2, 6, 8], "none is written in the middle of trouble"
    assert json.loads((checkpoints.path(8) / "state.json").read_text())["skipped_steps"] == 3


def test_a_few_in_a_row_stop_the_run_with_one_line_and_the_last_good_checkpoint(
    mstcn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Breaking(monkeypatch, set(range(3, 100)))
    run = tmp_path / "run"
    with pytest.raises(
        InputError, match=r"^step 8: the loss or its gradient was not finite in 5 steps in a row"
    ) as said:
        pretrain(config_of(mstcn, steps=20, keep=1), run)
    assert MOST_IN_A_ROW == 5 and "\n" not in str(said.value)
    assert "lower train.learning_rate, or look" in str(said.value), (
        "full precision is no remedy where it is the setting"
    )
    assert Checkpoints(run / "checkpoints", 1).steps() == [2]
    assert read_metrics(run / "metrics.jsonl")[-2]["skipped_steps"] == 5
    monkeypatch.undo()
    pretrain(run_config(run), run, resume=True)
    pretrain(config_of(mstcn, steps=20), tmp_path / "whole")
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (run, tmp_path / "whole")]
    assert weights[0] == weights[1], "the checkpoint was whole"


def test_fewer_in_a_row_do_not_stop_and_the_count_survives_a_resume(
    mstcn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {0, 1, 2, 3, 5, 6, 7, 8}
    Breaking(monkeypatch, broken)
    pretrain(config_of(mstcn, steps=12), tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut", ignore=shutil.ignore_patterns("step-00000012", "model"))
    pretrain(run_config(tmp_path / "cut"), tmp_path / "cut", resume=True)
    for run in (tmp_path / "whole", tmp_path / "cut"):
        assert read_metrics(run / "metrics.jsonl")[-2]["skipped_steps"] == len(broken)
    same = [(tmp_path / run / "model" / "model.safetensors").read_bytes() for run in ("whole", "cut")]
    assert same[0] == same[1]


def test_full_precision_is_advised_where_it_is_not_used(mstcn: Path) -> None:
    assert training._remedy(config_of(mstcn)) == "lower train.learning_rate"
    said = training._remedy(config_of(mstcn, precision="bf16-mixed"))
    assert said == "lower train.learning_rate, set train.precision=32-true"


TWO = """
import sys
from pathlib import Path
import torch
import keystep.train.run as training
from keystep.config import RunConfig
from keystep.config.base import build
from keystep.train.step import train_step

def breaking(learner, step, batches):
    handles = []
    if step in (1, 2) and learner.fabric.global_rank == 1:
        # after the processes' gradients were averaged, so that this process alone sees it
        clip = learner.fabric.clip_gradients
        object.__setattr__(learner.fabric, "clip_gradients", lambda *a, **k: clip(*a, **k) * float("nan"))
        result = train_step(learner, step, batches)
        object.__setattr__(learner.fabric, "clip_gradients", clip)
    else:
        result = train_step(learner, step, batches)
    assert result.taken == (step not in (1, 2)), (learner.fabric.global_rank, step)
    total = torch.stack([p.detach().double().sum() for p in learner.model.parameters()]).sum()
    assert float(learner.fabric.all_gather(total).std()) == 0, "all processes hold the same weights"
    return result

training.train_step = breaking
settings = eval(sys.argv[3]) | {"data": {"root": sys.argv[1], "source_rate": 4}}
settings["train"] |= {"devices": 2, "accelerator": "cpu"}
training.pretrain(build(RunConfig, settings), Path(sys.argv[2]))
"""


def test_all_processes_skip_the_same_steps_though_one_of_them_alone_sees_the_trouble(
    mstcn: Path, tmp_path: Path
) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO)
    command = [sys.executable, str(script), str(mstcn), str(tmp_path / "run"), repr(SETTINGS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[-2]["skipped_steps"] == 2


def videos(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    labels = [np.repeat(rng.integers(3, size=5), 8) for _ in range(count)]
    return [((np.eye(3)[row] + rng.normal(size=(40, 3))).astype(np.float32), row) for row in labels]


def break_head(monkeypatch: pytest.MonkeyPatch, broken: Callable[[int], bool]) -> list[int]:
    """Lets the norm of the head's gradient be NaN in some calls (0-based); returns how many there were."""
    clip, calls = nn.utils.clip_grad_norm_, [0]

    def clipped(*args: object, **options: object) -> Tensor:
        norm = clip(*args, **options)  # type: ignore[arg-type]
        calls[0] += 1
        return norm * float("nan") if broken(calls[0] - 1) else norm

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", clipped)
    return calls


def test_heads_skip_count_and_stop_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config, few = head_config("linear"), TrainingConfig(epochs=4, batch_videos=2)
    train, valid = videos(6), videos(2)  # three steps an epoch

    def trained(folder: Path | None = None):  # type: ignore[no-untyped-def]
        return train_head(config, train, valid, classes=3, training=few, folder=folder)

    with monkeypatch.context() as patch:
        break_head(patch, lambda call: 3 <= call < 7)  # the whole second epoch, and a step of the third
        record = trained(tmp_path / "some").record
        assert [epoch["skipped_steps"] for epoch in record["history"]] == [0, 3, 1, 0]
        assert [("loss" in epoch) for epoch in record["history"]] == [True, False, True, True]
        assert record["skipped_steps"] == 4 and "skipped_steps" not in record["valid_scores"]
        assert record["history"][0]["selection"] == record["history"][1]["selection"], "the head is as it was"
        assert "linear head: 4 steps were skipped in total" in caplog.text
    with monkeypatch.context() as patch:
        break_head(patch, lambda call: call >= 4)
        with pytest.raises(InputError, match=r"step 9 \(epoch 3\): .* 5 steps in a row.*lower learning_rate"):
            trained(tmp_path / "stopped")
    resumed, whole = trained(tmp_path / "stopped"), trained()
    assert resumed.record["history"][1]["skipped_steps"] == 2, "the last whole epoch was kept"
    assert whole.record["skipped_steps"] == 0


def test_a_skipped_step_leaves_weights_and_moments_and_a_taken_one_begins_to_count_anew() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer, skips = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.5), Skips()
    for finite in (True, False, False, True, False):
        before, step = weight.detach().clone(), float(optimizer.state[weight].get("step", 0)) if optimizer.state else 0
        weight.grad = torch.full((3,), 1.0 if finite else float("nan"))
        assert skips.step(optimizer, finite) == finite
        assert torch.equal(before, weight) == (not finite) and weight.grad is None
        assert float(optimizer.state[weight]["step"]) == step + finite
    assert (skips.total, skips.in_a_row) == (3, 1)
    skips.check("here", "rest")
