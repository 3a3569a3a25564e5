"""``keystep discover``: the table, the file, the picture, and what it says of its choices."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from keystep.data.folder import open_dataset
from keystep.data.tasks import find_tasks
from keystep.errors import InputError
from keystep.pjepa import PJEPA

Run = Callable[..., tuple[int, str, str]]


def discover(keystep: Run, data: Path, out: Path, *options: object) -> str:
    status, said, error = keystep("discover", data, "--source-rate", 4, "--out", out, *options)
    assert status == 0, error
    return " ".join(said.split())


def test_raw_features_controls_and_a_model_in_one_table(
    keystep: Run, data: Path, trained: Path, tmp_path: Path
) -> None:
    options = ("--clusters", 3, "--split", 1, "--matching", "task", "--model", f"pjepa={trained}")
    said = discover(keystep, data, tmp_path / "out", *options)
    assert "K = 3, clustered by task, matched by task" in said and "split 1, test" in said
    record = json.loads((tmp_path / "out" / "discovery.json").read_text())
    names = [row["name"] for row in record["rows"]]
    assert names == ["uniform segments", "random frames", "raw features", "moving average", "pjepa"]
    runs = {row["name"]: len(row["runs"]) for row in record["rows"]}
    assert runs == {"uniform segments": 1, "random frames": 3, "raw features": 3, "moving average": 3, "pjepa": 3}
    scores = {row["name"]: row["mean"] for row in record["rows"]}
    assert scores["raw features"]["f1"] > scores["random frames"]["f1"] + 20
    assert record["rows"][0]["spread"]["f1"] is None and record["rows"][2]["spread"]["f1"] >= 0
    assert "best of" in record["rows"][3]["detail"] and "validation videos" in record["rows"][3]["detail"]
    assert record["data"]["videos"] == ["video5", "video6", "video7"] and record["models"][0]["name"] == "pjepa"
    assert (tmp_path / "out" / "discovery.png").read_bytes().startswith(b"\x89PNG")
    again = tmp_path / "again"
    discover(keystep, data, again, *options)
    assert json.loads((again / "discovery.json").read_text())["rows"] == record["rows"]


def test_names_are_checked_with_a_split_and_without(
    keystep: Run, data: Path, tmp_path: Path, make_model: Callable[..., PJEPA]
) -> None:
    run = tmp_path / "model"
    make_model({"kind": "bidirectional"}, input_dim=6).save_pretrained(run)
    for models, problem in (
        ((f"raw features={run}",), "--model raw features=...: this name is used twice or stands for a control"),
        ((f"random frames={run}",), "stands for a control"),
        ((f"pjepa={run}", f"pjepa={run}"), "this name is used twice"),
        ((f"pjepa={run},{run}",), "the same weights are given twice"),
    ):
        for split in ((), ("--split", 1)):
            options = [word for model in models for word in ("--model", model)]
            command = ("discover", data, "--source-rate", 4, "--clusters", 3, "--out", tmp_path / "out")
            status, _, error = keystep(*command, *split, *options)
            assert status == 2 and problem in error, error


def test_tasks_are_studied_alone(keystep: Run, data: Path, tmp_path: Path) -> None:
    options = ("--clusters", 3, "--background", "wait", "--set", "background=unmatched")
    discover(keystep, data, tmp_path / "one", *options, "--task-pattern", "video([0-3])?")
    rows = json.loads((tmp_path / "one" / "discovery.json").read_text())
    assert rows["data"]["tasks"] == ["0", "1", "2", "3", "video"] and rows["data"]["part"] == "all videos"
    assert rows["rows"][0]["runs"][0]["background"] == "unmatched" and rows["data"]["background"] == ["wait"]
    assert any("no --split" in note for note in rows["data"]["notes"])


def test_tasks_come_from_the_name_or_from_what_the_preparer_wrote(data: Path) -> None:
    (data / "store.json").write_text('{"time_axis": 1, "timeline": {"rate": "4"}}')
    folder = open_dataset(data)
    assert set(find_tasks(folder, ["video0", "video1"]).values()) == {""}
    assert find_tasks(folder, ["video0", "video1"], r"\d") == {"video0": "0", "video1": "1"}
    (data / "features" / "video0.json").write_text('{"task": "make tea"}')
    assert find_tasks(folder, ["video0"]) == {"video0": "make tea"}
    with pytest.raises(InputError, match=r"video1 .* has no task"):
        find_tasks(folder, ["video0", "video1"])
    with pytest.raises(InputError, match="does not match the video name 'video0'"):
        find_tasks(folder, ["video0"], "x(.)")
    with pytest.raises(InputError, match="invalid regular expression"):
        find_tasks(folder, ["video0"], "(")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--clusters", 3, "--matching", "frame"), "matching"),
        (("--clusters", 3, "--split", 1, "--part", "tests"), "unknown --part 'tests'"),
        (("--clusters", 3, "--background", "SIL"), "--background 'SIL' is not a class"),
        (("--clusters", 3, "--set", "conventions=cnc"), "unknown setting conventions (did you mean convention?)"),
        (("--clusters", 9000), "error: 8 videos: 540 frames are too few for 9000 clusters"),
    ],
)
def test_bad_choices_are_one_line(keystep: Run, data: Path, options: tuple[object, ...], problem: str) -> None:
    status, _, error = keystep("discover", data, "--source-rate", 4, "--out", data.parent / "out", *options)
    assert status == 2 and problem in error and "Traceback" not in error


def test_what_is_not_ours_is_not_overwritten(keystep: Run, data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    np.save(tmp_path / "out" / "mine.npy", np.zeros(1))
    status, _, error = keystep("discover", data, "--source-rate", 4, "--clusters", 3, "--out", tmp_path / "out")
    assert status == 2 and "mine.npy" in error
