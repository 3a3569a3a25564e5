"""Every recipe of a data set runs from a downloaded tree to a report, goes on where it stopped, and keeps its word."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from release import regular_times, surgical
from rich.console import Console
from takes import egoexo4d
from trees import RECORDINGS, assembly101, fact_tree, mstcn, write_arrays

from keystep.cli.recipe import Recipe, Row, Wanted, main, run_recipe
from keystep.config.presets import PRESETS
from keystep.data.folder import open_dataset
from keystep.errors import InputError

FOLDER = Path(__file__).parents[2] / "recipes"
RECIPES = sorted(path for path in FOLDER.glob("*.py"))
SMALL = ("model.dim=16", "model.heads=2", "model.depth=1", "train.crop=32", "train.batch_size=2", "train.accumulate=1")
QUICK = ("probe.epochs=1", "probe.min_steps=5", "probe.learning_rates=[0.01]", "probe.weight_decays=[0.0]")


def of_assembly101(root: Path) -> None:
    assembly101(root)
    write_arrays(root, ["C10119_rgb"], dict.fromkeys(RECORDINGS, 150))


def of_cholec80(root: Path) -> None:
    root.mkdir()
    videos = {f"video{number:02d}": regular_times(30, 1.0) for number in (1, 2, 33, 41, 42)}
    labels = np.tile(np.repeat([0, 1, 2], 10), len(videos)).tolist()
    torch.save(surgical(videos, labels), root / "cholec80_pl_stitch_vitb16_1fps.pt")


def of_m2cai16(root: Path) -> None:
    root.mkdir()
    videos = {f"workflow_video_{number:02d}": regular_times(30, 1.0) for number in range(1, 6)}
    payload = surgical(videos, np.tile(np.repeat([0, 1, 2], 10), 5).tolist(), dataset="m2cai16")
    payload["source_splits"] = ["train"] * 3 + ["test"] * 2
    torch.save(payload, root / "m2cai16_pl_stitch_vitb16_1fps.pt")


def of_egoprocel(root: Path) -> None:
    fact_tree(root.parent).rename(root)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrow features and no pictures: both have tests of their own."""
    monkeypatch.setattr("trees.WIDTH", 32)
    monkeypatch.setattr("keystep.datasets.frame_features.WIDTH", 32)
    monkeypatch.setattr("keystep.evals.report.draw_all", lambda *given: {})


TREES: dict[str, Callable[[Path], object]] = {
    "assembly101": of_assembly101,
    "breakfast": lambda root: mstcn(root, ("SIL", "pour milk", "stir")),
    "salads50": lambda root: mstcn(root / "50salads", ("action_start", "action_end", "cut")),
    "gtea": lambda root: mstcn(root, ("background", "take", "open")),
    "cholec80": of_cholec80,
    "m2cai16": of_m2cai16,
    "egoprocel": of_egoprocel,
    "egoexo4d": egoexo4d,
}


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def options(settings: tuple[str, ...], evaluation: tuple[str, ...]) -> list[str]:
    return [word for text in settings for word in ("--set", text)] + [
        word for text in evaluation for word in ("--eval-set", text)
    ]


