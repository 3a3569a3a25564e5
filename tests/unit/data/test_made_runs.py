"""Claims about made-up runs of a procedure: correct ones keep its order, and mistakes are where they are said to be."""

from __future__ import annotations

import hashlib
from itertools import groupby
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from keystep.data.annotation import IGNORED
from keystep.data.folder import open_dataset
from keystep.data.made_runs import (
    RunsConfig,
    generate_runs,
    make_looks,
    make_run,
    make_run_video,
    true_procedure,
)
from keystep.data.mistakes import KINDS, Mistake, mistaken_frames, read_mistakes, write_mistakes
from keystep.data.partial_orders import correct_run
from keystep.errors import InputError

SMALL = RunsConfig(train_videos=2, valid_videos=1, test_videos=4, feature_dim=8)
RUNS_DIGEST = "a629876d5b162680"
"""Digest of the first runs of world 0; when it has to change, raise `keystep.data.made_runs.VERSION`."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs") / "data"
    generate_runs(root, SMALL)
    return root


def test_output_of_a_version_does_not_change() -> None:
    config = RunsConfig()
    text = "\n".join(str(make_run(config, index)) for index in (0, 80, 89, 91, 93))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == RUNS_DIGEST


@pytest.mark.parametrize("world", range(3))
def test_correct_runs_keep_the_order_and_omit_or_repeat_only_what_they_may(world: int) -> None:
    procedure = true_procedure(RunsConfig(seed=world))
    order = nx.DiGraph(sorted(procedure.precedence))
    rng = np.random.default_rng(world)
    for _ in range(50):
        steps = [act.step for act in correct_run(procedure, rng)]
        first = {step: steps.index(step) for step in steps}
        assert all(first[a] < first[b] for b in first for a in nx.ancestors(order, b) if a in first)
        assert set(procedure.steps) - set(steps) <= procedure.optional
        assert {step for step in steps if steps.count(step) > 1} <= procedure.repeatable


def test_every_kind_of_mistake_occurs_in_every_second_test_video_and_nowhere_else() -> None:
    config = RunsConfig(test_videos=60)
    procedure, found = true_procedure(config), set[str]()
    for part, indices in config.splits.items():
        for number, index in enumerate(indices):
            run = make_run(config, index, procedure)
            kinds = {act.mistake for act in run if act.mistake} | (
                {"omitted"} if any(a.omitted for a in run) else set()
            )
            assert not kinds or (part == "test" and number % 2)
            assert all((act.step == "") == (act.mistake == "unknown") for act in run)
            found |= kinds
    assert found == set(KINDS)


def test_mistakes_stand_beside_the_labels_of_their_slots() -> None:
    config = RunsConfig(test_videos=12, feature_dim=4)
    procedure = true_procedure(config)
    world = make_looks(config, procedure)
    for index in range(config.splits["test"].start + 1, config.splits["test"].stop, 2):
        features, labels, mistakes = make_run_video(config, index, procedure, world)
        assert len(features) == len(labels)
        starts = {start for start, _ in _segments(labels)}
        for mistake in mistakes:
            assert mistake.kind == "omitted" or mistake.start in starts
            if mistake.kind == "omitted":
                assert mistake.stop == mistake.start and mistake.step in procedure.steps
            elif mistake.kind == "unknown":
                assert set(labels[mistake.start : mistake.stop]) == {"(unlabelled)"}
            else:
                assert set(labels[mistake.start : mistake.stop]) == {mistake.step}


def _segments(labels: list[str]) -> list[tuple[int, str]]:
    starts, position = [], 0
    for name, group in groupby(labels):
        starts.append((position, name))
        position += len(list(group))
    return starts


def test_a_folder_holds_the_mistakes_of_every_video(folder: Path) -> None:
    data = open_dataset(folder)
    assert data.problems.notes == [] and data.classes[0] == "background" and len(data.classes) == 13
    split = data.split("1")
    assert all(read_mistakes(data, video) == [] for video in (*split.train, *split.valid, *split.test[::2]))
    found = read_mistakes(data, split.test[1])
    assert found and all(mistake.kind in KINDS for mistake in found)
    slots = mistaken_frames(found, data.length(split.test[1]))
    unknown = data.labels(split.test[1]) == IGNORED
    assert (slots >= unknown).all()


def test_mistakes_are_read_at_a_lower_rate(folder: Path, tmp_path: Path) -> None:
    data = open_dataset(folder, rate=2)
    path = folder / "mistakes" / "video0000.csv"
    text = path.read_text()
    write_mistakes(folder, "video0000", [Mistake(3, 6, "swapped", "a, b"), Mistake(9, 9, "omitted", "c")])
    try:
        assert read_mistakes(data, "video0000") == [Mistake(1, 3, "swapped", "a, b"), Mistake(4, 4, "omitted", "c")]
        for line, message in (("9,3,x,y", "slots 9 to 3"), ("a,3,x,y", "not 'start"), ("1,99999,x,y", "99999")):
            path.write_text(f"start,stop,kind,step\n{line}\n")
            with pytest.raises(InputError, match=message):
                read_mistakes(data, "video0000")
        path.write_text("begin,end\n")
        with pytest.raises(InputError, match="header"):
            read_mistakes(data, "video0000")
        path.unlink()
        assert read_mistakes(data, "video0000") is None
    finally:
        path.write_text(text)
