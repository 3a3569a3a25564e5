"""Claims about single signals of mistakes, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from keystep.evals import surprises
from keystep.evals.surprises import (
    announced,
    change_points,
    live_steps,
    nearest_distance,
    relative_errors,
    step_names,
    unusual_time,
)
from keystep.stream.smoothing import Smoothing

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("bank", [1000, 10])
def test_the_nearest_frame_is_found_among_evenly_spaced_training_frames(
    monkeypatch: pytest.MonkeyPatch, bank: int
) -> None:
    monkeypatch.setattr(surprises, "BANK", bank)
    lengths = {"a": 13, "b": 20, "test": 7}
    videos = {name: RNG.normal(size=(length, 3)).astype(np.float32) * [1, 10, 100] for name, length in lengths.items()}
    videos = {name: frames.astype(np.float32) for name, frames in videos.items()}
    frames = np.concatenate([videos["a"], videos["b"]])
    chosen = frames[:: 1 if bank == 1000 else 4] / frames.std(0)
    expected = np.linalg.norm((videos["test"] / frames.std(0))[:, None] - chosen, axis=-1).min(1)
    found = nearest_distance(videos, ["test"], ["a", "b"], len(frames))["test"]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_errors_are_relative_to_their_place_and_averaged_over_their_stretch() -> None:
    typical = np.array([1.0, 2.0, 4.0])
    errors = np.array([1.0, 2.0, 4.0, 3.0, 6.0, 12.0, 5.0])
    assert relative_errors(errors, typical).tolist() == [1, 1, 1, 3, 3, 3, 5]
    assert len(relative_errors(errors[:0], typical)) == 0


def test_a_change_is_scored_where_both_windows_are_in_the_video() -> None:
    video = {"a": np.repeat(np.array([[0.0], [1.0]], dtype=np.float32), 10, axis=0)}
    found = change_points(video, ["a"], 2.0)
    assert found.delay == 1.5 and found.values["a"].argmax() == 10
    assert (found.values["a"][:4] == 0).all() and (found.values["a"][-3:] == 0).all()


def test_a_step_at_another_time_than_in_correct_runs_is_unusual() -> None:
    clock = {"good": np.arange(10) / 2, "test": np.arange(6) / 2}
    steps = {"good": np.repeat([0, 1], 5), "test": np.array([0, 0, 0, 1, 1, 7])}
    found = unusual_time(clock, steps, ["good"])["test"]
    assert found.tolist() == [1.0, 0.5, 0.0, 2.0, 1.5, 0.25]


def test_the_smoothing_with_the_best_edit_score_on_validation_videos_is_used() -> None:
    truth = np.repeat([0, 1, 2], 20)
    scores = 8.0 * np.eye(3, dtype=np.float32)[truth]
    scores[[5, 30, 50]] = 8.0 * np.eye(3, dtype=np.float32)[[2, 0, 1]]  # single wrong frames
    found, chosen = live_steps({"a": scores}, {"a": truth}, 2.0)
    assert chosen != Smoothing() and (np.diff(found["a"]) != 0).sum() == 2


def test_announced_steps_of_chunks_are_those_of_the_video() -> None:
    scores, smoothing = RNG.normal(size=(40, 3)).astype(np.float32), Smoothing(1.0, 1.0)
    whole, _ = announced(scores, smoothing, 2.0)
    state, parts = None, []
    for part in np.array_split(scores, 7):
        said, state = announced(part, smoothing, 2.0, state)
        parts.append(said)
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_background_and_unlabelled_frames_are_no_steps() -> None:
    classes = ("Background", "cut", "wait")
    assert step_names(np.array([0, 1, 2, -100]), classes, ["wait"]) == [None, "cut", None, None]
