"""benchmarks/quality as a whole: what it leaves, what it does not do twice, and how it ends."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from keystep.config import RunConfig
from keystep.config.base import build
from keystep.data.synthetic import SyntheticConfig, generate
from keystep.errors import InputError

pytestmark = pytest.mark.timeout(900)  # several processes that import torch, on machines that do other things too

STUDY = Path(__file__).parents[2] / "benchmarks" / "quality"
VARIANTS = yaml.safe_load((STUDY / "variants.yaml").read_text())
SMALL = ("train.steps=3", "train.crop=64", "model.dim=16", "model.depth=1", "model.heads=2")


def test_every_variant_is_a_run_and_only_the_default_changes_nothing() -> None:
    data = {"data": {"root": "DATA"}}
    assert [name for name, settings in VARIANTS.items() if not settings] == ["default"]
    for settings in VARIANTS.values():
        build(RunConfig, data, settings)


def test_the_row_in_seconds_states_every_time_as_a_plain_number() -> None:
    seconds = VARIANTS["seconds"]
    times = [*seconds["target"]["offsets"], *seconds["masking"].values(), seconds["train"]["crop"]]
    assert all(isinstance(value, int) for value in times)
    config = build(RunConfig, {"data": {"root": "DATA"}}, seconds)
    assert (config.masking.shortest, config.masking.longest, config.train.crop) == (4, 32, 512)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two folds that the study has never seen."""
    folder = tmp_path_factory.mktemp("study") / "data"
    small = {"train_videos": 3, "valid_videos": 2, "test_videos": 2, "feature_dim": 8, "max_frames": 220}
    generate(folder, SyntheticConfig(min_frames=200, **small))
    parts = {part: (folder / "splits" / f"{part}.split1.bundle").read_text() for part in ("train", "valid", "test")}
    for part, other in (("train", "train"), ("valid", "test"), ("test", "valid")):
        (folder / "splits" / f"{part}.split2.bundle").write_text(parts[other])
    return folder


def words(data: Path, place: Path, *more: object) -> list[str]:
    settings = [word for setting in SMALL for word in ("--set", setting)]
    folders = ["--results", place / "results", "--out", place / "out"]
    return [str(word) for word in (sys.executable, STUDY, data, "--name", "tiny", *folders, *settings, *more)]


def study(data: Path, place: Path, *more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words(data, place, *more), capture_output=True, text=True)


