import numpy as np
import pytest

from keystep.serve.survey import VideoSurvey

RATE = 1.0


def survey(videos: dict[str, np.ndarray]) -> VideoSurvey:
    return VideoSurvey.make({name: len(frames) for name, frames in videos.items()}, videos.__getitem__, RATE)


@pytest.fixture
def three_kinds() -> VideoSurvey:
    """Nine minutes of one kind, four of another and one of a third, each in a video of its own."""
    random, centres = np.random.default_rng(0), {"nine": (0, 0), "four": (9, 0), "one": (0, 5)}
    lengths = {"nine": 540, "four": 240, "one": 60}
    return survey(
        {name: random.normal(centres[name], 0.3, (slots, 2)).astype(np.float32) for name, slots in lengths.items()}
    )


def test_stretches_cover_all_videos_in_about_a_minute_each(three_kinds: VideoSurvey) -> None:
    found = three_kinds.stretches()
    assert len(found) == 14 and {each.stop - each.start for each in found} == {60}


def test_a_short_video_is_one_stretch() -> None:
    (only,) = survey({"a": np.random.default_rng(0).normal(size=(7, 2))}).stretches()
    assert (only.start, only.stop) == (0, 7)


def test_very_long_data_have_few_long_stretches() -> None:
    frames = np.broadcast_to(np.arange(4_000_000, dtype=np.float32)[:, None], (4_000_000, 1))
    assert len(survey({"a": frames}).stretches()) <= 240


def test_suggestions_cover_every_kind_before_one_comes_again(three_kinds: VideoSurvey) -> None:
    found = three_kinds.suggest({}, None, 3)
    assert {each.video for each in found} == {"nine", "four", "one"}
    assert found[0].video == "nine" and found[0].score == 1


def test_what_is_labelled_is_not_suggested_and_what_it_covers_comes_last(three_kinds: VideoSurvey) -> None:
    labelled = {"nine": np.arange(540) < 60}
    found = three_kinds.suggest(labelled, None, 99)
    assert len(found) == 13
    assert [each.video for each in found[:2]] == ["four", "one"]
    assert ("nine", 0) not in {(each.video, each.start) for each in found}


def test_doubt_draws_the_choice(three_kinds: VideoSurvey) -> None:
    doubt = {name: np.full(len(slots), 0.01) for name, slots in three_kinds.slots.items()}
    doubt["one"][:] = 0.9
    for choice in ("mixed", "uncertainty"):
        first = three_kinds.suggest({}, doubt, 1, choice)[0]
        assert first.video == "one" and "unsure here (confidence 10 %)" in first.reason


def test_random_choice_depends_on_the_seed_alone(three_kinds: VideoSurvey) -> None:
    one, same, other = (three_kinds.suggest({}, None, 5, "random", seed) for seed in (1, 1, 2))
    assert one == same != other


def test_nothing_is_suggested_where_all_is_labelled(three_kinds: VideoSurvey) -> None:
    assert three_kinds.suggest({name: np.ones(n, bool) for name, n in three_kinds.lengths.items()}, None, 5) == []


def test_only_surveyed_rows_are_read() -> None:
    class Counted:
        rows = 0

        def __getitem__(self, index: np.ndarray) -> np.ndarray:
            self.rows += len(index)
            return np.random.default_rng(0).normal(size=(len(index), 3))

    found = Counted()
    VideoSurvey.make({"a": 100_000}, lambda video: found, RATE)  # type: ignore[arg-type,return-value]
    assert found.rows == 240
