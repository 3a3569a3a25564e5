"""Data sets with annotations and one's own features, on made-up trees in the published form."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from keystep.data.folder import open_dataset
from keystep.datasets import examine, prepare
from keystep.errors import InputError


def own_features(root: Path, lengths: dict[str, int], width: int = 5) -> None:
    """(T, D) arrays of up to two slots more than the video is said to have."""
    (root / "features").mkdir(parents=True, exist_ok=True)
    for number, (name, slots) in enumerate(lengths.items()):
        np.save(root / "features" / f"{name}.npy", np.ones((slots + number % 3, width), np.float32))


def names_of(folder: Path, video: str) -> list[str]:
    return (folder / "groundTruth" / f"{video}.txt").read_text().splitlines()


BYPASSES = {"bern": "BBP", "strasbourg": "SBP"}


def bypass(root: Path) -> Path:
    """Four videos at each centre, 30 s long, and one fold of five that has its files."""
    phases = [(2, 14, "preparation", 0), (5, 8, "out_of_body", 12), (14, 28, "disassembling", 10)]
    phases.append((20, 22, "severe_index", 13))
    steps = [(2, 10, "s0_null_step", 0), (10, 28, "s42_trocar_removal", 42)]
    for centre, prefix in BYPASSES.items():
        videos = [f"{prefix}{number:02d}" for number in range(1, 5)]
        labels = root / "labels" / centre / "labels_by70"
        labels.mkdir(parents=True)
        for name in videos:
            levels = {
                level: [
                    {"start": 1000 * start, "end": 1000 * end, "label_name": text, "label_id": label}
                    for start, end, text, label in entries
                ]
                for level, entries in (("phases", phases), ("steps", steps))
            }
            (labels / f"{name}.mp4.json").write_text(json.dumps(levels))
        parts = {"train/1fps_100_0": videos[:2], "val/1fps_0": videos[2:3], "test/1fps_0": videos[3:]}
        for file, own in parts.items():
            path = labels.with_name("labels_by70_splits") / "labels" / f"{file}.pickle"
            path.parent.mkdir(parents=True)
            frames = {name: [{"Frame_id": f"{name}_{1:08d}", "Phase_gt": 0, "Step_gt": 0}] for name in own}
            path.write_bytes(pickle.dumps(frames))
        own_features(root, dict.fromkeys(videos, 30))
    return root


def test_multibypass140_has_phases_with_time_out_of_the_body_and_the_authors_folds(tmp_path: Path) -> None:
    root = bypass(tmp_path / "in")
    survey = examine("multibypass140", root)
    counts = {"videos": 8, "videos with features": 8, "classes": 3, "segments": 24}
    assert survey.counts == counts | {"train": 4, "valid": 2, "test": 2}
    assert survey.published == {"videos": 140, "classes": 13} and "24 files of the folds are missing" in survey.notes[0]
    prepared = prepare("multibypass140", root, tmp_path / "out")
    folder = open_dataset(tmp_path / "out")
    assert prepared.splits == ("1",) and folder.timeline.rate == 1
    split = folder.split("1")
    assert set(split.train) == {"BBP01", "BBP02", "SBP01", "SBP02"} and set(split.valid) == {"BBP03", "SBP03"}
    labels = names_of(tmp_path / "out", "SBP04")
    assert labels[:2] == ["(unlabelled)"] * 2 and labels[2:6] == ["preparation"] * 3 + ["out_of_body"]
    assert labels[20] == "disassembling", "an adverse event is no phase"


def test_multibypass140_has_steps_and_one_centre_on_request(tmp_path: Path) -> None:
    settings = {"level": "steps", "centre": "bern"}
    prepared = prepare("multibypass140", bypass(tmp_path / "in"), tmp_path / "out", settings=settings)
    assert prepared.survey.published == {"videos": 70, "classes": 46} and len(prepared.videos) == 4
    assert open_dataset(tmp_path / "out").classes == ("s0_null_step", "s42_trocar_removal")


def cataracts(root: Path) -> Path:
    """Six operations of 12 s at 25 Hz: idle for 4 s, then an incision."""
    for place, names in {
        "train_gt": ["train01", "train02", "train03"],
        "dev_gt": ["test01"],
        "test_gt": ["test02"],
    }.items():
        folder = root / "ground_truth/CATARACTS_2020" / place
        folder.mkdir(parents=True)
        for name in names:
            lines = [f"{frame},{3 if frame > 100 else 0}" for frame in range(1, 301)]
            (folder / f"{name}.csv").write_text("\n".join(["Frame,Steps", *lines]))
        own_features(root, dict.fromkeys(names, 24))
    return root


CATARACTS = {"features_rate": 2, "frame_rate": 25, "time_axis": 0}


def test_cataracts_has_steps_at_the_features_rate_and_the_challenges_split(tmp_path: Path) -> None:
    prepared = prepare("cataracts", cataracts(tmp_path / "in"), tmp_path / "out", settings=CATARACTS)
    assert prepared.survey.counts["train"] == 3 and prepared.survey.published["test"] == 20
    folder = open_dataset(tmp_path / "out")
    assert len(folder.classes) == 19 and folder.timeline.rate == 2
    assert names_of(tmp_path / "out", "test02")[:24] == ["Idle"] * 8 + ["Incision"] * 16
    assert folder.split("1").valid == ("test01",) and folder.split("1").test == ("test02",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Frame,Steps\n1,0\n3,0", "line 3: '3,0' is not frame 2 and a step of 0 to 18"),
        ("Frame,Steps\n1,19", "line 2: '1,19' is not frame 1 and a step of 0 to 18"),
        ("Frame,Tools\n1,0", "the first line is not 'Frame,Steps'"),
    ],
)
def test_a_damaged_annotation_leaves_out_its_video(text: str, said: str, tmp_path: Path) -> None:
    root = cataracts(tmp_path / "in")
    (root / "ground_truth/CATARACTS_2020/train_gt/train01.csv").write_text(text)
    with pytest.raises(InputError, match=f"train01.csv.*{said}"):
        prepare("cataracts", root, tmp_path / "out", settings=CATARACTS)
    prepared = prepare("cataracts", root, tmp_path / "out", settings=CATARACTS, on_error="skip")
    assert said in prepared.skipped["train01"] and len(prepared.videos) == 4


def ikea(root: Path) -> Path:
    """Four scans of two pieces of furniture at 25 Hz, 20 s long."""
    (root / "indexing_files").mkdir(parents=True)
    (root / "indexing_files/atomic_action_list.txt").write_text("spin leg\nflip table\nalign leg screw")
    scans = [f"{kind}/000{number}_oak_floor" for kind in ("Lack_Side_Table", "Kallax_Shelf") for number in (1, 2)]
    annotation = [{"segment": [50, 200], "label": "flip table"}, {"segment": [200, 450], "label": "spin leg"}]
    subsets = {scan: "testing" if scan.endswith("2_oak_floor") else "training" for scan in scans}
    database = {scan: {"subset": subsets[scan], "annotation": annotation} for scan in scans}
    (root / "gt_segments.json").write_text(json.dumps({"version": "2.0.0", "database": database}))
    own_features(root, {scan.replace("/", "_"): 20 for scan in scans})
    return root


def test_ikea_asm_has_actions_between_which_nothing_is_done(tmp_path: Path) -> None:
    root = ikea(tmp_path / "in")
    prepared = prepare("ikea-asm", root, tmp_path / "out")
    folder = open_dataset(tmp_path / "out")
    assert folder.classes == ("NA", "align leg screw", "flip table", "spin leg")
    assert prepared.survey.counts["train"] == prepared.survey.counts["test"] == 2
    assert names_of(tmp_path / "out", "Kallax_Shelf_0002_oak_floor")[:20] == (
        ["NA"] * 2 + ["flip table"] * 6 + ["spin leg"] * 10 + ["NA"] * 2
    )
    assert folder.split("1").test == ("Lack_Side_Table_0002_oak_floor", "Kallax_Shelf_0002_oak_floor")
    (root / "indexing_files/atomic_action_list.txt").write_text("flip table")
    with pytest.raises(InputError, match=r"Lack_Side_Table/0001_oak_floor: spin leg is not in indexing_files"):
        examine("ikea-asm", root)


@pytest.mark.parametrize(("name", "tree"), [("multibypass140", bypass), ("ikea-asm", ikea)])
def test_absent_and_damaged_files_are_named_and_can_be_left_out(
    name: str, tree: Callable[[Path], Path], tmp_path: Path
) -> None:
    root = tree(tmp_path / "in")
    first, second = sorted((root / "features").iterdir())[:2]
    first.unlink()
    second.write_bytes(b"no array")
    with pytest.raises(InputError, match=f"{first.name}: missing; it comes from your own extraction"):
        prepare(name, root, tmp_path / "out")
    prepared = prepare(name, root, tmp_path / "out", on_error="skip")
    assert set(prepared.skipped) == {first.stem, second.stem}
    assert examine(name, tmp_path).lacking[-1].path == tmp_path / "features"


def test_a_rate_that_does_not_fit_the_annotation_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="check features_rate"):
        prepare("multibypass140", bypass(tmp_path / "in"), tmp_path / "out", settings={"features_rate": 10})
