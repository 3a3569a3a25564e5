"""The surgical archives, as ``keystep import official`` reads them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from release import packed, regular_times, surgical

from keystep.data.folder import open_dataset
from keystep.data.problems import Problems
from keystep.datasets.registry import preparer
from keystep.errors import InputError

FILE = "cholec80_pl_stitch_vitb16_1fps.pt"


def archive(root: Path, numbers: list[int], folder: str = "Cholec80") -> Path:
    """An archive of so-numbered videos, 30 s each with three phases."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    videos = {f"video{number:02d}": regular_times(30, 1.0) for number in numbers}
    labels = np.tile(np.repeat([0, 1, 2], 10), len(videos)).tolist()
    torch.save(surgical(videos, labels), root / folder / FILE)
    return root / folder / FILE


def test_cholec80_has_both_of_its_splits_and_every_phase(tmp_path: Path) -> None:
    numbers = [1, 2, 31, 32, 33, 40, 41, 80]
    archive(tmp_path / "in", numbers)
    data_set = preparer("cholec80", {"half": True})
    survey = data_set.survey(tmp_path / "in")
    assert survey.counts == {"videos": 8, "classes": 3, "frames": 240, "segments": 24}
    assert survey.published == {"videos": 80, "classes": 7} and set(survey.differing) == {"videos", "classes"}
    data_set.write(tmp_path / "in", tmp_path / "out", Problems())
    folder = open_dataset(tmp_path / "out")
    split = folder.split("1")
    assert split.train == ("video01", "video02", "video31", "video32") and split.valid == ("video33", "video40")
    assert split.test == folder.split("2").test == ("video41", "video80")
    second = folder.split("2")
    assert {*second.train, *second.valid} == {f"video{number:02d}" for number in numbers if number <= 40}
    assert folder.timeline.rate == 1 and folder.labels("video80").tolist() == [0] * 10 + [1] * 10 + [2] * 10


def test_an_archive_that_is_missing_or_of_another_kind_is_named(tmp_path: Path) -> None:
    survey = preparer("m2cai16", {}).survey(tmp_path)
    assert survey.lacking[0].path.name == "m2cai16_pl_stitch_vitb16_1fps.pt" and survey.published == {"videos": 41}
    torch.save(packed({"a.pt": regular_times(5, 1.0)}), tmp_path / FILE)
    with pytest.raises(InputError, match="a packed archive without phase labels"):
        preparer("cholec80", {}).survey(tmp_path)
