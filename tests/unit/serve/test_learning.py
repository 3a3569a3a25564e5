import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from keystep.data.spans import Span
from keystep.heads import load_head
from keystep.serve.learning import LabelLearner, Labels, LearningState

WIDTH, SLOTS, CLASSES = 12, 400, ("cut", "tie", "rest")
SECONDS = 60


class World:
    """Videos whose classes are linearly separable in noise; the truth is cut, tie and rest in turn."""

    def __init__(self, videos: int = 4) -> None:
        self.means = np.random.default_rng(0).normal(size=(len(CLASSES), WIDTH))
        self.lengths = {f"v{index}": SLOTS for index in range(videos)}
        self.reads: list[str] = []

    def truth(self, video: str) -> np.ndarray:
        turn = 20 + 5 * int(video[1:])
        return (np.arange(SLOTS) // turn) % len(CLASSES)

    def representation(self, video: str) -> np.ndarray:
        self.reads.append(video)
        noise = np.random.default_rng(int(video[1:]) + 1).normal(size=(SLOTS, WIDTH))
        return (3 + 10 * (self.means[self.truth(video)] + 0.7 * noise)).astype(np.float32)

    def spans(self, video: str, start: int = 0, stop: int = SLOTS) -> list[Span]:
        truth = self.truth(video)
        return [Span(at, at + 1, CLASSES[truth[at]]) for at in range(start, stop)]


class Desk:
    """A learner, and what was said to it."""

    def __init__(self, world: World, folder: Path, groups: Mapping[str, str] | None = None) -> None:
        self.labels = Labels(CLASSES, {})
        self.states: list[LearningState] = []
        self.learner = LabelLearner(
            world.lengths,
            world.representation,
            lambda: self.labels,
            rate=SLOTS / SECONDS,
            folder=folder,
            groups=groups,
            origin={"weights": "abc", "mode": "offline"},
            changed=self.states.append,
        )

    def say(
        self,
        spans: Mapping[str, Sequence[Span]],
        classes: Sequence[str] = CLASSES,
        unsure: Mapping[str, Sequence[Span]] | None = None,
    ) -> LearningState:
        self.labels = Labels(classes, spans, unsure or {})
        self.learner.start()
        assert self.learner.wait(60)
        return self.learner.state


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def desk(world: World, tmp_path: Path) -> Desk:
    return Desk(world, tmp_path / "work")


def test_two_labelled_videos_predict_the_others_with_calibrated_confidence(world: World, desk: Desk) -> None:
    state = desk.say({video: world.spans(video) for video in ("v0", "v1")})
    assert state.state == "idle" and state.accuracy is not None and state.revision == 1
    assert state.accuracy.mean > 85 and (state.accuracy.folds, state.accuracy.videos) == (2, 2)
    found = desk.learner.prediction("v3")
    assert found is not None
    right = found.ids == world.truth("v3")
    assert right.mean() > 0.85
    assert abs(found.confidence.mean() - right.mean()) < 0.08
    assert {span.label for span in found.spans(10, 60)} <= set(CLASSES)
    assert [found.spans(10, 60)[0].start, found.spans(10, 60)[-1].stop] == [10, 60]


def test_before_anything_is_labelled_it_says_so_and_suggests(desk: Desk) -> None:
    state = desk.say({})
    assert "label a stretch" in state.message and state.accuracy is None
    assert desk.learner.prediction("v0") is None and desk.learner.uncertainty("v0") is None
    assert len(desk.learner.suggestions(3)) == 3


def test_one_class_is_not_enough(desk: Desk) -> None:
    state = desk.say({"v0": [Span(0, 30, "tie")]})
    assert "'tie'" in state.message and "second class" in state.message
    assert desk.learner.prediction("v1") is None


def test_one_labelled_video_predicts_but_says_that_nobody_knows_how_well(world: World, desk: Desk) -> None:
    state = desk.say({"v0": world.spans("v0", 0, 200)})
    assert state.accuracy is None and "label a second video to see how good this is" in state.message
    assert state.history == ()
    found = desk.learner.prediction("v1")
    assert found is not None and (found.ids == world.truth("v1")).mean() > 0.8


def test_videos_of_one_person_are_held_out_together(world: World, tmp_path: Path) -> None:
    one = Desk(world, tmp_path, {"v0": "anna", "v1": "anna"})
    spans = {video: world.spans(video) for video in ("v0", "v1")}
    assert "another group" in one.say(spans).message
    found = one.say({**spans, "v2": world.spans("v2")}).accuracy
    assert found is not None and (found.folds, found.videos) == (2, 3)


def test_a_class_in_one_video_only_counts_as_wrong_where_held_out_and_is_named(world: World, desk: Desk) -> None:
    spans = {video: world.spans(video) for video in ("v0", "v1")}
    before = desk.say(spans).accuracy
    spans["v1"] = [Span(0, 10, "glue"), *world.spans("v1", 10)]
    state = desk.say(spans, (*CLASSES, "glue"))
    assert "in one video only" in state.message and "'glue'" in state.message
    assert before is not None and state.accuracy is not None and state.accuracy.mean < before.mean
    found = desk.learner.prediction("v1")
    assert found is not None and found.classes[-1] == "glue"


def test_only_videos_whose_labels_changed_are_read_again(world: World, desk: Desk) -> None:
    spans = {video: world.spans(video) for video in ("v0", "v1")}
    desk.say(spans)
    world.reads.clear()
    desk.say({**spans, "v2": world.spans("v2", 0, 50)}, (*CLASSES, "glue"))
    assert world.reads == ["v2"]


def test_removing_labels_gives_what_was_there_without_them(world: World, desk: Desk, tmp_path: Path) -> None:
    spans = {video: world.spans(video) for video in ("v0", "v1")}
    desk.say({**spans, "v2": [Span(0, 400, "rest")]})
    desk.say(spans)
    other = Desk(world, tmp_path / "other")
    other.say(spans)
    found, expected = desk.learner.prediction("v3"), other.learner.prediction("v3")
    assert found is not None and expected is not None
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-6)


