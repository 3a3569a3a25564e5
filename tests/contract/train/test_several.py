"""Trainings side by side: the same models as one after the other, and nothing lost when they are stopped."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from keystep.config import RunConfig, seed_runs
from keystep.config.base import build
from keystep.errors import InputError
from keystep.loading import load
from keystep.train.run import pretrain
from keystep.train.several import pretrain_several, vary_seed

SMALL = {
    "model": {"dim": 16, "depth": 2, "heads": 2, "predictor_depth": 1, "readout_dim": 16},
    "train": {"steps": 8, "crop": 24, "save_every": 2},
}


class Messages:
    """Progress that keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)

    def task(self, *args: object, **settings: object) -> object:
        from keystep.progress import SILENT

        return SILENT.task("")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def assert_alike(first: Path, second: Path) -> None:
    one, two = weights(first), weights(second)
    assert one.keys() == two.keys()
    for name in one:  # workers have fewer threads, and so other sums
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-4, msg=name)


def settings(root: Path, **train: object) -> RunConfig:
    return build(RunConfig, SMALL, {"data": {"root": root, "source_rate": 4}, "train": train})


def test_seeds_side_by_side_are_those_of_single_runs(mstcn: Path, tmp_path: Path) -> None:
    pretrain_several(vary_seed(settings(mstcn), tmp_path / "several", 2))
    for seed in (0, 1):
        pretrain(settings(mstcn, seed=seed), tmp_path / f"alone{seed}")
        assert_alike(tmp_path / f"several/seed{seed}", tmp_path / f"alone{seed}")
    first, second = (weights(tmp_path / f"several/seed{seed}") for seed in (0, 1))
    assert not torch.equal(first["mask_token"], second["mask_token"])


def test_a_second_call_leaves_whole_runs_and_trains_the_others(mstcn: Path, tmp_path: Path) -> None:
    pretrain_several(vary_seed(settings(mstcn), tmp_path / "several", 1))
    made = (tmp_path / "several/seed0/model/model.safetensors").stat().st_mtime_ns
    messages = Messages()
    pretrain_several(vary_seed(settings(mstcn), tmp_path / "several", 2), progress=messages)  # type: ignore[arg-type]
    assert f"{tmp_path / 'several/seed0'}: already finished" in messages.said
    assert (tmp_path / "several/seed0/model/model.safetensors").stat().st_mtime_ns == made
    assert [run.name for run in seed_runs(tmp_path / "several")] == ["seed0", "seed1"]
    with pytest.raises(InputError, match=r"several: holds 2 models; name one of them, such as .*several/seed0"):
        load(tmp_path / "several")


def test_what_no_worker_can_do_is_told_in_one_line(mstcn: Path, tmp_path: Path) -> None:
    config = settings(mstcn, accelerator="no such device")
    with pytest.raises(InputError, match=r"train\.accelerator no such device"):
        pretrain_several(vary_seed(config, tmp_path / "several", 2))


def test_ctrl_c_saves_every_seed_and_resume_ends_where_it_would_have(
    mstcn: Path, tmp_path: Path, keystep: Callable[..., tuple[int, str, str]]
) -> None:
    small = (
        "train.steps=60",
        "train.crop=24",
        "model.dim=16",
        "model.heads=2",
        "model.depth=1",
        "model.readout_dim=16",
    )
    given = [word for setting in small for word in ("--set", setting)]
    command = [sys.executable, "-m", "keystep", "pretrain"]
    data = [str(mstcn), "--source-rate", "4", *given, "--seeds", "2", "--out"]
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    child = subprocess.Popen([*command, *data, str(stopped)], stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list(stopped.glob("seed*/metrics.jsonl"))) < 2 and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode, said
    assert f"resume with --resume {stopped} --seeds 2" in said
    for arguments in (["--resume", stopped], [*data, whole]):
        status, _, said = keystep("pretrain", *arguments)
        assert status == 0, said
    for seed in (0, 1):
        assert_alike(stopped / f"seed{seed}", whole / f"seed{seed}")
