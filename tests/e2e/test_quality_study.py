"""The parts of benchmarks/quality that can be wrong without showing: its variants, and how folds are put together."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from keystep.config import RunConfig
from keystep.config.base import build
from keystep.data.synthetic import SyntheticConfig, generate
from keystep.evals.bootstrap import paired_bootstrap

STUDY = Path(__file__).parents[2] / "benchmarks" / "quality"
VARIANTS = yaml.safe_load((STUDY / "variants.yaml").read_text())


@pytest.fixture(autouse=True)
def study_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(STUDY), *sys.path])


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_a_run_that_differs_from_the_base(name: str) -> None:
    data = {"data": {"root": "DATA"}}
    assert (build(RunConfig, data, VARIANTS[name]) == build(RunConfig, data)) == (name == "base")


def row(name: str, family: str, correct: list[list[int]], frames: list[int]) -> dict:
    runs = []
    for seed, counts in enumerate(correct):
        scores = dict.fromkeys(("accuracy", "edit", "f1@50"), 100 * sum(counts) / sum(frames))
        runs.append({"seed": seed, "correct": counts, "scores": scores})
    return {"name": name, "mode": "offline", "family": family, "runs": runs}


def result(frames: list[int], ours: list[list[int]], rivals: dict[str, list[list[int]]], chosen: str) -> dict:
    """One fold's result file, as far as the study reads it; validation chose one of the rivals."""
    rows = [row("ours", "learned", ours, frames), *(row(n, "control", c, frames) for n, c in rivals.items())]
    line = {"claim": "alone, against the best smoothing", "mode": "offline", "first": "ours", "second": chosen}
    line["later"] = False
    return {
        "rows": rows,
        "pairs": [line],
        "data": {"test_frames": frames, "test_videos": [f"v{count}" for count in frames]},
    }


def test_folds_are_compared_video_by_video_against_the_rival_that_each_chose() -> None:
    from folds import mean_scores, pooled_gate

    rng = np.random.default_rng(0)
    frames = [[100, 80, 120], [90, 110]]
    ours, a, b = ([rng.integers(20, 80, (3, len(f))).tolist() for f in frames] for _ in range(3))
    results = [
        result(frames[fold], ours[fold], {"a": a[fold][:1], "b": b[fold][:1]}, chosen)
        for fold, chosen in enumerate("ab")
    ]
    (line,) = pooled_gate(results)
    assert line.rivals == ("a", "b")
    rival = np.concatenate([a[0][:1], b[1][:1]], axis=1)
    assert line.difference == paired_bootstrap(np.concatenate(ours, axis=1), rival, np.concatenate(frames))
    assert pooled_gate(results, without={"v100", "v80", "v120", "v90"}) == [], "one video is left: no interval"
    (fewer,) = pooled_gate(results, without={"v80", "v90"})
    left = [0, 2, 4]
    assert fewer.difference == paired_bootstrap(
        np.concatenate(ours, axis=1)[:, left], rival[:, left], np.concatenate(frames)[left]
    )
    results[1]["pairs"][0]["later"] = True
    (waits,) = pooled_gate(results)
    assert not line.later and waits.later and not waits.holds, "one fold that waits longer is no fair win"
    scores = {score.name: score for score in mean_scores(results)}
    by_seed = [[100 * sum(ours[fold][seed]) / sum(frames[fold]) for seed in range(3)] for fold in range(2)]
    assert scores["ours"].mean["accuracy"] == pytest.approx(np.mean(by_seed))
    assert scores["ours"].spread["accuracy"] == pytest.approx(np.mean(by_seed, axis=0).std(ddof=1))


def test_the_best_variant_is_so_in_both_modes_together() -> None:
    from screening import best_variant

    scores = {
        "one": {"offline": {"alone": 70.0}, "causal": {"alone": 50.0}},
        "two": {"offline": {"alone": 65.0}, "causal": {"alone": 60.0}},
        "offline only": {"offline": {"alone": 90.0}},
    }
    assert best_variant(scores, list(scores)) == "two"


def test_the_command_screens_a_folder_that_it_has_never_seen_and_does_nothing_twice(tmp_path: Path) -> None:
    small = {"train_videos": 3, "valid_videos": 2, "test_videos": 2, "feature_dim": 8, "max_frames": 220}
    generate(tmp_path / "data", SyntheticConfig(min_frames=200, **small))
    variants = {"base": {}, "reconstruction": VARIANTS["reconstruction"]}
    (tmp_path / "variants.yaml").write_text(yaml.safe_dump(variants))
    settings = ("train.steps=3", "train.crop=64", "model.dim=16", "model.depth=1", "model.heads=2")
    command = [
        *(sys.executable, STUDY, tmp_path / "data", "--out", tmp_path / "out", "--jobs", 2, "--seeds", 0),
        *("--variants", tmp_path / "variants.yaml", "--screen-only"),
        *(word for setting in settings for word in ("--set", setting)),
    ]
    first, again, other, unknown = (
        subprocess.run([str(word) for word in [*command, *more]], capture_output=True, text=True)
        for more in ([], [], ["--set", "train.steps=4"], ["--confirm", "bse"])
    )
    assert first.returncode == again.returncode == 0, first.stderr
    table = (tmp_path / "out" / "screen.md").read_text()
    assert "2 variants tried" in table and "| base |" in table and "*nine offsets* (control)" in table
    assert (tmp_path / "out" / "screen.png").stat().st_size > 10_000
    assert again.stdout == first.stdout
    assert other.returncode and "holds a run with other settings; choose another --out" in other.stderr
    assert unknown.returncode and "no variant 'bse'; there are base, reconstruction" in unknown.stderr
    assert "Traceback" not in other.stderr + unknown.stderr
