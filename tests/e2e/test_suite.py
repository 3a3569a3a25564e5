"""``keystep eval --suite paper``: what it trains, what it says, how it goes on and refuses."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from keystep.evals.bootstrap import Difference
from keystep.evals.modes import answer_slots
from keystep.evals.protocol import Comparison
from keystep.evals.published import PUBLISHED

Run = Callable[..., tuple[int, str, str]]
QUICK = [
    "heads=[linear, mstcn, context, attentive]",
    "head_settings={mstcn: {maps: 8, layers: 3, refinements: 1, refinement_layers: 2}, "
    "context: {dim: 16, stages: 1, layers: 2}, attentive: {dim: 32, window: 8, chunk: 4}}",
    "training.epochs=2",
    "seeds=1",
    "probe.penalties=[0.01]",
]


def suite(data: Path, out: Path, *options: object) -> list[object]:
    settings = [value for setting in QUICK for value in ("--set", setting)]
    return ["eval", data, "--source-rate", "4", "--suite", "paper", "--out", out, *settings, *options]


@pytest.fixture(scope="module")
def judged(once: Run, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A trained run, its data, and what the suite wrote and said of them."""
    data, out = trained.parent / "mydata", tmp_path_factory.mktemp("judged") / "suite"
    more = ("--set", "data_set=assembly101", "--set", "background=[wait]", "--set", "by_segments=true")
    status, said, error = once(*suite(data, out, "--model", f"pjepa={trained}", *more))
    assert status == 0, error
    record = json.loads((out / "result.json").read_text())
    return SimpleNamespace(run=trained, data=data, out=out, said=said, record=record)


def test_every_head_reads_raw_features_the_best_control_and_latents_in_both_modes(judged: SimpleNamespace):
    record, said, out = judged.record, judged.said, judged.out
    rows = {(row["mode"], row["head"], row["name"]): row for row in record["head_rows"]}
    assert len(rows) == 2 * 3 * 3
    for (mode, head, representation), row in rows.items():
        assert 0 <= row["mean"]["accuracy"] <= 100 and row["parameters"] > 0 and row["frames_per_second"] > 0
        if mode == "causal":
            assert row["delay"] == {"attentive": 3 / 4}.get(head, 0.0)
            late = all(run["at_the_moment"]["accuracy"] != run["scores"]["accuracy"] for run in row["runs"])
            assert late == (head == "attentive")
        if mode == "offline" and (representation in ("pjepa", "best control") or head in ("mstcn", "context")):
            assert row["delay"] is None
    segments = {(row["mode"], row["head"], row["name"]) for row in record["segment_scores"]}
    assert rows.keys() < segments and ("causal", "linear", "pjepa") in segments
    assert all(0 <= row["mean"]["segments"] <= 100 for row in record["segment_scores"])
    learned = {(gain["mode"], gain["head"], gain["second"]) for gain in record["head_gains"]}
    assert len(learned) == 2 * 3 * 2 and len(record["head_gains"]) == 3 * len(learned)
    assert {gain["verdict"] for gain in record["head_gains"]} == {"not enough seeds"}
    text = (out / "report.html").read_text()
    assert "Quoted, not run here" in text and "40.1" in text and "ORACLE: boundaries known" in text
    assert "accuracy, foreground" in text and "mstcn: pjepa" in said and "Temporal heads. Offline" in said
    assert any(row["name"] == "pjepa" for row in record["rows"]) and record["gate"], "the probe's table is there, too"


@pytest.mark.parametrize("head", ["mstcn", "context", "attentive"])
def test_causal_heads_say_live_what_the_suite_scored(keystep: Run, judged: SimpleNamespace, head: str, tmp_path: Path):
    features, lines = judged.data / "features" / "video7.npy", tmp_path / "lines.jsonl"
    path = judged.out / "heads" / f"{head}-pjepa-causal-seed0.safetensors"
    status, _, error = keystep("stream", judged.run, features, "--source-rate", 4, "--head", path, "--out", lines)
    assert status == 0, error
    said = [json.loads(line) for line in lines.read_text().splitlines()]
    labels = (judged.data / "groundTruth" / "video7.txt").read_text().split("\n")
    rows = judged.record["head_rows"]
    (row,) = (row for row in rows if (row["mode"], row["head"], row["name"]) == ("causal", head, "pjepa"))
    right = sum(reading["step"] == label for reading, label in zip(said, labels, strict=True))
    assert right == row["runs"][0]["correct"][judged.record["data"]["test_videos"].index("video7")]


def test_an_offline_head_does_not_stream_and_is_exported_as_whole_videos(
    keystep: Run, judged: SimpleNamespace, tmp_path: Path
):
    features, exported = judged.data / "features" / "video7.npy", tmp_path / "exported"
    offline = judged.out / "heads" / "mstcn-pjepa-offline-seed0.safetensors"
    status, _, error = keystep("stream", judged.run, features, "--source-rate", 4, "--head", offline)
    assert status == 2 and "was fitted on offline latents, which see the future; take the causal head" in error
    status, _, error = keystep("export", judged.run, "--head", offline, "--window", "8", "--out", exported)
    assert status == 2 and "reads the whole video, so there is no streaming step; leave out" in error
    status, said, error = keystep("export", judged.run, "--head", offline, "--out", exported)
    assert status == 0, error
    assert "whole videos of 65 frames or more" in said and (exported / "video.onnx").exists()