ASKED = ("--confirm", "default", "--seeds", 0, "--folds", 1)
ROWS = {"controls-fold1", "default-fold1-seed0", "default-untrained-fold1-seed0"}


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(place of a study of one fold, what it said); its weights and probes are gone."""
    place = tmp_path_factory.mktemp("made")
    done = study(data, place, *ASKED, "--jobs", 2)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(place / "out")
    return place, done.stdout


def pieces(place: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in (place / "results" / "tiny").glob("*.json")}


def test_every_row_leaves_a_piece_that_says_what_each_test_video_scored(made: tuple[Path, str]) -> None:
    place, said = made
    assert set(pieces(place)) == ROWS
    piece = json.loads(pieces(place)["default-fold1-seed0"])
    assert piece["rows"][0]["name"] == "keystep (default)" and piece["settings"]["data"]["root"] == "DATA"
    assert str(place) not in json.dumps(piece), "no place of this machine"
    for row in piece["rows"]:
        right = 100 * sum(row["correct"]) / sum(piece["test"]["frames"])
        assert row["scores"]["accuracy"] == pytest.approx(right, abs=1e-3)
    assert {row["beside"] for row in piece["rows"]} >= {"", "control"}
    assert "controls-fold1: wrote controls-fold1.json" in said and "2 of 2: default-fold1-seed0 is finished" in said
    assert "Folds: 1, seeds: 1, trainings: 1; nothing can be claimed: 3 seeds are needed" in said.splitlines()[0]
    assert "Does keystep (default) beat raw features and the strongest control?\noffline: no claim, " in said
    text = (place / "results" / "tiny" / "tables.md").read_text()
    assert "| **keystep (default)** |" in text and "chose the variant" not in text, "nothing was chosen here"


def test_nothing_is_done_twice_and_more_parts_are_added_on_any_machine(data: Path, made: tuple[Path, str]) -> None:
    place, _ = made
    before = pieces(place)
    more = ("--shares", 0.5, "--robustness", "--heads", "attentive")
    extended = study(data, place, *ASKED, *more)
    assert extended.returncode == 0, extended.stderr
    after = pieces(place)
    assert {name: after[name] for name in before} == before
    parts = {f"{name}-{part}" for name in ROWS - {"default-untrained-fold1-seed0"} for part in ("robustness", "heads")}
    assert set(after) - set(before) == parts | {f"{name}-labels50-draw0" for name in ROWS}
    text = (place / "results" / "tiny" / "tables.md").read_text()
    assert "a fifth of the frames lost" in text and "attentive: F1@50, against best control" in text
    shutil.rmtree(place / "out")
    again = study(data, place, *ASKED, *more)
    assert again.returncode == 0 and "0 rows to make, 2 are there" in again.stdout
    assert not (place / "out").exists(), "weights and probes are not needed afterwards"


def test_folds_are_those_that_the_folder_knows_and_a_screen_takes_the_first(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(STUDY), *sys.path])
    options, plan = importlib.import_module("options"), importlib.import_module("plan")
    asked = words(data, tmp_path, "--confirm", "default", "seconds", "--once", "seconds", "--seeds", 3, 4)[2:]
    names = [str(name) for name in plan.Study(options.options_of(asked)).names()]
    assert names[:2] == ["controls-fold1", "controls-fold2"]
    rows = ["default-fold{}-seed3", "default-fold{}-seed4", "seconds-fold{}-seed3"]
    assert sorted(names[2:]) == sorted(row.format(fold) for row in rows for fold in (1, 2))
    shortest = plan.Study(options.options_of(words(data, tmp_path)[2:]))
    assert (shortest.chosen, shortest.folds, shortest.options.seeds) == (["default"], ["1", "2"], [0, 1, 2])
    screened = plan.Study(options.options_of([*asked, "--screen"]))
    assert screened.folds == ["1"] and screened.results.is_relative_to(tmp_path / "out")


def test_what_cannot_be_done_is_told_at_once_in_one_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(STUDY), *sys.path])
    options, plan = importlib.import_module("options"), importlib.import_module("plan")
    made = tmp_path / "results" / "tiny" / "default-fold1-seed0.json"
    made.parent.mkdir(parents=True)
    made.write_text(json.dumps({"format": "keystep-study", "version": 1, "settings_hash": "other"}))
    for more, said in (
        (("--confirm", "base"), "no variant 'base'; there are default, "),
        (("--shares", 15), "--shares 15: give shares between 0 and 1"),
        (("--heads", "tall"), "--heads tall: no temporal head"),
        (("--set", "train.step=1"), "unknown setting train.step"),
        ((), r"made with other settings \(other\) than now"),
    ):
        with pytest.raises(InputError, match=said):
            plan.Study(options.options_of(words(data, tmp_path, *more)[2:])).check()
    plan.Study(options.options_of(words(data, tmp_path, "--keep-older")[2:])).check()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_no_child_outlives_the_study(data: Path, tmp_path: Path, number: int) -> None:
    command = words(data, tmp_path, "--confirm", "default", "--seeds", 0, "--folds", 1, "--set", "train.steps=100000")
    controls = tmp_path / "results" / "tiny" / "controls-fold1.json"
    controls.parent.mkdir(parents=True)
    controls.write_text(json.dumps({"format": "keystep-study", "version": 1, "settings_hash": None}))
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    run = tmp_path / "out" / "tiny" / "default-fold1-seed0"
    wait_for(lambda: (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").stat().st_size > 500, 280)
    running.send_signal(number)
    running.communicate(timeout=120)  # the child holds the pipes until it ends
    wait_for(lambda: not alive(running.pid), 60)
    assert list(run.glob("checkpoints/step-*")), "the child was let to save its training"
    assert (tmp_path / "out" / "tiny" / "default-fold1-seed0.cpu.json").exists()


def alive(group: int) -> bool:
    """Whether any process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(happened: object, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not happened():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
