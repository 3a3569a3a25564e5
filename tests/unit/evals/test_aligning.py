"""Claims about labels from ordered lists of steps: made-up videos, whose true labels only judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from keystep.data.annotation import IGNORED
from keystep.data.folder import open_dataset
from keystep.errors import InputError
from keystep.evals.aligning import AlignmentConfig, Round, alternate, read_lists, uniform_labels

CLASSES = 4


def made(orders: list[list[int]], seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Videos with these steps, of 5 to 40 noisy frames each, and their true labels."""
    rng = np.random.default_rng(seed)
    looks = 2 * rng.normal(size=(CLASSES, 6))
    truth = {f"v{place}": np.repeat(order, rng.integers(5, 41, len(order))) for place, order in enumerate(orders)}
    return {name: looks[ids] + rng.normal(size=(len(ids), 6)) for name, ids in truth.items()}, truth


def last(orders: list[list[int]], vectors: dict[str, np.ndarray], **settings: float) -> tuple[Round, int]:
    lists = {f"v{place}": np.array(order) for place, order in enumerate(orders)}
    rounds = list(alternate(vectors, lists, CLASSES, AlignmentConfig.model_validate(settings)))
    return rounds[-1], len(rounds)


def accuracy(found: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> float:
    return float(np.mean(np.concatenate([found[name] == truth[name] for name in truth])))


def test_lists_without_times_label_frames_and_teach_a_read_out() -> None:
    rng = np.random.default_rng(3)
    orders = [rng.permutation(CLASSES).tolist() for _ in range(24)]
    vectors, truth = made(orders)
    lists = {name: np.array(order) for name, order in zip(vectors, orders, strict=True)}
    found, rounds = last(orders, vectors, rounds=8)
    assert rounds < 8 and found.changed == 0
    assert accuracy(uniform_labels(vectors, lists), truth) < 0.8 < 0.97 < accuracy(found.labels, truth)
    others, theirs = made([[2, 0, 3, 1]] * 4)  # not listed, and not seen
    assert accuracy({name: found.probe.predict(frames) for name, frames in others.items()}, theirs) > 0.9


def test_a_listed_step_that_is_not_shown_gets_no_frame_where_skipping_is_allowed() -> None:
    rng = np.random.default_rng(4)
    orders = [rng.permutation(CLASSES).tolist() for _ in range(12)]
    vectors, truth = made(orders)
    kept = truth["v0"] != orders[0][1]
    vectors["v0"], truth["v0"] = vectors["v0"][kept], truth["v0"][kept]
    found, _ = last(orders, vectors, skip=5, anchor=0, rounds=2)
    assert orders[0][1] not in found.labels["v0"]


def test_frames_of_no_step_stay_without_a_label_where_dropping_is_allowed() -> None:
    orders = [[0, 1, 2, 3], [3, 1, 0, 2]] * 8
    vectors, _ = made(orders)
    found, _ = last(orders, vectors, drop=0.5, anchor=0, rounds=1)
    assert 0 < np.mean(np.concatenate(list(found.labels.values())) == IGNORED) < 0.5


def test_a_video_that_is_too_short_for_its_list_is_named() -> None:
    vectors, _ = made([[0, 1, 2, 3]] * 3)
    vectors["v1"] = vectors["v1"][:3]
    lists = {name: np.arange(4) for name in vectors}
    with pytest.raises(InputError, match="v1: 3 frames for 4 steps"):
        list(alternate(vectors, lists, CLASSES, AlignmentConfig()))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("other.txt", "cut\n", "no video of this name"),
        ("a.txt", "cut\nfold\n", "line 2: no class 'fold'"),
        ("a.txt", "", "no step"),
        ("a.csv", "cut\n", "no VIDEO.txt"),
    ],
)
def test_a_list_that_cannot_be_used_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / "features").mkdir()
    (tmp_path / "steps").mkdir()
    np.save(tmp_path / "features" / "a.npy", np.zeros((3, 9), np.float32))
    (tmp_path / "mapping.txt").write_text("0 cut\n")
    (tmp_path / "store.json").write_text('{"time_axis": 1}')
    (tmp_path / "steps" / name).write_text(text)
    folder = open_dataset(tmp_path, source_rate=4, labels_needed=False)
    with pytest.raises(InputError, match=message):
        read_lists(tmp_path / "steps", folder)
