"""Breakfast, 50Salads and GTEA in the MS-TCN layout, with the traps that it is known for."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from trees import mstcn

from keystep.data.folder import open_dataset
from keystep.data.problems import Problems
from keystep.datasets import DATA_SETS
from keystep.datasets.registry import preparer
from keystep.errors import InputError

CLASSES = ("SIL", "pour milk", "stir_tea")


def test_counts_are_those_of_the_tree_beside_the_published_ones(tmp_path: Path) -> None:
    """File lists end without a newline, names have dots, classes have blanks: nothing is lost."""
    root = mstcn(tmp_path / "data" / "breakfast", CLASSES)
    survey = preparer("breakfast", {}).survey(tmp_path)
    labels = [(root / "groundTruth" / path.name).read_text().split("\n") for path in (root / "groundTruth").iterdir()]
    segments = sum(1 + sum(a != b for a, b in pairwise(own)) for own in labels)
    frames = sum(80 + number for number in range(6))
    assert survey.counts == {"videos": 6, "classes": 3, "splits": 2, "frames": frames, "segments": segments}
    assert survey.published == {"videos": 1712, "classes": 48, "splits": 4}
    assert not survey.missing and not survey.notes
    assert survey.ready is not None and survey.ready.folder == root and survey.ready.rate == 15


@pytest.mark.parametrize(("name", "rate"), [("breakfast", 15), ("50salads", 30), ("gtea", 15)])
def test_what_is_missing_is_named_with_its_source(tmp_path: Path, name: str, rate: int) -> None:
    kind = DATA_SETS.find(name)
    assert kind.rate == rate and kind.background
    (tmp_path / "features").mkdir()
    survey = preparer(name, {}).survey(tmp_path)
    assert [part.path.name for part in survey.lacking] == ["groundTruth", "mapping.txt", "splits"]
    assert "zenodo.org/records/3625992" in survey.lacking[0].source


def test_a_video_of_a_split_without_features_and_a_missing_background_are_noted(tmp_path: Path) -> None:
    root = mstcn(tmp_path, ("SIL", "a", "b"))
    (root / "features" / "P02.cam01_v1.npy").unlink()
    notes = " ".join(preparer("50salads", {}).survey(root).notes)
    assert "no features for 'P02.cam01_v1.txt'" in notes and "no background class 'action_end'" in notes


def test_a_copy_holds_the_same_numbers_labels_and_splits(tmp_path: Path) -> None:
    root = mstcn(tmp_path / "gtea", ("background", "take", "open"))
    preparer("gtea", {}).write(tmp_path, tmp_path / "out", Problems())
    ours = open_dataset(tmp_path / "out")
    theirs = open_dataset(root, source_rate=ours.timeline.rate)
    assert ours.timeline.rate == 15 and not ours.problems.notes and ours.classes == theirs.classes
    for name in theirs.videos:
        assert np.array_equal(ours.features(name), theirs.features(name))
        assert np.array_equal(ours.labels(name), theirs.labels(name))
    assert [ours.split(split) for split in "12"] == [theirs.split(split) for split in "12"]


def test_every_second_frame_is_what_ms_tcn_takes_of_50salads(tmp_path: Path) -> None:
    root = mstcn(tmp_path, ("action_start", "action_end", "cut"))
    preparer("50salads", {"every": 2}).write(root, tmp_path / "out", Problems())
    ours, theirs = open_dataset(tmp_path / "out"), open_dataset(root, source_rate=DATA_SETS.find("50salads").rate)
    assert ours.timeline.rate == 15
    for name in theirs.videos:
        assert np.array_equal(ours.features(name), theirs.features(name)[::2])
        assert np.array_equal(ours.labels(name), theirs.labels(name)[::2])


def test_a_bad_video_stops_the_copy_or_is_left_out_of_its_splits(tmp_path: Path) -> None:
    root = mstcn(tmp_path / "in", ("background", "take", "open"))
    path = root / "features" / "P03.cam01_v1.npy"
    features = np.load(path)
    features[2, 9] = np.inf
    np.save(path, features)
    with pytest.raises(InputError, match="NaN or infinite value in frame 9"):
        preparer("gtea", {}).write(root, tmp_path / "out", Problems())
    problems = Problems("skip")
    preparer("gtea", {}).write(root, tmp_path / "out", problems)
    assert list(problems.skipped) == ["P03.cam01_v1"]
    split = open_dataset(tmp_path / "out").split("2")
    assert "P03.cam01_v1" not in (*split.train, *split.valid, *split.test)


def test_a_damaged_video_is_in_the_survey(tmp_path: Path) -> None:
    root = mstcn(tmp_path, ("background", "take", "open"))
    (root / "features" / "P03.cam01_v1.npy").write_bytes(b"no array")
    (root / "groundTruth" / "P04.cam01_v1.txt").write_text("takes\n" * 84)
    survey = preparer("gtea", {}).survey(root)
    assert [part.path.name for part in survey.leaving_out] == ["P03.cam01_v1.npy", "P04.cam01_v1.npy"]
    assert "not in mapping.txt" in survey.missing[1].damage


def test_a_root_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder; give --root"):
        preparer("gtea", {}).survey(tmp_path / "nowhere")


NAMES = [
    ("gtea", "S{1}_Tea_C{0}", "S{}"),
    ("50salads", "rgb-0{1}-{0}", "0{}"),
    ("breakfast", "P0{1}_cam{0}_tea", "P0{}"),
]


@pytest.mark.parametrize(("name", "named", "person"), NAMES)
def test_names_say_whose_videos_are_in_a_copy_and_in_place(tmp_path: Path, name: str, named: str, person: str) -> None:
    root = mstcn(tmp_path / "in", ("background", "take", "open"), name=named)
    persons = {named.format(number, number // 2): person.format(number // 2) for number in range(6)}
    survey = preparer(name, {}).survey(root)
    assert not any("persons" in note for note in survey.notes)
    assert survey.ready is not None and survey.ready.groups is not None
    in_place = open_dataset(root, source_rate=survey.ready.rate, groups=survey.ready.groups)
    preparer(name, {}).write(root, tmp_path / "out", Problems())
    copy = open_dataset(tmp_path / "out")
    assert copy.groups == in_place.groups == persons
    assert copy.split("1") == in_place.split("1")
    assert "groups" in copy.split("1").rule


def test_names_that_say_nothing_of_persons_are_noted_and_no_groups_are_written(tmp_path: Path) -> None:
    root = mstcn(tmp_path / "in", ("background", "take", "open"))
    survey = preparer("gtea", {}).survey(root)
    assert survey.ready is not None and survey.ready.groups is None
    assert any(note.startswith("persons are not known: '^(S[0-9]+)_': does not match") for note in survey.notes)
    preparer("gtea", {}).write(root, tmp_path / "out", Problems())
    assert open_dataset(tmp_path / "out").groups is None


def test_groups_that_lie_in_the_tree_come_before_those_in_names(tmp_path: Path) -> None:
    root = mstcn(tmp_path / "in", ("background", "take", "open"), name="S{1}_Tea_C{0}")
    lines = [f"S{number // 2}_Tea_C{number},{'ab'[number % 2]}\n" for number in range(6)]
    (root / "splits" / "groups.csv").write_text("video,group\n" + "".join(lines))
    survey = preparer("gtea", {}).survey(root)
    assert survey.ready is not None and survey.ready.groups is None, "the folder says so itself"
    features = np.load(root / "features" / "S1_Tea_C2.npy")
    features[0, 0] = np.nan
    np.save(root / "features" / "S1_Tea_C2.npy", features)
    preparer("gtea", {}).write(root, tmp_path / "out", Problems("skip"))
    groups = open_dataset(tmp_path / "out").groups
    assert groups is not None and "S1_Tea_C2" not in groups and set(groups.values()) == {"a", "b"} and len(groups) == 5
