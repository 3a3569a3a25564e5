"""`inspect_dataset`, without the command line."""

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
