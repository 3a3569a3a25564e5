"""``keystep graph``: from a data set to files and back, and what it says can come next."""

from collections.abc import Callable
from pathlib import Path

import pytest

from keystep.data.made_runs import RunsConfig, generate_runs
from keystep.procedure import read_graph

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs") / "data"
    generate_runs(root, RunsConfig(train_videos=24, valid_videos=1, test_videos=2, feature_dim=8))
    return root


def test_a_graph_is_learned_written_read_and_asked(keystep: Run, runs: Path, tmp_path: Path) -> None:
    outs = [tmp_path / f"graph{ending}" for ending in (".json", ".png", ".svg", ".dot", ".mmd")]
    status, said, error = keystep("graph", runs, "--split", 1, *(word for out in outs for word in ("--out", out)))
    assert status == 0, error
    assert "labelled segments of 24 videos (train of split 1)" in " ".join(said.split())
    assert all(out.stat().st_size for out in outs)
    graph = read_graph(outs[0])
    first, last = graph.steps[0].name, graph.steps[-1].name
    status, said, error = keystep("graph", outs[0], "--done", first)
    assert status == 0 and f"after {first}" in said and f"missing at the end: {graph.steps[1].name}" in said
    assert last in said.partition("missing")[2]
    for options, message in (
        (("--done", "nothing"), "no such step"),
        (("--out", outs[0]), "--overwrite"),
        (("--out", tmp_path / "graph.pdf"), "unknown ending '.pdf'"),
    ):
        status, _, error = keystep("graph", outs[0], *options)
        assert status == 2 and message in error


def test_clusters_and_predictions_are_sources_of_steps(keystep: Run, runs: Path, tmp_path: Path) -> None:
    status, said, error = keystep("graph", runs, "--clusters", 5, "--min-seconds", 1, "--set", "confidence=0.8")
    assert status == 0 and "5 clusters of 27 videos" in " ".join(said.split()) and "cluster_4" in said, error
    status, said, error = keystep("graph", runs, "--labels", runs / "groundTruth", "--background", "step_1")
    assert status == 0 and "predicted segments of 27 videos" in " ".join(said.split()) and "step_1 " not in said, error
    for options, message in (
        (("--labels", runs / "splits"), "splits/video0000.txt"),
        (("--labels", runs / "groundTruth", "--clusters", 5), "give one"),
        (("--model", runs), "--clusters"),
        (("--start", "nothing"), "never done"),
        (("--task", "tea"), "no task 'tea'"),
    ):
        status, _, error = keystep("graph", runs, *options)
        assert status == 2 and message in error, error
