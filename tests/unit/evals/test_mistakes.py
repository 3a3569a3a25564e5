"""Claims about the task ``mistakes``: what it is fitted on, that it is live, and that its tables can be read again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import keystep
from keystep.data.folder import open_dataset
from keystep.data.made_runs import RunsConfig, generate_runs
from keystep.data.mistakes import Mistake, write_mistakes
from keystep.errors import InputError
from keystep.evals.entrants import make_entrants, open_judge
from keystep.evals.judging import judge_all
from keystep.evals.mistake_monitor import joined
from keystep.evals.mistakes import TRUE_ORDER, Intervals, MistakeStudy, judge_mistakes, missed, strongest
from keystep.evals.protocol import EvalConfig, Evaluation
from keystep.evals.results import Results
from keystep.pjepa import PJEPA

CONFIG = EvalConfig.model_validate({"probe": {"penalties": [0.01]}})
WIDTH = 6


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs") / "data"
    sizes = {
        "train_videos": 16,
        "valid_videos": 4,
        "test_videos": 8,
        "most_mistakes": 5,
        "steps": 8,
        "step_seconds": 3.0,
        "rate": 2.0,
    }
    generate_runs(root, RunsConfig.model_validate({**sizes, "feature_dim": WIDTH}))
    return root


@pytest.fixture(scope="module")
def model(make_model: Callable[..., PJEPA]) -> PJEPA:
    return make_model({"kind": "causal"}, input_dim=WIDTH)


@pytest.fixture(scope="module")
def judged(runs: Path, model: PJEPA) -> tuple[Evaluation, MistakeStudy]:
    entrants = make_entrants([("small", [model])])
    judge = open_judge(open_dataset(runs), "1", CONFIG)
    evaluation = judge_all(judge, entrants, modes=("causal",), quick=True)
    return evaluation, judge_mistakes(evaluation, entrants)


def test_a_stream_in_chunks_is_judged_as_the_whole_video_is(
    judged: tuple[Evaluation, MistakeStudy], model: PJEPA
) -> None:
    evaluation, study = judged
    monitor = study.monitors["small", 0, ""]
    row = evaluation.find("small", "causal")
    assert row is not None and monitor.delay == 1.5  # a hidden stretch is 2 s, of 4 slots
    video = evaluation.judge.split.test[1]
    features = study.folder.features(video)
    scores = row.runs[0].probe.scores(keystep.encode(model, features, mode="causal"))
    whole = monitor.of_video(features, scores)
    state, parts = monitor.begin(), []
    for start in range(0, len(features), 3):
        said, state = monitor.step(features[start : start + 3], scores[start : start + 3], state)
        parts.append(said)
        assert len(joined(parts).both) >= start + 3 - 3 - 3  # never more than the delay behind
    chunks = joined([*parts, monitor.finish(state)])
    for name in ("steps", "error", "order", "both"):
        np.testing.assert_array_equal(getattr(chunks, name), getattr(whole, name))
        assert len(getattr(whole, name)) == len(features)


def test_the_table_holds_what_the_stream_says(judged: tuple[Evaluation, MistakeStudy], model: PJEPA) -> None:
    from keystep.evals.calibration import deviations
    from keystep.evals.detection import Detection

    evaluation, study = judged
    monitor, row = study.monitors["small", 0, ""], evaluation.find("small", "causal")
    assert row is not None
    scores = {}
    for video in study.truths:
        features = study.folder.features(video)
        classes = row.runs[0].probe.scores(keystep.encode(model, features, mode="causal"))
        scores[video] = deviations(monitor.of_video(features, classes).both)
    live = Detection.of(scores, study.truths).measures()
    for measure, values in study.rows["error and order, small"].runs[0].measures().items():
        assert values[0] == pytest.approx(live[measure][0], abs=0.5)


def test_true_steps_are_judged_best_and_every_omission_is_missed_at_the_end(
    judged: tuple[Evaluation, MistakeStudy],
) -> None:
    _, study = judged
    oracle = study.rows["order, true steps (ORACLE)"]
    assert oracle.mean("AUC") > study.rows["clock"].mean("AUC") and oracle.mean("segment AP") > 20
    assert missed(study, oracle.name).scores()[0]["recall"] == 100
    assert strongest(study, "AUC").name != oracle.name


def test_a_difference_is_between_its_bounds_and_none_with_itself(judged: tuple[Evaluation, MistakeStudy]) -> None:
    _, study = judged
    clock, intervals = study.rows["clock"], Intervals(study)
    for row in study.rows.values():
        low, high = intervals.of(row, "AUC")
        assert low <= row.mean("AUC") <= high
        found = intervals.difference(row, clock, "AUC")
        assert found.low <= found.mean <= found.high and found.videos == 8
    same = intervals.difference(clock, clock, "EDA")
    assert (same.low, same.mean, same.high) == (0, 0, 0)


@pytest.fixture
def changed(runs: Path, tmp_path: Path) -> Path:
    shutil.copytree(runs, tmp_path / "changed")
    return tmp_path / "changed"


def test_runs_with_mistakes_may_not_train_and_test_runs_have_to_be_annotated(changed: Path) -> None:
    write_mistakes(changed, "video0002", [Mistake(0, 2, "unknown")])
    with pytest.raises(InputError, match="video0002 has mistakes, but split 1 trains"):
        MistakeStudy(open_judge(open_dataset(changed), "1", CONFIG))
    write_mistakes(changed, "video0002", [])
    (changed / "mistakes" / "video0021.csv").unlink()
    with pytest.raises(InputError, match=r"no mistakes/video0021\.csv"):
        MistakeStudy(open_judge(open_dataset(changed), "1", CONFIG))


def test_an_evaluation_has_both_tables_and_they_can_be_read_again(runs: Path, tmp_path: Path) -> None:
    out, config = tmp_path / "out", {"probe": {"penalties": [0.01]}}
    results = keystep.evaluate(runs, task="mistakes", modes=["causal"], quick=True, config=config, out=out)
    mistakes, omitted = json.loads((out / "result.json").read_text())["task_tables"]
    names = [row["name"] for row in mistakes["rows"]]
    assert {"clock", "change-point score, raw features", "order, raw features"} <= set(names)
    assert set(omitted["rows"][0]["runs"][0]["scores"]) == {"precision", "recall", "F1"}
    assert "Omitted steps" in results.table() and "clock, by step" in Results.load(out).table()
    assert "EDA as in EgoPER" in (out / "report.html").read_text()
    with pytest.raises(InputError, match="task mistakes is judged causal, not offline"):
        keystep.evaluate(runs, task="mistakes", modes=["offline"], quick=True, config=config)


def test_features_made_with_true_boundaries_mark_every_row_and_the_true_order_is_nobodys_control(
    runs: Path, tmp_path: Path
) -> None:
    shutil.copytree(runs, told := tmp_path / "told")
    store = json.loads((told / "store.json").read_text())
    store["provenance"] = {**(store.get("provenance") or {}), "oracle": "pooled in true segments"}
    (told / "store.json").write_text(json.dumps(store))
    judge = open_judge(open_dataset(told), "1", CONFIG)
    study = judge_mistakes(judge_all(judge, [], modes=("causal",), quick=True), [])
    assert all("(ORACLE)" in name for name in study.rows) and set(study.missing) <= set(study.rows)
    assert strongest(study, "AUC").name != TRUE_ORDER in study.rows
