"""Labels frame by frame: whose line a slot gets, and which labels are refused."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from keystep.data.annotation import UNLABELLED
from keystep.errors import InputError
from keystep.extraction.labels import FrameLabels, Lengths, SourceFrames

CLASSES = [f"step {number}" for number in range(200)]


@pytest.fixture
def labels(tmp_path: Path) -> FrameLabels:
    """200 lines for "video", each a class of its own."""
    (tmp_path / "groundTruth").mkdir()
    (tmp_path / "groundTruth" / "video.txt").write_text("\n".join(CLASSES))
    (tmp_path / "mapping.txt").write_text("\n".join(f"{index} {name}" for index, name in enumerate(CLASSES)))
    return FrameLabels(tmp_path)


def source(count: int, rate: int = 30, **more: object) -> SourceFrames:
    return SourceFrames(count=count, seconds=count / rate, rate=Fraction(rate), **more)  # type: ignore[arg-type]


def given(labels: FrameLabels, shown: list[int], frames: SourceFrames) -> tuple[list[str], list[str]]:
    found = labels.slot_labels("video", np.array(shown) / 30, np.array(shown), frames)
    assert found is not None
    return found


def test_a_slot_gets_the_line_of_the_frame_that_is_shown(labels: FrameLabels):
    assert given(labels, [0, 7, 199], source(200)) == (["step 0", "step 7", "step 199"], [])
    assert labels.slot_labels("other", np.zeros(1), np.zeros(1), source(200)) is None


def test_labels_that_stop_early_are_noted_and_the_rest_is_unlabelled(labels: FrameLabels):
    found, notes = given(labels, [199, 200, 220], source(221))
    assert found == ["step 199", UNLABELLED, UNLABELLED]
    assert notes == ["video: labels for 200 frames, the video has 221; the last 21 are unlabelled"]
    _, (doubt,) = given(labels, [0], source(400))
    assert "the last 200 are unlabelled; are they at another rate (--label-rate)?" in doubt


def test_more_labels_than_frames_are_noted_up_to_sixteen_and_refused_beyond(labels: FrameLabels):
    _, notes = given(labels, [0], source(184))
    assert notes == ["video: labels for 200 frames, the video has 184; 16 are not used"]
    with pytest.raises(InputError, match="labels for 200 frames, the video has 100; give --label-rate"):
        given(labels, [0], source(100))


@pytest.mark.parametrize(("frames", "fits"), [(199, True), (184, True), (183, False), (100, False)])
def test_labels_may_be_longer_by_a_few_lines_only(labels: FrameLabels, frames: int, fits: bool):
    if fits:
        given(labels, [0], source(frames))
    else:
        with pytest.raises(InputError, match="give --label-rate"):
            given(labels, [0], source(frames))


@pytest.mark.parametrize(("frames", "most"), [(12, 14), (40, 48), (100, 116), (1000, 1016)])
def test_the_shorter_a_video_the_fewer_lines_are_spare(tmp_path: Path, frames: int, most: int):
    (tmp_path / "groundTruth").mkdir()
    (tmp_path / "mapping.txt").write_text("0 pour")
    short = FrameLabels(tmp_path)
    for lines in (most, most + 1):
        (tmp_path / "groundTruth" / "video.txt").write_text("pour\n" * lines)
        if lines == most:
            assert short.slot_labels("video", np.zeros(1), np.zeros(1, int), source(frames)) is not None
        else:
            with pytest.raises(InputError, match=f"labels for {lines} frames, the video has {frames}"):
                short.slot_labels("video", np.zeros(1), np.zeros(1, int), source(frames))


@pytest.mark.parametrize(
    "lengths",
    [[], [(50, 100)], [(100, 100), (101, 100)], [(95, 100), (180, 200)], [(50, 100), (98, 98)], [(45, 90), (60, 100)]],
)
def test_videos_that_are_labelled_in_part_have_no_rate_in_common(labels: FrameLabels, lengths: list[tuple[int, float]]):
    labels.check_rate([Lengths(*one) for one in lengths])


@pytest.mark.parametrize(
    "lengths",
    [
        [(50, 100), (20, 40)],
        [(50, 100), (50, 100)],
        [(24, 12), (26, 13)],
        [(96, 100), (192, 200)],
        [(6, 12), (6, 13), (7, 14)],
        [(201, 100), (399, 200)],
        [(1200, 1000), (2411, 2000)],
    ],
)
def test_lengths_that_are_off_by_one_factor_are_another_rate(labels: FrameLabels, lengths: list[tuple[int, float]]):
    with pytest.raises(InputError, match=r"lines per frame in all \d videos, .* another rate; give --label-rate"):
        labels.check_rate([Lengths(*one) for one in lengths])
    by_time = FrameLabels(labels.root, Fraction(30))
    with pytest.raises(InputError, match=r"0\.5 lines per 1/30 s in all 2 videos, .*another --label-rate, such as 15"):
        by_time.check_rate([Lengths(50, 100), Lengths(20, 40)])
    assert labels.lengths("video", 400, 20.0) == (200, 400) and by_time.lengths("video", 400, 20.0) == (200, 600)
    assert labels.lengths("video", 0, 0.0) is None


def test_lines_at_a_rate_of_their_own_are_taken_by_time(labels: FrameLabels):
    """A third of a second in binary is less than a third, and still has line 10."""
    by_time = FrameLabels(labels.root, Fraction(30))
    times = np.arange(20) / 3
    found = by_time.slot_labels("video", times, np.zeros(20, int), source(100, rate=15))
    assert found == ([CLASSES[10 * slot] for slot in range(20)], [])
    with pytest.raises(InputError, match="200 labels at 30 Hz, the video has time for 90; give another --label-rate"):
        by_time.slot_labels("video", times, np.zeros(20, int), source(45, rate=15))


def test_labels_behind_lost_frames_stay_with_their_pictures(labels: FrameLabels):
    damaged = source(150, damaged=True, holes=((10, 3), (20, 40)))
    found, notes = given(labels, [9, 10, 19, 20, 149], damaged)
    assert found == ["step 9", "step 13", "step 22", "step 60", "step 189"]
    assert "labels for 200 frames, the video has 190; 10 are not used" in notes[0]
    assert "40 frames are missing in between" in notes[1]


def test_labels_of_a_video_that_was_cut_off_are_not_refused(labels: FrameLabels):
    found, notes = given(labels, [0, 49], source(50, damaged=True))
    assert found == ["step 0", "step 49"] and "150 are not used" in notes[0]
    _, notes = given(labels, [0], source(50, damaged=True, holes=None))
    assert "later labels may be shifted" in notes[1]


def test_videos_without_labels_are_named_and_none_at_all_is_refused(labels: FrameLabels):
    assert labels.missing(["video", "other"]) == ["other"]
    with pytest.raises(InputError, match=r"no labels for any of the videos, such as other\.txt"):
        labels.missing(["other"])


def test_other_labels_than_before_are_told(labels: FrameLabels, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    assert labels.copy_to(out) == [] and labels.copy_to(out) == []
    assert (out / "mapping.txt").read_text().split("\n")[:-1] == [f"{i} {name}" for i, name in enumerate(CLASSES)]
    assert "the labels have changed" in FrameLabels(labels.root, Fraction(15)).copy_to(out)[0]
    (labels.root / "groundTruth" / "video.txt").write_text("step 1\n")
    assert "the labels have changed" in FrameLabels(labels.root, Fraction(15)).copy_to(out)[0]
