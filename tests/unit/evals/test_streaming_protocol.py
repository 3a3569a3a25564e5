"""A stream's scores: honest ones count delays, and those that know true boundaries say ORACLE."""

import numpy as np
import pytest

from keystep.data.annotation import IGNORED
from keystep.errors import InputError
from keystep.evals.streaming_protocol import (
    SILENCE,
    at_the_moment,
    score_at_the_moment,
    score_segments,
)
from keystep.metrics import segmentation_scores

RANDOM = np.random.default_rng(0)
TRUTHS = [np.repeat(RANDOM.integers(4, size=12), 5), np.repeat(RANDOM.integers(4, size=9), 7)]
PREDICTIONS = [np.where(RANDOM.random(len(t)) < 0.7, t, RANDOM.integers(4, size=len(t))) for t in TRUTHS]


def slow_at_the_moment(predictions: list[int], delays: list[int]) -> list[int]:
    said = []
    for now in range(len(predictions)):
        there = [frame for frame in range(len(predictions)) if frame + delays[frame] <= now]
        said.append(predictions[max(there)] if there else SILENCE)
    return said


def test_at_the_moment_equals_asking_at_every_time_what_is_there() -> None:
    for _ in range(5):
        predictions, delays = RANDOM.integers(4, size=30), RANDOM.integers(9, size=30)
        assert at_the_moment(predictions, delays).tolist() == slow_at_the_moment(predictions.tolist(), delays.tolist())
    assert at_the_moment(np.arange(4), 2).tolist() == [SILENCE, SILENCE, 0, 1]
    assert at_the_moment(np.arange(4), 0).tolist() == [0, 1, 2, 3]


def test_blocks_answer_at_their_end() -> None:
    block = np.array([3, 2, 1, 0, 3, 2, 1, 0])
    assert at_the_moment(np.arange(8), block).tolist() == [SILENCE] * 3 + [3] * 4 + [7]


@pytest.mark.parametrize("protocol", ["pooled", "video-mean", "fact", "official"])
def test_a_late_system_loses_at_the_moment_and_a_prompt_one_does_not(protocol: str) -> None:
    late = score_at_the_moment(TRUTHS, TRUTHS, delays=[10, 10], background=(0,), protocol=protocol)
    assert late["accuracy"] < 60
    prompt = score_at_the_moment(PREDICTIONS, TRUTHS, delays=[0, 0], background=(0,), protocol=protocol)
    assert prompt["accuracy"] == segmentation_scores(PREDICTIONS, TRUTHS, (0,), protocol)["accuracy"]


def test_silence_is_wrong_on_every_frame_and_no_segment() -> None:
    truth = [np.array([1] * 6 + [2] * 6)]
    scores = score_at_the_moment(truth, truth, delays=[3])
    assert scores["accuracy"] == 50 and scores["edit"] == 100 and scores["f1@10"] == 100


@pytest.mark.parametrize("choice", ["majority", "last"])
def test_each_true_segment_counts_once(choice: str) -> None:
    found = score_segments(PREDICTIONS, TRUTHS, choice=choice, background=(0,))  # type: ignore[arg-type]
    right, right_steps, segments, steps = 0, 0, 0, 0
    filled = []
    for prediction, truth in zip(PREDICTIONS, TRUTHS, strict=True):
        start = 0
        line: list[int] = []
        for stop in range(1, len(truth) + 1):
            if stop < len(truth) and truth[stop] == truth[start]:
                continue
            part = prediction[start:stop].tolist()
            answer = part[-1] if choice == "last" else min(set(part), key=lambda label: (-part.count(label), label))
            right += answer == truth[start]
            right_steps += answer == truth[start] != 0
            segments, steps = segments + 1, steps + (truth[start] != 0)
            line += [answer] * len(part)
            start = stop
        filled.append(np.array(line))
    assert found["segments"] == pytest.approx(100 * right / segments)
    assert found["segments_foreground"] == pytest.approx(100 * right_steps / steps)
    slow = segmentation_scores(filled, TRUTHS, background=(0,))
    assert {name: found[name] for name in slow} == slow


def test_neighbours_of_one_label_are_two_segments_where_lengths_say_so() -> None:
    truth, prediction = [np.array([1, 1, 1, 1])], [np.array([1, 1, 2, 2])]
    assert score_segments(prediction, truth)["segments"] == 100  # a tie, the smaller id
    assert score_segments(prediction, truth, lengths=[[2, 2]])["segments"] == 50
    with pytest.raises(InputError, match="video 0: 4 predictions, 4 true labels and segments of 3 frames"):
        score_segments(prediction, truth, lengths=[[1, 2]])


def test_segments_without_a_label_count_nowhere() -> None:
    truth = [np.array([1, 1, IGNORED, IGNORED, 2, 2])]
    prediction = [np.array([1, 1, 3, 3, 3, 3])]
    assert score_segments(prediction, truth)["segments"] == 50


def test_delays_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="delays must be non-negative"):
        score_at_the_moment(PREDICTIONS, TRUTHS, delays=[-1, 0])
    with pytest.raises(InputError, match="delays must be non-negative"):
        at_the_moment(np.zeros(3, int), np.zeros(2, int))
    with pytest.raises(InputError, match="not 2 and 1"):
        score_at_the_moment(PREDICTIONS, TRUTHS, delays=[0])