def test_what_was_trained_is_not_trained_again_and_other_settings_are_refused(keystep: Run, data: Path, tmp_path: Path):
    out, settings = tmp_path / "result", ("seeds=1", "training.epochs=1", "probe.penalties=[0.01]")
    one = ("heads=[mstcn]", "head_settings={mstcn: {maps: 8, layers: 2, refinements: 1}}", "modes=[causal]")
    given = [word for setting in (*settings, *one) for word in ("--set", setting)]
    command = ("eval", data, "--source-rate", 4, "--out", out, *given)
    assert keystep(*command)[0] == 0
    first = json.loads((out / "result.json").read_text())
    kept = {path: path.stat().st_mtime_ns for path in out.glob("probes/heads/*/checkpoint/state.json")}
    status, _, error = keystep(*command)
    assert status == 2 and "holds a result already; give --overwrite" in error
    assert keystep(*command, "--overwrite")[0] == 0
    again = json.loads((out / "result.json").read_text())
    assert [row["runs"] for row in again["head_rows"]] == [row["runs"] for row in first["head_rows"]]
    assert len(kept) == 2 and kept == {path: path.stat().st_mtime_ns for path in kept}
    status, _, error = keystep(*command, "--overwrite", "--set", "training.epochs=3")
    assert status == 2 and error.count("\n") == 1 and str(out / "probes" / "heads") in error


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("heads=[fact]", "unknown head 'fact'"),
        ("heads=[linear, linear]", "without repetition"),
        ("heads=[linear]", "head_settings of attentive"),
        ("protocol=ours", "unknown protocol 'ours'"),
        ("head_settings={mstcn: {causal: true}}", "causal is set by the mode"),
        ("head_settings={mstcn: {map: 8}}", "head mstcn: "),
        ("data_set=breakfast", "no published results"),
        ("modes=[live]", "live"),
        ("training.epoch=3", "epochs"),
    ],
)
def test_wrong_settings_are_one_line_before_anything_is_trained(
    keystep: Run, data: Path, tmp_path: Path, option: str, says: str
):
    status, _, error = keystep(*suite(data, tmp_path / "suite", "--set", option))
    assert status == 2 and error.count("\n") == 1 and says in error, error
    assert not (tmp_path / "suite").exists()


def test_what_is_no_result_is_never_replaced(keystep: Run, data: Path, tmp_path: Path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thoughts.md").write_text("mine")
    status, _, error = keystep(*suite(data, tmp_path / "notes"))
    assert status == 2 and "thoughts.md" in error
    status, _, error = keystep("eval", data, "--source-rate", "4", "--out", tmp_path / "notes")
    assert status == 2 and "thoughts.md" in error


def test_a_gain_holds_with_enough_seeds_of_both_sides_no_waiting_and_no_stronger_control():
    sound = Difference(5.0, 2.0, 8.0, (3, 3), 9)
    gain = Comparison("head", "edit under mstcn", "causal", "pjepa", "raw features", sound, drawn_rival=True)
    assert gain.holds
    assert replace(gain, later=True).verdict == "answers later"
    assert replace(gain, stronger="best control").verdict == "fails"
    for seeds in ((3, 1), (1, 3)):
        assert replace(gain, difference=replace(sound, seeds=seeds)).verdict == "not enough seeds"


@pytest.mark.parametrize(
    ("block", "chunk", "longest"), [(1, 1, 0), (1, 4, 3), (8, 1, 7), (8, 4, 7), (8, 5, 11), (64, 64, 63)]
)
def test_an_answer_waits_for_its_chunk_and_the_block_of_the_chunks_end(block: int, chunk: int, longest: int):
    length = 3 * block * chunk
    final = answer_slots(length, block, chunk)
    for slot in range(length):
        end = min((slot // chunk + 1) * chunk, length) - 1
        assert final[slot] == min((end // block + 1) * block, length) - 1 >= slot
    assert (final - np.arange(length)).max() == longest


def test_an_unknown_suite_is_named(keystep: Run, data: Path, tmp_path: Path):
    status, _, error = keystep("eval", data, "--source-rate", "4", "--suite", "papers", "--out", tmp_path / "suite")
    assert status == 2 and "unknown --suite 'papers'; expected one of paper" in error


def test_quoted_rows_are_whole_and_percent():
    tables = [table for tables in PUBLISHED.values() for table in tables]
    assert len(tables) == 5
    for table in tables:
        for row in table.rows:
            assert len(row.scores) == len(table.metrics) and all(0 < score <= 100 for score in row.scores)
            scores = dict(zip(table.metrics, row.scores, strict=True))
            assert np.all(np.diff([scores[m] for m in ("f1@10", "f1@25", "f1@50") if m in scores]) <= 0)
            assert ("P-JEPA" not in row.representation) or "ORACLE" in row.note or table.metrics == ("clip top-1",)


def test_quoted_rows_are_what_the_paper_prints(shared: Path):
    printed = (shared / "PAPER.md").read_text()
    for table in (table for tables in PUBLISHED.values() for table in tables):
        for row in table.rows:
            if len(table.metrics) == 5 and "EgoProceL" not in table.title:
                assert "/".join(f"{score:.1f}" for score in row.scores) in printed.replace(" ", ""), row
            for score in row.scores:
                texts = {f"{score:g}", f"{score:.1f}", f"{score:.3f}", f"{score:.4f}"}
                assert any(text.removeprefix("0") in printed for text in texts), (row, score)
