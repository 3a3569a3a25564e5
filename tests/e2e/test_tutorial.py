"""The tutorial runs as it is printed, on made-up videos of twelve seconds, from MP4 files and a table to a claim."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
from small import QUICK, SMALL

from keystep.cli.commands import app

pytest.importorskip("av", reason="needs the extra 'video'")
from clips import write_clip  # it needs av

TEXT = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text()
QUICKER = {
    "extract": ("--backbone", "toy_backbones:colours"),
    "pretrain": (*SMALL, "--set", "train.steps=2"),
    "eval": QUICK,
    "predict": ("--backbone", "toy_backbones:colours"),
    "stream": ("--backbone", "toy_backbones:colours"),
}
STEPS = ("fill kettle", "wait", "pour")
COLOURS = np.array([(200, 40, 40), (40, 200, 40), (40, 40, 200)])
SECONDS, RATE = 12, 8


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)


def write_videos(root: Path) -> None:
    """Twelve videos of six persons, whose colour is the step; their table says what happens until the last second."""
    rows = ["video,start,stop,step"]
    (root / "videos").mkdir()
    for number, name in enumerate(f"P0{person}_{task}" for person in range(1, 7) for task in ("tea", "toast")):
        rng = np.random.default_rng(number)
        steps = rng.permutation(np.arange(SECONDS) % len(STEPS))
        noise = rng.integers(-25, 25, size=(SECONDS * RATE, 16, 16, 3))
        shown = np.clip(COLOURS[np.repeat(steps, RATE)][:, None, None] + noise, 0, 255).astype(np.uint8)
        path = root / "videos" / f"{name}.mp4"
        write_clip(
            path, frames=len(shown), height=16, width=16, rate=RATE, picture=lambda frame, shown=shown: shown[frame]
        )
        rows += [f"{name},{second},{second + 1},{STEPS[step]}" for second, step in enumerate(steps[:-1])]
    (root / "annotations.csv").write_text("\n".join(rows) + "\n")


def test_the_tutorial_goes_from_videos_to_a_claim(
    keystep: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_videos(tmp_path)
    (python,) = blocks("python")
    exec(compile(python, "tutorial.md", "exec"), {})
    printed = [block.replace("\\\n", "") for block in blocks("sh") if not block.startswith("for ")]
    lines = [line for block in printed for line in block.splitlines()]
    commands = [shlex.split(line)[1:] for line in lines]
    verbs = ["extract", "inspect", "split", "pretrain", "eval", "predict", "stream", "serve"]
    assert [each[0] for each in commands] == verbs
    *commands, (verb, *page) = commands
    said = {}
    for command in commands:
        status, said[command[0]], error = keystep(*command, *QUICKER.get(command[0], ()))
        assert status == 0, f"{command}: {error}"
    assert "unlabelled: 48 frames, 8.3 %" in said["inspect"] and "0 problems, 0 notes" in said["inspect"]
    assert "next: keystep split data" in said["inspect"]
    assert "5 folds of 12 videos" in said["split"] and "each of the 6 groups" in said["split"]
    claim = said["eval"].strip().splitlines()[-1]
    assert claim.startswith("pjepa alone ") and "3 seeds" in claim and "No claim" not in claim
    typer.main.get_command(app).commands[verb].make_context(verb, page)  # type: ignore[attr-defined]  # it would stay
    assert (tmp_path / "steps" / "labels" / "P01_tea.txt").exists()


def test_the_folds_of_the_loop_are_those_that_are_made() -> None:
    (loop,) = [block for block in blocks("sh") if block.startswith("for ")]
    assert loop.startswith("for fold in 2 3 4 5; do\n") and "--split $fold" in loop
