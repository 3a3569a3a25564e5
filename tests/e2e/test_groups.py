"""Persons on the command line: a pattern or splits/groups.csv, in `inspect`, `pretrain`, `eval` and a recipe."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from trees import mstcn

from keystep.config.base import assignments, build
from keystep.data.folder import open_dataset
from keystep.loading import load
from keystep.recipe import Recipe, plan

Run = Callable[..., tuple[int, str, str]]
SMALL = (
    *("--set", "model.dim=16", "--set", "model.heads=2", "--set", "model.depth=1"),
    *("--set", "train.steps=2", "--set", "train.crop=32", "--set", "train.batch_size=2"),
)
QUICK = ("--set", "probe.penalties=[0.01]")
PAIRS = "(video[0-3]|video[45]|video[67])"
"""A pattern that makes a group of each name."""


def write_groups(data: Path, groups: str) -> None:
    lines = [f"video{index},{group}\n" for index, group in enumerate(groups)]
    (data / "splits" / "groups.csv").write_text("video,group\n" + "".join(lines))


def test_inspect_says_how_many_groups_there_are_warns_and_prints_tau(keystep: Run, data: Path, tmp_path: Path) -> None:
    write_groups(data, "aabbcabc")
    status, said, error = keystep("inspect", data, "--source-rate", 4, "--picture", tmp_path / "p.png")
    assert status == 0, error
    assert "3 groups (persons or sites) with 2 to 3 videos each" in said
    assert "split 1: 4 train, 1 valid, 3 test, of 2, 1, 3 groups (validation: valid.split1.bundle)" in said
    assert "note: split 1: 2 of 3 test videos are of groups that also train" in said
    assert "tau: " in said and " frames (" in said and "measured on 8 videos" in said
    status, said, error = keystep("inspect", data, "--groups", PAIRS, "--picture", tmp_path / "p.png")
    assert status == 0 and "8 groups (persons or sites) with 1 videos each" in said and " s (" not in said, error


def test_inspect_gives_programs_json_and_nothing_else(
    keystep: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_groups(data, "aabbcabc")
    (data / "groundTruth" / "forgotten.txt").write_text("cut\n")
    status, said, _ = keystep("inspect", data, "--source-rate", 4, "--json")
    record = json.loads(said)
    assert status == 1 and len(record["problems"]) == 1 and record["groups"] == {"a": 3, "b": 3, "c": 2}
    seconds, frames = record["tau"]["seconds"], record["tau"]["frames"]
    assert frames == pytest.approx([4 * value for value in seconds]) and seconds[1] <= seconds[0] <= seconds[2]
    assert not list(tmp_path.glob("*.png"))


def test_training_leaves_whole_persons_out_and_says_how_to_judge(keystep: Run, data: Path, tmp_path: Path) -> None:
    (data / "splits" / "valid.split1.bundle").unlink()
    pattern = ("--groups", "^video([01]|[23]|[4-7])")
    options = (data, "--source-rate", 4, "--split", 1)
    status, said, error = keystep("pretrain", *options, *pattern, "--out", tmp_path / "run", *SMALL)
    assert status == 0 and f"--groups '{pattern[1]}'" in said, error
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["data"]["groups"] == pattern[1]
    split = open_dataset(data, source_rate=4, groups=pattern[1]).split("1")
    assert tuple(load(tmp_path / "run").origin.videos) == split.train and "groups" in split.rule


def test_an_evaluation_is_cut_by_person_draws_persons_and_tells_of_those_on_both_sides(
    keystep: Run, data: Path, tmp_path: Path
) -> None:
    (data / "splits" / "valid.split1.bundle").unlink()
    write_groups(data, "aabbcabc")
    status, said, error = keystep("eval", data, "--source-rate", 4, "--out", tmp_path / "result", "--quick", *QUICK)
    assert status == 0, error
    found = json.loads((tmp_path / "result" / "result.json").read_text())["data"]
    assert found["validation"].startswith("2 training videos held out: all of 1 of 2 groups")
    assert found["drawn"] == {"what": "groups", "count": 3}
    line = "split 1: 1 of 3 test videos are of groups that also train"
    assert f"warning: {line}" in said and said.count(line) == 1
    assert sum(note.startswith(line) for note in found["notes"]) == 1


@pytest.mark.parametrize("command", ["inspect", "pretrain", "eval"])
def test_a_pattern_that_fits_no_name_ends_in_one_line(keystep: Run, data: Path, tmp_path: Path, command: str) -> None:
    more = {"pretrain": ("--out", tmp_path / "run"), "eval": ("--out", tmp_path / "result"), "inspect": ()}[command]
    status, _, error = keystep(command, data, "--source-rate", 4, "--groups", "^(P[0-9]+)_", *more)
    assert status == 2 and error.count("\n") == 1
    assert "--groups '^(P[0-9]+)_': does not match the video name 'video0'; correct the pattern" in error


def test_a_recipe_on_a_download_that_is_read_as_it_is_cuts_validation_by_person(tmp_path: Path) -> None:
    root = mstcn(tmp_path / "gtea", ("background", "take", "open"), name="S{1}_Tea_C{0}")
    settings = assignments(["model.dim=16", "model.heads=2", "model.depth=1", "train.steps=1", "train.crop=32"])
    recipe = build(Recipe, {"data_set": "gtea", "convert": False, "models": {"pjepa": {"settings": settings}}})
    done = plan(recipe, root, tmp_path / "out", evaluation=["probe.penalties=[0.01]"]).run()
    assert done.results is not None
    data = json.loads((done.results / "result.json").read_text())["data"]
    assert "by the hash of the groups' names" in data["validation"] and not (root / "splits" / "groups.csv").exists()
    folder = open_dataset(root, source_rate=15, groups="^(S[0-9]+)_")
    trained = yaml.safe_load((done.runs["pjepa"][0] / "config.yaml").read_text())["data"]
    assert trained["groups"] == "^(S[0-9]+)_" and data["validation"] == folder.split("1").rule
