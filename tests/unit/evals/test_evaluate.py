"""`keystep.evaluate`: one call, typed results."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from two_classes import write_data

import keystep
from keystep.config import ModelConfig
from keystep.config.base import build
from keystep.errors import InputError
from keystep.evals.probe import ProbeConfig
from keystep.evals.protocol import EvalConfig
from keystep.evals.results import Results
from keystep.heads import TrainingConfig

QUICK = EvalConfig(probe=ProbeConfig(penalties=(0.01,)), training=TrainingConfig(epochs=1), seeds=1)


def model(seed: int, **changes: object) -> keystep.PJEPA:
    torch.manual_seed(100 + seed)
    return keystep.PJEPA(build(ModelConfig, {"input_dim": 4, "dim": 16, "depth": 2, "heads": 2}, changes)).eval()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = write_data(tmp_path_factory.mktemp("evaluate") / "data")
    return keystep.open_dataset(root, source_rate=4, rate=2)


@pytest.fixture(scope="module")
def results(data: Any) -> Results:
    models = {"a": [model(0), model(1), model(2)], "b": model(3)}
    return keystep.evaluate(data, models, modes=["causal"], config=QUICK)


def test_results_answer_in_python(results: Results) -> None:
    assert "| a |" in results.table() and "Offline" not in results.table()
    records = results.to_records()
    assert {record["seed"] for record in records if record["name"] == "a"} == {0, 1, 2}
    assert all({"name", "head", "mode", "accuracy", "edit"} <= set(record) for record in records)
    assert repr(results).startswith("Results('data', split '1': ") and len(repr(results)) < 80
    assert '<table class="stack">' in results._repr_html_()


def test_any_two_rows_are_compared(results: Results) -> None:
    there, back = results.compare("a", "b"), results.compare("b", "a")
    assert there.mean == pytest.approx(-back.mean) and there.seeds == (3, 1) and there.videos == 3
    (line,) = (line for line in results.record["gate"] if (line["first"], line["second"]) == ("a", "b"))
    assert line["mean"] == there.mean and line["low"] == there.low
    hardest = max(
        sum(row["runs"][0]["correct"]) for row in results.record["rows"] if row["family"] in ("raw", "control")
    )
    strongest = results.compare("raw features", "best control")
    right = sum(next(row for row in results.record["rows"] if row["family"] == "raw")["runs"][0]["correct"])
    assert strongest.mean == pytest.approx(100 * (right - hardest) / sum(results.record["data"]["test_frames"]))
    with pytest.raises(InputError, match="no rows 'a' and 'c'"):
        results.compare("a", "c")


def test_results_are_written_once_and_read_again(results: Results, data: Any, tmp_path: Path) -> None:
    page = results.report(tmp_path / "out")
    assert page.read_text().startswith("<!doctype html>")
    assert Results.load(tmp_path / "out").record == results.record
    with pytest.raises(InputError, match="holds a result already; give --overwrite"):
        keystep.evaluate(data, {"a": model(0)}, config=QUICK, out=tmp_path / "out")
    again = keystep.evaluate(data, {"a": model(0)}, config=QUICK, out=tmp_path / "out", quick=True, overwrite=True)
    assert Results.load(tmp_path / "out").record["rows"] == again.record["rows"]


def test_temporal_heads_stand_beside_the_probe(data: Any) -> None:
    small = QUICK.model_copy(update={"head_settings": {"mstcn": {"maps": 8, "layers": 2, "refinements": 1}}})
    found = keystep.evaluate(data, {"a": model(0)}, heads=["linear", "mstcn"], modes=["causal"], config=small)
    heads = {(record["head"], record["name"]) for record in found.to_records()}
    assert {("linear", "a"), ("mstcn", "a"), ("mstcn", "raw features"), ("mstcn", "best control")} <= heads
    assert {"a-causal-seed0", "mstcn-a-causal-seed0"} == found.heads.keys()
    assert "Temporal heads. Causal" in found.table()
    gain = found.compare("a", "best control", head="mstcn")
    (line,) = (
        line for line in found.record["head_gains"] if (line["second"], line["metric"]) == ("best control", "accuracy")
    )
    assert (gain.mean, gain.low, gain.high) == (line["mean"], line["low"], line["high"])
    with pytest.raises(InputError, match="no rows 'a' and 'b' in mode offline or causal; expected raw features, best"):
        found.compare("a", "b", head="mstcn")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "anticipation"}, "unknown task 'anticipation'; did you mean anticipate?"),
        ({"heads": ["forest"]}, "unknown head 'forest'; expected one of linear, "),
        ({"models": {"raw": model(0)}}, "stands for a control"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(data: Any, options: dict[str, Any], message: str) -> None:
    models = options.pop("models", {"a": model(0)})
    with pytest.raises(InputError, match=re.escape(message)):
        keystep.evaluate(data, models, config=QUICK, **options)


def test_a_model_of_another_rate_is_refused_and_its_own_is_taken(data: Any, tmp_path: Path) -> None:
    root = write_data(tmp_path / "data")
    runs = {}
    for rate in (2, 4):
        settings = {"data": {"root": root, "source_rate": 4, "rate": rate}, "train": {"steps": 1, "crop": 16}}
        small = {"model": {"dim": 16, "depth": 1, "heads": 2}}
        runs[rate] = keystep.pretrain(build(keystep.RunConfig, settings, small), out=tmp_path / f"run{rate}")
    with pytest.raises(InputError, match=r"was trained at 4 Hz, but the data are read at 2 Hz; omit --rate"):
        keystep.evaluate(data, {"other": runs[4]}, config=QUICK)
    with pytest.raises(InputError, match="evaluate them separately"):
        keystep.evaluate(root, {"a": runs[2], "b": runs[4]}, config=QUICK)


def test_a_result_that_was_read_again_keeps_its_heads(results: Results, tmp_path: Path) -> None:
    results.save(tmp_path / "out")
    again = Results.load(tmp_path / "out")
    assert again.heads.keys() == results.heads.keys() and results.heads
    again.save(tmp_path / "out")
    assert Results.load(tmp_path / "out").heads.keys() == results.heads.keys()


def test_probes_of_models_that_differ_in_settings_without_weights_are_kept_apart(data: Any, tmp_path: Path) -> None:
    """Their untrained twins have the same weights, and are other encoders."""
    models = {"a": model(0), "b": model(0, heads=1)}
    assert models["a"].fingerprint == models["b"].fingerprint
    alone = keystep.evaluate(data, models, modes=["causal"], config=QUICK)
    kept = keystep.evaluate(data, models, modes=["causal"], config=QUICK, out=tmp_path / "out")
    assert kept.record["rows"] == alone.record["rows"]


def test_a_quick_look_leaves_no_note_behind(data: Any) -> None:
    before = list(data.problems.notes)
    looked = keystep.evaluate(data, {"a": model(0)}, modes=["causal"], config=QUICK, quick=True)
    assert any("quick" in note for note in looked.record["data"]["notes"]) and data.problems.notes == before


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"modes": ["live"]}, "unknown mode 'live'; expected offline or causal"),
        ({"groups": {"nobody": "a"}}, "groups: unknown video 'nobody' among 8"),
        ({"groups": {"v0": "a"}}, "groups: 7 of 8 videos have no group, such as 'v1'"),
        ({"quick": True, "heads": ["linear", "mstcn"]}, "leave out --quick, or heads"),
    ],
)
def test_what_would_be_ignored_is_refused(data: Any, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        keystep.evaluate(data, {"a": model(0)}, config=QUICK, **asked)


def test_a_model_that_has_seen_test_videos_is_told_beside_the_data(data: Any) -> None:
    seen, clean = model(0), model(1)
    seen.origin = replace(seen.origin, videos=("v0", "v5", "v6"))
    clean.origin = replace(clean.origin, videos=("v0", "v1"))
    found = keystep.evaluate(data, {"seen": seen, "clean": clean}, modes=["causal"], config=QUICK, quick=True)
    (leak,) = found.record["data"]["leaks"]
    assert leak == "seen (a model) was pretrained, without labels, on 2 of the test videos"
    assert leak in found.record["data"]["notes"]


def test_tau_can_be_stated_and_is_on_record(data: Any) -> None:
    stated = QUICK.model_copy(update={"tau": 3.0})
    found = keystep.evaluate(data, {"a": model(0)}, modes=["causal"], config=stated, quick=True)
    assert found.record["protocol"]["clock"] == {"tau": 3.0, "low": 3.0, "high": 3.0, "stated": True}
    details = " ".join(row["detail"] for row in found.record["rows"])
    assert "half-lives 1.5 to 192 s" in details, "0.5 to 64 tau"


def test_a_test_video_of_two_slots_stops_nothing(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data")
    np.save(root / "features" / "v7.npy", np.ones((4, 2), np.float32))
    (root / "groundTruth" / "v7.txt").write_text("early\nlate\n")
    short = keystep.open_dataset(root, source_rate=4)
    found = keystep.evaluate(short, {"a": model(0)}, modes=["causal"], config=QUICK, quick=True)
    assert len(found.record["data"]["test_videos"]) == 3 and found.record["geometry"]
    assert "geometry excludes 1 test videos with fewer than 3 slots" in found.record["data"]["notes"]