@pytest.mark.parametrize("name", TREES)
def test_a_recipe_goes_from_a_downloaded_tree_to_a_report(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load(name).RECIPE
    root, out = tmp_path / "download", tmp_path / "run"
    TREES[name](root)
    command = ["--root", str(root), "--out", str(out), "--steps", "2", "--rows", "pjepa", *options(SMALL, QUICK)]
    main(recipe, command)
    result = json.loads((out / "results" / "result.json").read_text())
    assert (out / "results" / "report.html").exists()
    assert any(row["name"] == "pjepa" for row in result["rows"])
    settings = (out / "pjepa-seed0" / "config.yaml").read_text()
    assert "steps: 2" in settings and f"split: '{recipe.split}'" in settings
    assert (out / "data").exists() == recipe.copy
    said = capsys.readouterr().out
    assert "differs" in said, "a tree this small is not the published one"


@pytest.mark.parametrize("name", ["egoprocel", "egoexo4d"])
def test_a_recipe_puts_the_papers_rows_beside_its_own(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load(name).RECIPE
    root, out = tmp_path / "download", tmp_path / "run"
    TREES[name](root)
    small = {"attentive": "{dim: 32, window: 8, chunk: 4}", "context": "{dim: 16, stages: 1, layers: 2}"}
    used = ("attentive", "context") if name == "egoprocel" else ("attentive",)
    heads = f"head_settings={{{', '.join(f'{head}: {small[head]}' for head in used)}}}"
    suite = ("training.epochs=1", "seeds=1", heads)
    command = ["--root", str(root), "--out", str(out), "--steps", "2", "--rows", "pjepa", "--suite", "paper"]
    evaluation = [word for text in suite for word in ("--suite-set", text)]
    main(recipe, [*command, *options(SMALL, QUICK), *evaluation])
    report = (out / "suite" / "report.md").read_text()
    assert "Quoted, not run here" in report and "pjepa" in report
    if name == "egoprocel":
        assert "76.8" in report and "(ORACLE: boundaries known)" in report and "accuracy_foreground" in report
    else:
        assert "56.85" in report and "each clip alone" in report and "context cut off" in report
        (submission,) = (out / "suite").glob("suite_heads/attentive-pjepa-causal-seed0/submission.json")
        assert len(json.loads(submission.read_text())["segments"]) == 3


def test_recipes_are_settings_that_hold_for_their_data_sets() -> None:
    for path in RECIPES:
        module = load(path.stem)
        recipe: Recipe = module.RECIPE
        assert "pjepa" in recipe.rows and all(row.preset in PRESETS for row in recipe.rows.values())
        assert f"python recipes/{path.name} --root DIR --out" in (module.__doc__ or "")


def test_a_second_call_goes_on_and_other_settings_are_refused(tmp_path: Path) -> None:
    mstcn(tmp_path / "in", ("background", "take", "open"))
    recipe = Recipe("gtea", {"pjepa": Row("tiny", SMALL)}, copy=False)
    wanted = Wanted(tmp_path / "in", tmp_path / "out", steps=2, evaluation=QUICK)
    console = Console(quiet=True)
    run_recipe(recipe, wanted, console)
    weights = (tmp_path / "out" / "pjepa-seed0" / "model" / "model.safetensors").stat().st_mtime_ns
    more = Wanted(tmp_path / "in", tmp_path / "out", steps=2, seeds=2, evaluation=QUICK)
    result = run_recipe(recipe, more, console)
    assert (tmp_path / "out" / "pjepa-seed0" / "model" / "model.safetensors").stat().st_mtime_ns == weights
    judged = json.loads((result / "result.json").read_text())["models"]
    assert [(model["name"], model["seed"]) for model in judged] == [("pjepa", 0), ("pjepa", 1)]
    for other in (
        Wanted(tmp_path / "in", tmp_path / "out", steps=3),
        Wanted(tmp_path / "in", tmp_path / "out", split="2"),
    ):
        with pytest.raises(InputError, match="was made with other settings"):
            run_recipe(recipe, other, console)


def test_an_unknown_row_and_an_incomplete_tree_end_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe("gtea", {"pjepa": Row("tiny")}, copy=False)
    for more, said in ((["--rows", "jepa"], "no row 'jepa'; there are pjepa"), ([], "gtea is not all there")):
        with pytest.raises(SystemExit) as stopped:
            main(recipe, ["--root", str(tmp_path), "--out", str(tmp_path / "out"), *more])
        assert stopped.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--seeds", "0"], "--seeds 0: no model to train; give 1 or more"),
        (["--suite-set", "seeds=1"], "--suite-set 'seeds=1' without --suite"),
        (["--suite", "papre"], "--suite 'papre' is none of paper"),
        (["--suite", "paper", "--suite-set", "training.epoch=1"], "unknown setting training.epoch (did you mean"),
        (["--eval-set", "probe.epoch=1"], "unknown setting probe.epoch (did you mean"),
        (["--set", "train.step=1"], "unknown setting train.step (did you mean"),
        (["--prepare-set", "evry=2"], "unknown setting evry (did you mean every?)"),
        (["--root", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_what_cannot_work_fails_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    mstcn(tmp_path / "in", ("background", "take", "open"))
    recipe = Recipe("gtea", {"pjepa": Row("tiny", SMALL)}, copy=False)
    with pytest.raises(SystemExit) as stopped:
        main(recipe, ["--root", str(tmp_path / "in"), "--out", str(tmp_path / "out"), *more])
    assert stopped.value.code == 2 and said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_options_of_the_data_set_come_from_the_command_line(tmp_path: Path) -> None:
    mstcn(tmp_path / "in", ("background", "take", "open"))
    recipe = Recipe("gtea", {"pjepa": Row("tiny", SMALL)}, copy=False)
    command = {"steps": 2, "evaluation": QUICK, "preparation": ("every=3",)}
    run_recipe(recipe, Wanted(tmp_path / "in", tmp_path / "out", **command), Console(quiet=True))  # type: ignore[arg-type]
    assert open_dataset(tmp_path / "out" / "data").timeline.rate == 5
    assert json.loads((tmp_path / "out" / "recipe.json").read_text())["data"]["options"] == ["every=3"]
    with pytest.raises(InputError, match=r"was made with other settings \(data\)"):
        run_recipe(recipe, Wanted(tmp_path / "in", tmp_path / "out", steps=2), Console(quiet=True))
