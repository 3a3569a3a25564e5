"""`inspect_dataset`, without the command line."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from keystep.data.inspection import ClassCount, inspect_dataset


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four videos, three of them labelled, of 6 numbers a frame, in the MS-TCN layout."""
    for part in ("features", "groundTruth", "splits"):
        (tmp_path / part).mkdir()
    (tmp_path / "mapping.txt").write_text("0 wait\n1 cut\n2 pour\n")
    for index in range(4):
        features = np.random.default_rng(index).normal(size=(6, 20 + index))
        np.save(tmp_path / "features" / f"video{index}.npy", features.astype(np.float32))
        if index < 3:
            lines = ["wait"] * 5 + ["cut"] * 10 + ["wait"] * 2 + ["(unlabelled)"] * (3 + index)
            (tmp_path / "groundTruth" / f"video{index}.txt").write_text("\n".join(lines))
    for part, index in (("train", 0), ("valid", 1), ("test", 3)):
        (tmp_path / "splits" / f"{part}.split1.bundle").write_text(f"video{index}.txt\n")
    return tmp_path


def test_counts_of_a_sound_folder(data: Path):
    (data / "splits" / "test.split1.bundle").write_text("video2.txt\n")
    found = inspect_dataset(data, source_rate=4)
    assert (found.rate, found.problems, found.warnings) == (Fraction(4), (), ())
    assert dict(found.lengths) == {"video0": 20, "video1": 21, "video2": 22, "video3": 23}
    assert list(found.classes.items()) == [
        ("cut", ClassCount(30, 3)),
        ("wait", ClassCount(21, 6)),
        ("pour", ClassCount(0, 0)),
    ]
    assert (found.labelled, found.unlabelled) == (63, 12)
    assert not found.groups and not found.splits[0].groups
    assert [(split.name, dict(split.videos)) for split in found.splits] == [("1", {"train": 1, "valid": 1, "test": 1})]
    assert repr(found) == f"Inspection({str(data)!r}, 4 videos, 3 classes, 0 problems, 0 warnings)"


def test_every_problem_is_a_line_and_an_unknown_rate_is_none(data: Path):
    broken = np.load(data / "features" / "video2.npy")
    broken[3, 7] = np.nan
    np.save(data / "features" / "video2.npy", broken)
    (data / "groundTruth" / "forgotten.txt").write_text("cut\n")
    found = inspect_dataset(data)
    assert found.rate is None and found.labelled == 41
    nan, alone, unlabelled = found.problems
    assert "video2.npy: NaN or infinite value in frame 7" in nan
    assert alone == f"{data}: labels but no features for 'forgotten'"
    assert unlabelled == "split 1: video3 of test has no labels"


def with_groups(data: Path, groups: str) -> Path:
    (data / "splits" / "test.split1.bundle").write_text("video2.txt\n")
    lines = [f"video{index},{group}\n" for index, group in enumerate(groups)]
    (data / "splits" / "groups.csv").write_text("video,group\n" + "".join(lines))
    return data


def test_persons_on_both_sides_of_a_split_are_a_warning(data: Path):
    apart = inspect_dataset(with_groups(data, "abca"), source_rate=4)
    assert dict(apart.groups) == {"a": 2, "b": 1, "c": 1} and not apart.warnings and not apart.problems
    assert dict(apart.splits[0].groups) == {"train": 1, "valid": 1, "test": 1}
    test, valid = inspect_dataset(with_groups(data, "aaab"), source_rate=4).warnings
    assert test.startswith("split 1: 1 of 1 test videos are of groups that also train (1 of 1 groups, such as 'a')")
    assert valid.startswith("split 1: 1 of 1 valid videos are of groups that also train")
    assert len(inspect_dataset(data, source_rate=4, groups="(video)").warnings) == 2


def test_groups_that_do_not_fit_are_one_problem_and_the_splits_are_still_listed(data: Path):
    (problem,) = inspect_dataset(with_groups(data, "ab"), source_rate=4).problems
    assert "groups.csv: 2 of 4 videos have no group, such as 'video2'" in problem
    assert len(inspect_dataset(data, source_rate=4).splits) == 1


def write_waves(data: Path, period: float, count: int = 70, length: int = 200) -> None:
    """Cosines of one period with random phases: half alike after a sixth of it."""
    rng = np.random.default_rng(0)
    for path in (data / "features").iterdir():
        path.unlink()
    for index in range(count):
        phases = 2 * np.pi * (np.arange(length + index)[None] / period + rng.random((6, 1)))
        np.save(data / "features" / f"video{index:02}.npy", np.cos(phases).astype(np.float32))


def test_the_decorrelation_time_is_measured_in_seconds_and_frames_on_a_sample_of_the_videos(data: Path):
    write_waves(data, period=30.0)
    found = inspect_dataset(data, source_rate=4)
    assert found.time_scale is not None and found.time_scale.tau == pytest.approx(30 / 6 / 4, rel=0.05)
    assert found.time_scale.low <= found.time_scale.tau <= found.time_scale.high
    assert found.tau_frames == pytest.approx(
        [4 * found.time_scale.tau, 4 * found.time_scale.low, 4 * found.time_scale.high]
    )
    assert found.measured == 60
    slower = inspect_dataset(data, source_rate=4, rate=2)
    assert slower.time_scale is not None and slower.time_scale.tau == pytest.approx(found.time_scale.tau, rel=0.1)
    rateless = inspect_dataset(data)
    assert rateless.tau_frames == pytest.approx(found.tau_frames)
    assert json.loads(json.dumps(rateless.to_json()))["tau"]["seconds"] is None


def test_constant_features_have_no_decorrelation_time_and_a_line_says_so(data: Path):
    write_waves(data, period=np.inf, count=4)
    found = inspect_dataset(data, source_rate=4)
    assert found.time_scale is None and found.tau_frames is None
    assert any(line.startswith("no decorrelation time: the features are constant") for line in found.warnings)
    assert found.to_json()["tau"] == {"seconds": None, "frames": None, "videos": 4}


def test_the_json_says_what_the_table_says(data: Path):
    found = inspect_dataset(with_groups(data, "aaab"), source_rate=4)
    record = json.loads(json.dumps(found.to_json()))
    assert (record["rate_hz"], record["width"], record["lengths"]["video3"]) == (4.0, 6, 23)
    assert record["classes"]["cut"] == {"frames": 30, "segments": 3} and record["unlabelled_frames"] == 12
    assert record["splits"][0]["videos"] == record["splits"][0]["groups"] == {"train": 1, "valid": 1, "test": 1}
    assert record["groups"] == {"a": 3, "b": 1} and len(record["warnings"]) == 2 and record["problems"] == []
    assert len(record["tau"]["seconds"]) == len(record["tau"]["frames"]) == 3


def test_labels_that_end_long_before_their_videos_are_questioned(data: Path):
    (data / "splits" / "test.split1.bundle").write_text("video2.txt\n")
    (data / "groundTruth" / "video1.txt").write_text("\n".join(["cut"] * 7 + ["(unlabelled)"] * 14))
    (line,) = inspect_dataset(data, source_rate=4).warnings
    assert line.startswith("labels end early in 1 of 3 videos; video1: 67 % is unlabelled: are they of another frame")
