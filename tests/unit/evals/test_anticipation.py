"""Measures of the tasks ``anticipate`` and ``remaining``, by hand; rows, gains and files by `keystep.evaluate`."""

from pathlib import Path

import numpy as np
import pytest

import keystep
from keystep.errors import InputError
from keystep.evals.anticipation import Anticipate, Remaining
from keystep.evals.bootstrap import RatioSums, paired_ratios
from keystep.evals.task import VideoScores
from keystep.foresight import load_forecaster


def test_averages_over_kinds_leave_out_those_that_do_not_occur() -> None:
    parts, wholes = np.array([[1.0, 1.0], [3.0, 0.0], [0.0, 0.0]]), np.array([[2.0, 2.0], [4.0, 0.0], [0.0, 0.0]])
    assert VideoScores(parts, wholes, 100).value == pytest.approx(100 * (0.5 + 0.75) / 2)
    sums = RatioSums(parts[:, None], wholes[:, None])
    drawn = sums.scores(np.array([[0.0, 2.0], [2.0, 0.0]]))  # without the first video, the second kind is gone
    assert drawn[:, 0] == pytest.approx([0.5, 0.625])


def test_gains_of_errors_are_positive_where_they_are_smaller() -> None:
    errors, ones = np.array([[1.0, 2.0, 3.0]]), np.ones((1, 3))
    found = paired_ratios(RatioSums(errors, ones), RatioSums(errors + 1, ones), scale=-1.0)
    assert (found.mean, found.low, found.high) == pytest.approx((1, 1, 1))


def test_measures_of_a_representation_that_shows_the_future(shared_mstcn: Path) -> None:
    folder = keystep.open_dataset(shared_mstcn, source_rate=1)
    shown = {}
    for name in folder.videos:
        labels, count = folder.labels(name), len(folder.labels(name))
        later = np.concatenate([labels[3:], [3, 3, 3]])
        shown[name] = np.concatenate([np.eye(3)[labels], np.eye(4)[later]], axis=1, dtype=np.float32)
        assert count == len(shown[name])
    said = Anticipate(horizons=(3.0,)).score(shown, folder, folder.split("1"))
    own = {measure: score.value for measure, score in said.own.items()}
    held = {measure: score.value for measure, score in said.controls["step held"].items()}
    assert own["3 s: top-1"] == own["3 s: class mean"] == own["3 s: recall@1 before start"] == 100
    assert held["3 s: recall@1 before start"] == 0 < held["3 s: top-1"] < 100
    assert list(said.controls) == ["step held", "Markov chain"]
    tested = folder.split("1").test
    moving = [(folder.labels(name)[3:] == folder.labels(name)[:-3]) for name in tested]
    assert held["3 s: top-1"] == pytest.approx(100 * np.concatenate(moving).mean())


def test_horizons_below_a_slot_are_left_out(shared_mstcn: Path) -> None:
    folder = keystep.open_dataset(shared_mstcn, source_rate="0.25")
    raw = {name: folder.vectors(name) for name in folder.videos}
    said = Anticipate().score(raw, folder, folder.split("1"))
    assert list(said.own)[::3] == ["5 s: top-1", "15 s: top-1", "60 s: top-1", "next step: top-1"]


def test_the_clock_alone_foresees_videos_of_one_length(shared_mstcn: Path) -> None:
    folder = keystep.open_dataset(shared_mstcn, source_rate=1)
    controls = Remaining().controls(folder, folder.split("1"))
    # training videos take 20, 25 and 30 s, test videos 40 and 45 s
    off = [np.abs(np.arange(count - 1, -1, -1) - np.maximum(25 - np.arange(count), 0)) for count in (40, 45)]
    assert controls["median - elapsed"]["MAE (min)"].value == pytest.approx(np.mean([x.mean() for x in off]) / 60)
    assert list(controls) == ["median - elapsed", "elapsed time"]


@pytest.mark.parametrize("task", ["anticipate", "remaining"])
def test_built_in_tasks_have_rows_gains_and_forecasters(
    task: str, shared_mstcn: Path, make_model: object, tmp_path: Path
) -> None:
    folder = keystep.open_dataset(shared_mstcn, source_rate=1)
    model = make_model({"kind": "causal"}, input_dim=6)  # type: ignore[operator]
    settings = {"probe": {"penalties": [0.01]}}
    results = keystep.evaluate(folder, {"ours": model}, task=task, quick=True, config=settings, out=tmp_path / "out")
    (table,) = results.record["task_tables"]
    names = {row["name"]: row["control"] for row in table["rows"]}
    assert {row["mode"] for row in table["rows"]} == {"causal"}
    assert not names["ours"] and names["raw features"] and names["best control"]
    if task == "anticipate":
        assert names["Markov chain, ours"] and names["step held, raw features"]
    else:
        assert names["median - elapsed"] and names["elapsed time"]
    assert {line["first"] for line in table["gains"]} == {"ours"}
    assert all(names[line["second"]] and line["verdict"] == "quick look" for line in table["gains"])
    (path,) = (tmp_path / "out" / "foresight").iterdir()
    assert path.name == "ours-causal-seed0.safetensors"
    assert load_forecaster(path).origin["weights"] == model.fingerprint
    assert "gain over the strongest control" in results.table()
    again = keystep.evals.results.Results.load(tmp_path / "out")
    assert list(again.forecasters) == ["ours-causal-seed0"]


def test_the_future_is_not_foreseen_from_the_whole_video(shared_mstcn: Path) -> None:
    with pytest.raises(InputError, match="task anticipate is judged causal, not offline; add that mode"):
        keystep.evaluate(shared_mstcn, task="anticipate", modes=["offline"])
