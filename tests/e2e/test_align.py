"""``keystep align``: from ordered lists of steps to labels and a head that the other commands use."""

from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from shutil import rmtree

import numpy as np

Run = Callable[..., tuple[int, str, str]]


def test_lists_become_labels_and_a_head_that_predicts(keystep: Run, data: Path, trained: Path, tmp_path: Path) -> None:
    steps, out = tmp_path / "steps", tmp_path / "out"
    steps.mkdir()
    for path in sorted((data / "groundTruth").iterdir())[:6]:
        (steps / path.name).write_text("\n".join(step for step, _ in groupby(path.read_text().splitlines())))
    rmtree(data / "groundTruth")
    command = ("align", data, "--steps", steps, "--source-rate", 4, "--out", out, "--model", trained)
    status, said, error = keystep(*command, "--set", "rounds=2")
    assert status == 0 and "round 1:" in said and "labels/ of 6 videos" in said, error
    for path in steps.iterdir():
        lines = (out / "labels" / path.name).read_text().splitlines()
        assert [step for step, _ in groupby(lines)] == path.read_text().splitlines()
    status, _, error = keystep(*command)
    assert status == 2 and "--overwrite" in error
    np.save(tmp_path / "new.npy", np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32))
    made = ("--head", out / "head.safetensors", "--source-rate", 4, "--out", tmp_path / "made")
    status, _, error = keystep("predict", trained, tmp_path / "new.npy", *made)
    assert status == 0 and len((tmp_path / "made" / "labels" / "new.txt").read_text().splitlines()) == 40, error
    files = sorted((out / "labels").iterdir())
    status, _, error = keystep("annotations", "import", *files, "--data", data, "--source-rate", 4)
    assert status == 0 and (data / "groundTruth" / files[0].name).read_text() == files[0].read_text(), error
