"""Every recipe of a data set runs from a downloaded tree to a report, goes on where it stopped, and keeps its word."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from release import regular_times, surgical
from takes import egoexo4d
from trees import RECORDINGS, assembly101, fact_tree, mstcn, write_arrays

from keystep.config.base import assignments, build
from keystep.data.folder import open_dataset
from keystep.errors import InputError
from keystep.recipe import Recipe, plan, read_recipe

FOLDER = Path(__file__).parents[2] / "recipes"
Run = Callable[..., tuple[int, str, str]]
SMALL = ("model.dim=16", "model.heads=2", "model.depth=1", "train.crop=32", "train.batch_size=2", "train.accumulate=1")
QUICK = ("probe.penalties=[0.01]",)


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


def options(settings: tuple[str, ...], evaluation: tuple[str, ...]) -> list[str]:
    return [word for text in settings for word in ("--set", text)] + [
        word for text in evaluation for word in ("--eval-set", text)
    ]


@pytest.mark.parametrize("name", TREES)
def test_a_recipe_goes_from_a_downloaded_tree_to_a_report(keystep: Run, name: str, tmp_path: Path) -> None:
    recipe = read_recipe(FOLDER / f"{name}.yaml")
    root, out = tmp_path / "download", tmp_path / "run"
    TREES[name](root)
    command = ("--root", root, "--out", out, "--steps", 2, "--models", "pjepa", *options(SMALL, QUICK))
    status, said, error = keystep("run", FOLDER / f"{name}.yaml", *command)
    assert status == 0, error
    result = json.loads((out / "results" / "result.json").read_text())
    assert (out / "results" / "report.html").exists()
    assert any(row["name"] == "pjepa" for row in result["rows"])
    settings = (out / "pjepa-seed0" / "config.yaml").read_text()
    assert "steps: 2" in settings and f"split: '{recipe.split}'" in settings
    assert (out / "data").exists() == recipe.convert
    assert "differs" in said, "a tree this small is not the published one"


@pytest.mark.parametrize("name", ["egoprocel", "egoexo4d"])
def test_a_recipe_puts_the_papers_rows_beside_its_own(keystep: Run, name: str, tmp_path: Path) -> None:
    root, out = tmp_path / "download", tmp_path / "run"
    TREES[name](root)
    small = {"attentive": "{dim: 32, window: 8, chunk: 4}", "context": "{dim: 16, stages: 1, layers: 2}"}
    used = ("attentive", "context") if name == "egoprocel" else ("attentive",)
    heads = f"head_settings={{{', '.join(f'{head}: {small[head]}' for head in used)}}}"
    suite = [word for text in ("training.epochs=1", "seeds=1", heads) for word in ("--suite-set", text)]
    command = ("--root", root, "--out", out, "--steps", 2, "--models", "pjepa", "--suite", "paper")
    status, _, error = keystep("run", FOLDER / f"{name}.yaml", *command, *options(SMALL, QUICK), *suite)
    assert status == 0, error
    report = (out / "results" / "report.html").read_text()
    assert "Quoted, not run here" in report and "pjepa" in report
    if name == "egoprocel":
        assert "76.8" in report and "(ORACLE: boundaries known)" in report and "accuracy, foreground" in report
    else:
        assert "56.85" in report and "each clip alone" in report and "context cut off" in report
        submission = out / "results" / "submissions" / "attentive-pjepa-causal-seed0.json"
        assert len(json.loads(submission.read_text())["segments"]) == 3


@pytest.fixture
def gtea(tmp_path: Path) -> Path:
    """The root of a small download."""
    mstcn(tmp_path / "in", ("background", "take", "open"))
    return tmp_path / "in"


RECIPE = build(Recipe, {"data_set": "gtea", "convert": False, "models": {"pjepa": {"settings": assignments([*SMALL])}}})


def test_a_second_call_goes_on_and_other_settings_are_refused(gtea: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = plan(RECIPE, gtea, out, steps=2, evaluation=QUICK).run()
    weights = (first.runs["pjepa"][0] / "model" / "model.safetensors").stat().st_mtime_ns
    again = plan(RECIPE, gtea, out, steps=2, seeds=2, evaluation=QUICK).run()
    assert (again.runs["pjepa"][0] / "model" / "model.safetensors").stat().st_mtime_ns == weights
    assert again.results is not None
    judged = json.loads((again.results / "result.json").read_text())["models"]
    assert [(model["name"], model["seed"]) for model in judged] == [("pjepa", 0), ("pjepa", 1)]
    for other in ({"steps": 3}, {"split": "2", "steps": 2}):
        with pytest.raises(InputError, match="was made with other settings"):
            plan(RECIPE, gtea, out, **other)  # type: ignore[arg-type]


def test_what_can_claim_nothing_says_so_before_it_trains(gtea: Path, tmp_path: Path) -> None:
    def warned(recipe: Recipe, seeds: int) -> str:
        return " ".join(plan(recipe, gtea, tmp_path / "out", seeds=seeds).warnings)

    assert "1 seed: nothing can be claimed of the result; a claim needs --seeds 3" in warned(RECIPE, 1)
    assert "nothing is judged" in warned(RECIPE.model_copy(update={"split": None}), 3)
    assert warned(RECIPE, 3) == ""


def test_a_feature_folder_needs_no_preparing_and_without_a_split_nothing_is_judged(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    settings = {"source_rate": 4, "split": None, "models": {"pjepa": {"settings": assignments([*SMALL])}}}
    done = plan(build(Recipe, settings), make_folder(), tmp_path / "out", steps=2).run()
    assert done.results is None and (done.runs["pjepa"][0] / "model" / "config.json").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--models", "jepa"], "no model 'jepa'; there are pjepa"),
        (["--seeds", "0"], "--seeds 0: no model to train; give 1 or more"),
        (["--suite-set", "seeds=1"], "--suite-set 'seeds=1' without --suite"),
        (["--suite", "papre"], "unknown --suite 'papre'; expected one of paper"),
        (["--suite", "paper", "--suite-set", "training.epoch=1"], "unknown setting training.epoch (did you mean"),
        (["--eval-set", "probe.penaltys=1"], "evaluation: unknown setting probe.penaltys (did you mean"),
        (["--set", "train.step=1"], "unknown setting train.step (did you mean"),
        (["--prepare-set", "evry=2"], "unknown setting evry (did you mean every?)"),
        (["--root", "nowhere"], "nowhere: no such"),
        (["--root", "EMPTY"], "gtea is incomplete"),
    ],
)
def test_what_cannot_work_fails_before_anything_is_written(
    keystep: Run, gtea: Path, tmp_path: Path, more: list[str], said: str
) -> None:
    (tmp_path / "empty").mkdir()
    more = [str(tmp_path / "empty") if word == "EMPTY" else word for word in more]
    status, _, error = keystep("run", FOLDER / "gtea.yaml", "--root", gtea, "--out", tmp_path / "out", *more)
    assert status == 2 and said in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modles: {pjepa: {}}", "unknown setting modles (did you mean models?)"),
        ("models: {pjepa: {preset: tyni}}", "unknown preset 'tyni'"),
        ("models: {pjepa: {settings: {train: {setps: 1}}}}", "unknown setting train.setps (did you mean steps?)"),
        ("- models", "expected a mapping of names to values"),
        ("{data_set: gtea, source_rate: 4, models: {pjepa: {}}}", "leave it out"),
    ],
)
def test_a_typo_in_a_recipe_is_one_line_that_names_the_file(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError) as refused:
        read_recipe(tmp_path / "mine.yaml")
    assert str(refused.value).startswith(str(tmp_path / "mine.yaml")) and said in str(refused.value)


def test_a_name_of_a_control_and_a_folder_of_an_earlier_version_are_refused(gtea: Path, tmp_path: Path) -> None:
    raw = build(Recipe, {"data_set": "gtea", "convert": False, "models": {"raw": {}}})
    with pytest.raises(InputError, match=r"models\.raw: this name stands for a control"):
        plan(raw, gtea, tmp_path / "out")
    (tmp_path / "recipe.json").write_text('{"data": {}, "rows": {}}')
    with pytest.raises(InputError, match="an earlier version of keystep made this folder"):
        plan(RECIPE, gtea, tmp_path)


def test_options_of_the_data_set_come_from_the_command_line(gtea: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan(RECIPE, gtea, out, steps=2, evaluation=QUICK, options=("every=3",)).run()
    assert open_dataset(out / "data").timeline.rate == 5
    assert json.loads((out / "recipe.json").read_text())["data"]["options"] == {"every": 3}
    with pytest.raises(InputError, match=r"was made with other settings \(data\)"):
        plan(RECIPE, gtea, out, steps=2)
