"""CaptainCook4D from a tree in the published layout: labels, mistakes, tasks, and a split for one class."""

from __future__ import annotations

from pathlib import Path

import pytest
from trees import captaincook4d

from keystep.data.folder import open_dataset
from keystep.data.mistakes import Mistake, read_mistakes
from keystep.data.problems import Problems
from keystep.data.tasks import find_tasks
from keystep.datasets.captaincook4d import CaptainCook4D
from keystep.datasets.registry import preparer
from keystep.errors import InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return captaincook4d(tmp_path / "download")


def test_recordings_become_a_folder_with_tasks_and_a_split_for_one_class(root: Path, tmp_path: Path) -> None:
    survey = CaptainCook4D().survey(root)
    assert survey.counts == {
        **{"recordings": 5, "correct recordings": 3, "segments": 10, "omitted steps": 1, "classes": 5},
        "recordings with features": 5,
    }
    assert survey.published["recordings"] == 384 and not survey.missing
    problems = Problems()
    CaptainCook4D().write(root, tmp_path / "out", problems)
    folder = open_dataset(tmp_path / "out")
    assert folder.timeline.rate == 1 and folder.problems.notes == []
    assert folder.classes == ("background", "Pour-Pour 1 egg (1)", "Coat -Coat a cup", "Pour-Pour 1 egg (7)", "Serve")
    assert folder.labels("1_7").tolist() == [0, 0, 2, 2, 0, 0, 0, 1, 1, 4, 4, 4]
    assert folder.labels("2_3").tolist() == [3] * 4 + [4] * 4 + [0] * 4  # the later step is used where two overlap
    assert folder.features("2_3")[0].tolist() == [3.0] * 5
    split = folder.split("1")
    assert (split.train, split.valid, split.test) == (("1_7",), ("1_10",), ("2_3", "2_30"))
    assert find_tasks(folder, ["1_7", "2_3"]) == {"1_7": "Recipe 1", "2_3": "Recipe 2"}
    assert folder.groups is not None and set(folder.groups.values()) == {"person 3"}
    assert "1 recordings with mistakes are in no part of split 1" in problems.notes
    assert any("steps overlap in 1 s" in note for note in problems.notes)


def test_errors_are_mistakes_in_their_slots_and_missing_steps_have_none(root: Path, tmp_path: Path) -> None:
    CaptainCook4D().write(root, tmp_path / "out", Problems())
    folder = open_dataset(tmp_path / "out")
    assert read_mistakes(folder, "1_7") == [] and read_mistakes(folder, "2_3") == []
    assert read_mistakes(folder, "1_28") == [Mistake(0, 3, "technique", "Coat -Coat a cup")]
    assert read_mistakes(folder, "2_30") == [
        Mistake(2, 6, "order", "Pour-Pour 1 egg (7)"),
        Mistake(2, 6, "technique", "Pour-Pour 1 egg (7)"),
        Mistake(6, 6, "omitted", "Serve"),
    ]


def test_missing_and_damaged_parts_are_named(root: Path, tmp_path: Path) -> None:
    features = root / "features" / "omnivore" / "1_7_360p.mp4_1s_1s.npz"
    features.write_bytes(b"no archive")
    with pytest.raises(InputError, match="1_7_360p"):
        CaptainCook4D().write(root, tmp_path / "out", Problems())
    problems = Problems("skip")
    CaptainCook4D().write(root, tmp_path / "out", problems)
    assert list(problems.skipped) == ["1_7"]
    assert "split 1 is not written: no recording with features for its train part" in problems.notes
    features.unlink()
    assert any("1_7_360p" in str(part) for part in CaptainCook4D().survey(root).missing)
    errors = root / "annotations" / "annotation_json" / "error_annotations.json"
    errors.write_text("[{}]")
    with pytest.raises(InputError, match=r"error_annotations\.json: 0\.recording_id"):
        CaptainCook4D().survey(root)
    with pytest.raises(InputError, match="environment_data_split_combined"):
        preparer("captaincook4d", {"split": "environment"}).write(root, tmp_path / "other", Problems())
    errors.unlink()
    assert [part.needed for part in CaptainCook4D().survey(root).missing] == [True]