def test_unsure_slots_change_nothing(world: World, desk: Desk, tmp_path: Path) -> None:
    desk.say({"v0": world.spans("v0"), "v1": world.spans("v1", 0, 300)})
    unsure = Desk(world, tmp_path / "unsure")
    wrong = [Span(300, 400, "rest")]
    unsure.say({"v0": world.spans("v0"), "v1": [*world.spans("v1", 0, 300), *wrong]}, unsure={"v1": wrong})
    found, expected = unsure.learner.prediction("v3"), desk.learner.prediction("v3")
    assert found is not None and expected is not None
    np.testing.assert_array_equal(found.confidence, expected.confidence)
    assert unsure.learner.state.accuracy == desk.learner.state.accuracy


def test_the_history_grows_and_outlives_the_learner(world: World, desk: Desk, tmp_path: Path) -> None:
    spans = {video: world.spans(video, 0, 100) for video in ("v0", "v1")}
    desk.say(spans)
    desk.say(spans)
    desk.say({**spans, "v2": world.spans("v2")})
    later = Desk(world, tmp_path / "work").learner.state.history
    assert [(entry.labelled_videos, entry.labelled_seconds) for entry in later] == [(2, 30.0), (3, 90.0)]
    (tmp_path / "work" / "learning.json").write_text("{")
    assert Desk(world, tmp_path / "work").learner.state.history == ()


def test_stamps_tell_the_later_of_two_states(world: World, desk: Desk) -> None:
    stamps = list[int]()
    desk.learner._changed = lambda state: stamps.append(state.stamp)
    desk.say({video: world.spans(video) for video in ("v0", "v1")})
    assert len(stamps) > 1 and stamps == sorted(set(stamps))
    assert desk.learner.status()["stamp"] == stamps[-1]


def test_cancelling_keeps_the_last_head(world: World, desk: Desk) -> None:
    spans = {video: world.spans(video) for video in ("v0", "v1")}
    desk.say(spans)
    desk.learner._changed = lambda state: desk.learner.cancel() if state.state == "running" else None
    state = desk.say({**spans, "v2": world.spans("v2"), "v3": world.spans("v3")})
    assert (state.state, state.revision) == ("idle", 1) and "stopped" in state.message
    assert desk.learner.prediction("v2") is not None


def test_what_cannot_be_learned_from_is_said_and_the_last_head_stays(world: World, desk: Desk) -> None:
    spans = {video: world.spans(video) for video in ("v0", "v1")}
    desk.say(spans)
    state = desk.say({**spans, "nobody": [Span(0, 10, "cut")]})
    assert state.state == "failed" and "'nobody'" in state.message
    assert desk.learner.prediction("v2") is not None
    assert desk.say(spans).state == "idle"


def test_a_video_that_cannot_be_read_is_left_out_and_named(
    world: World, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = world.representation
    broken = np.full((SLOTS, WIDTH), np.nan, np.float32)
    monkeypatch.setattr(desk.learner, "_representation", lambda video: broken if video == "v1" else whole(video))
    state = desk.say({video: world.spans(video) for video in ("v0", "v1", "v2")})
    assert state.state == "idle" and "left out: 1" in state.message
    assert state.accuracy is not None and state.accuracy.videos == 2
    assert desk.learner.uncertainty("v1") is None and desk.learner.uncertainty("v3") is not None
    assert all(each.video != "v1" for each in desk.learner.suggestions(99))


def test_the_saved_head_gives_the_same_answers(world: World, desk: Desk, tmp_path: Path) -> None:
    desk.say({video: world.spans(video) for video in ("v0", "v1")})
    head, found = desk.learner.head(), desk.learner.prediction("v2")
    assert head is not None and found is not None
    head.save(tmp_path / "head.safetensors")
    loaded = load_head(tmp_path / "head.safetensors")
    assert loaded.names == CLASSES and loaded.origin["weights"] == "abc"
    ids = loaded.predict(torch.from_numpy(world.representation("v2"))).numpy()
    np.testing.assert_array_equal(ids, found.ids)


def test_the_status_is_plain_data(world: World, desk: Desk) -> None:
    desk.say({video: world.spans(video) for video in ("v0", "v1")})
    status = json.loads(json.dumps(desk.learner.status()))
    assert set(status) == {"state", "progress", "message", "accuracy", "history", "stamp"}
    assert {"mean", "spread", "folds"} <= set(status["accuracy"])
