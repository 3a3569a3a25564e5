"""CaptainCook4D from a tree in the published layout: labels, mistakes, tasks, and a split for one class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keystep.data.folder import open_dataset
from keystep.data.mistakes import Mistake, read_mistakes
from keystep.data.problems import Problems
from keystep.data.tasks import find_tasks
from keystep.datasets.captaincook4d import CaptainCook4D
from keystep.datasets.registry import preparer
from keystep.errors import InputError

STEPS = {"1": "Pour-Pour 1 egg", "3": "Coat -Coat a cup", "7": "Pour-Pour 1 egg", "9": "Serve"}
WRONG = {"tag": "Technique Error", "description": "spilt"}
LATE = {"tag": "Order Error", "description": "too late"}
RECORDINGS: dict[str, list[tuple[int, float, float, list[dict[str, str]]]]] = {
    "1_7": [(3, 1.2, 4.0, []), (1, 6.5, 9.0, []), (9, 9.0, 12.0, [])],
    "1_10": [(3, 0.0, 3.0, []), (1, 3.0, 6.0, [])],
    "1_28": [(3, 0.0, 3.0, [WRONG]), (1, 3.0, 6.0, [])],
    "2_3": [(7, 0.0, 5.0, []), (9, 4.0, 8.0, [])],
    "2_30": [(7, 2.0, 5.5, [WRONG, LATE]), (9, -1.0, -1.0, [{"tag": "Missing Step", "description": ""}])],
}
SPLIT = {"train": ["1_7", "1_28"], "val": ["1_10"], "test": ["2_3", "2_30"]}


def tree(root: Path) -> Path:
    """Annotations and omnivore features, as they are published."""
    complete, errors = {}, []
    for name, steps in RECORDINGS.items():
        own: list[dict[str, Any]] = [
            {"step_id": step, "start_time": start, "end_time": end, "description": STEPS[str(step)]}
            for step, start, end, _ in steps
        ]
        activity = {"activity_id": int(name[0]), "activity_name": f"Recipe {name[0]}", "person_id": 3, "environment": 8}
        flags = [{**one, "has_errors": bool(found)} for one, (*_, found) in zip(own, steps, strict=True)]
        complete[name] = {"recording_id": name, **activity, "steps": flags}
        tagged = [{**one, **({"errors": found} if found else {})} for one, (*_, found) in zip(own, steps, strict=True)]
        errors.append({"recording_id": name, "activity_id": 1, "is_error": True, "step_annotations": tagged})
    files = {
        "annotation_json/complete_step_annotations.json": complete,
        "annotation_json/error_annotations.json": errors,
        "annotation_json/step_idx_description.json": STEPS,
        "data_splits/recordings_data_split_combined.json": SPLIT,
    }
    for path, content in files.items():
        (root / "annotations" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "annotations" / path).write_text(json.dumps(content, indent=4))
    (root / "features" / "omnivore").mkdir(parents=True)
    for number, name in enumerate(RECORDINGS):
        features = np.full((12, 5), number, dtype=np.float32)
        np.savez(root / "features" / "omnivore" / f"{name}_360p.mp4_1s_1s.npz", features)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tree(tmp_path / "download")


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
