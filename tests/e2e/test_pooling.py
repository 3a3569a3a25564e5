"""``keystep pool``: what it writes, says and refuses."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from keystep.data.folder import open_dataset
from keystep.data.store import FeatureStore
from keystep.data.timeline import Timeline

Run = Callable[..., tuple[int, str, str]]
QUICK = ("--set", "heads=2", "--set", "depth=0", "--set", "steps=5", "--set", "looks=1")


@pytest.fixture
def tokens(data: Path, tmp_path: Path) -> Path:
    """The labelled videos of `data` with 4 tokens a slot, each 16 wide."""
    source, rng = open_dataset(data, source_rate=Fraction(4)), np.random.default_rng(0)
    store = FeatureStore(tmp_path / "tokens", Timeline(rate=Fraction(4)), provenance={"tokens": 4}).create()
    for name in source.videos:
        store.add(name, (rng.normal(size=(source.length(name), 64)) + 1).astype(np.float32))
    store.copy_annotation(source)
    store.finish()
    return tmp_path / "tokens"


def test_the_mean_is_a_feature_folder_with_the_same_labels_and_splits(
    keystep: Run, tokens: Path, tmp_path: Path
) -> None:
    status, said, error = keystep("pool", tokens, "--out", tmp_path / "mean", "--mean")
    assert status == 0 and "8 videos, 4 tokens per slot pooled" in said, error
    pooled, source = open_dataset(tmp_path / "mean"), open_dataset(tokens)
    assert (pooled.width, pooled.tokens, source.tokens, pooled.labels_used) == (16, 1, 4, "")
    expected = source.features("video3").reshape(-1, 4, 16).mean(1)
    np.testing.assert_allclose(pooled.features("video3"), expected, atol=1e-6)
    assert np.array_equal(pooled.labels("video3"), source.labels("video3"))
    assert pooled.split("1") == source.split("1")


def test_features_pooled_with_labels_say_so_wherever_they_go(keystep: Run, tokens: Path, tmp_path: Path) -> None:
    out, run = tmp_path / "action", tmp_path / "run"
    status, said, error = keystep("pool", tokens, "--out", out, "--labels", "--split", 1, *QUICK)
    assert status == 0 and "LABELS: pooler trained on the labels of the 4 training videos of split 1" in said, error
    folder = open_dataset(out)
    assert folder.labelled_videos == {f"video{i}" for i in range(5)} and "LABELS" in folder.problems.notes[0]
    small = ("--set", "model.dim=16", "--set", "model.heads=2", "--set", "model.depth=1", "--set", "train.steps=1")
    assert keystep("pretrain", out, "--split", 1, "--out", run, *small)[0] == 0
    status, said, error = keystep("encode", run, out, "--out", tmp_path / "latents")
    assert status == 0 and "LABELS" in said, error
    assert open_dataset(tmp_path / "latents").labels_used == folder.labels_used


def test_a_second_run_learns_nothing_anew_and_goes_on_where_the_first_stopped(
    keystep: Run, tokens: Path, tmp_path: Path
) -> None:
    command = ("pool", tokens, "--out", tmp_path / "action", "--labels", "--split", 1, *QUICK)
    assert keystep(*command)[0] == 0
    first = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "action" / "features").glob("*.npy")}
    weights = tmp_path / "action" / "pooler" / "pooler.safetensors"
    learned = weights.stat().st_mtime_ns
    before = (tmp_path / "action" / "features" / "video2.npy").read_bytes()
    (tmp_path / "action" / "features" / "video2.npy").unlink()
    status, said, _ = keystep(*command)
    assert status == 0 and "8 videos" in said and weights.stat().st_mtime_ns == learned
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "action" / "features").glob("*.npy")}
    assert [name for name in first if first[name] != after[name]] == ["video2.npy"]
    assert (tmp_path / "action" / "features" / "video2.npy").read_bytes() == before


def test_a_learned_pooler_serves_other_videos(keystep: Run, tokens: Path, tmp_path: Path) -> None:
    assert keystep("pool", tokens, "--out", tmp_path / "a", "--labels", "--split", 1, *QUICK)[0] == 0
    status, said, error = keystep("pool", tokens, "--out", tmp_path / "b", "--pooler", tmp_path / "a" / "pooler")
    assert status == 0 and "LABELS" in said, error
    a, b = (np.load(tmp_path / name / "features" / "video7.npy") for name in "ab")
    assert np.array_equal(a, b)


def test_videos_whose_labels_pooled_the_features_cannot_judge_them(keystep: Run, tokens: Path, tmp_path: Path) -> None:
    for part, chosen in (("train", (5, 6)), ("valid", (7,)), ("test", (0, 1))):
        path = tokens / "splits" / f"{part}.split2.bundle"
        path.write_text("".join(f"video{index}.txt\n" for index in chosen))
    assert keystep("pool", tokens, "--out", tmp_path / "action", "--labels", "--split", 1, *QUICK)[0] == 0
    status, _, error = keystep("eval", tmp_path / "action", "--split", 2, "--out", tmp_path / "result")
    assert status == 2 and "these include 2 test videos of split 2" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "choose one of --mean, --labels and --pooler"),
        (("--mean", "--labels", "--split", 1), "choose one of"),
        (("--labels",), "--labels needs --split"),
        (("--mean", "--set", "steps=3"), "--set is only for --labels"),
        (("--mean", "--tokens", 7), "cannot hold 7 tokens"),
        (("--labels", "--split", 1, "--set", "head=3"), "did you mean heads"),
    ],
)
def test_what_makes_no_sense_is_refused(
    keystep: Run, tokens: Path, tmp_path: Path, options: tuple[object, ...], message: str
) -> None:
    status, _, error = keystep("pool", tokens, "--out", tmp_path / "out", *options)
    assert status == 2 and message in error
    assert not (tmp_path / "out").exists()


def test_one_vector_a_slot_is_not_pooled(keystep: Run, data: Path, tmp_path: Path) -> None:
    status, _, error = keystep("pool", data, "--source-rate", 4, "--out", tmp_path / "out", "--mean")
    assert status == 2 and "one token per slot" in error


def test_a_model_of_tokens_is_judged_beside_their_mean(keystep: Run, tokens: Path, tmp_path: Path) -> None:
    small = ("--set", "model.dim=16", "--set", "model.heads=2", "--set", "model.depth=1", "--set", "train.steps=1")
    assert keystep("pretrain", tokens, "--split", 1, "--out", tmp_path / "run", *small)[0] == 0
    probe = ("--set", "probe.penalties=[0.01]")
    model = ("--model", f"pjepa={tmp_path / 'run'}")
    status, said, error = keystep("eval", tokens, *model, "--out", tmp_path / "result", *probe)
    assert status == 0 and "4 tokens per slot: raw features and controls use their mean" in said, error
    rows = json.loads((tmp_path / "result" / "result.json").read_text())["rows"]
    assert {row["name"]: row["width"] for row in rows}["raw features"] == 16
    status, said, _ = keystep("inspect", tokens, "--picture", tmp_path / "picture.png")
    assert "64 dimensions, 4 tokens of 16" in said


def test_a_number_of_tokens_that_cannot_be_is_refused(keystep: Run, tokens: Path, tmp_path: Path) -> None:
    record = json.loads((tokens / "store.json").read_text())
    record["provenance"]["tokens"] = 5
    (tokens / "store.json").write_text(json.dumps(record))
    status, _, error = keystep("pool", tokens, "--out", tmp_path / "out", "--mean")
    assert status == 2 and "store.json says 5 tokens per slot" in error
