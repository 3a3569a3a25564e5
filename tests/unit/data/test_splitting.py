"""Folds: every video is tested once, no group is on both sides, nothing is replaced unasked."""

import errno
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from keystep.data import splitting
from keystep.data.folder import open_dataset
from keystep.data.splitting import make_splits
from keystep.errors import InputError
from keystep.files import write_json
from keystep.locking import owning

MakeFolder = Callable[..., Path]
TASKS = ("tea", "coffee", "soup")


def folder_of(make_folder: MakeFolder, names: list[str], **options: object) -> Path:
    root = make_folder(lengths={name: 20 + place for place, name in enumerate(names)}, **options)
    for path in (root / "splits").glob("*"):
        path.unlink()
    return root


def test_every_video_is_tested_once_and_trains_otherwise(make_folder: MakeFolder) -> None:
    names = [f"video{number}" for number in range(12)]
    root = folder_of(make_folder, names)
    made = make_splits(root)
    data = open_dataset(root, source_rate=4)
    assert data.splits == ("1", "2", "3", "4", "5") and sorted(made.videos) == sorted(names)
    splits = [data.split(name) for name in data.splits]
    assert sorted(video for split in splits for video in split.test) == sorted(names)
    assert {len(split.test) for split in splits} == {2, 3}
    for split in splits:
        assert sorted(split.train + split.valid + split.test) == sorted(names)


def test_each_group_is_in_one_fold_and_folds_are_of_about_equal_size(make_folder: MakeFolder) -> None:
    names = [f"P{person}_{number}" for person in range(7) for number in range(1 + person % 3)]
    root = folder_of(make_folder, names)
    made = make_splits(root, folds=3, groups="^(P[0-9]+)_")
    persons = [{name[:2] for name in tested} for tested in made.test.values()]
    assert sum(len(each) for each in persons) == len(set.union(*persons)) == made.groups == 7
    sizes = [len(tested) for tested in made.test.values()]
    assert max(sizes) - min(sizes) <= 1
    data = open_dataset(root, source_rate=4)
    assert data.groups is not None and data.groups["P3_0"] == "P3", (
        "groups are kept, so that validation parts know them"
    )
    assert "groups" in data.split("1").rule


def test_each_task_is_spread_over_the_folds(make_folder: MakeFolder) -> None:
    names = [f"{task}{number}" for task, many in zip(TASKS, (8, 4, 4), strict=True) for number in range(many)]
    root = folder_of(make_folder, names)
    made = make_splits(root, folds=4, task_pattern="[a-z]+")
    assert made.tasks == 3
    for tested in made.test.values():
        assert Counter(name.rstrip("0123456789") for name in tested) == {"tea": 2, "coffee": 1, "soup": 1}


def test_tasks_are_those_that_the_features_were_stored_with(make_folder: MakeFolder) -> None:
    names = [f"video{number}" for number in range(6)]
    root = folder_of(make_folder, names)
    for number, name in enumerate(names):
        write_json(root / "features" / f"{name}.json", {"task": TASKS[number % 3]})
    made = make_splits(root, folds=2)
    for tested in made.test.values():
        assert sorted(int(name[5:]) % 3 for name in tested) == [0, 1, 2]


def test_folds_depend_on_names_and_seed_alone(make_folder: MakeFolder) -> None:
    names = [f"video{number}" for number in range(10)]
    first = make_splits(folder_of(make_folder, names, name="first")).test
    again = make_splits(folder_of(make_folder, names[::-1], name="again")).test
    other = make_splits(folder_of(make_folder, names, name="other"), seed=1).test
    assert {key: set(value) for key, value in first.items()} == {key: set(value) for key, value in again.items()}
    assert {frozenset(value) for value in first.values()} != {frozenset(value) for value in other.values()}


def test_splits_are_replaced_only_when_asked(make_folder: MakeFolder) -> None:
    root = folder_of(make_folder, [f"video{number}" for number in range(6)])
    make_splits(root, folds=4)
    (root / "splits" / "valid.split4.bundle").write_text("video0.txt\n")
    before = {path.name: path.read_text() for path in (root / "splits").iterdir()}
    with pytest.raises(InputError, match=r"test\.split1\.bundle: exists already; give --overwrite"):
        make_splits(root, folds=2)
    assert before == {path.name: path.read_text() for path in (root / "splits").iterdir()}
    make_splits(root, folds=2, overwrite=True)
    assert open_dataset(root, source_rate=4).splits == ("1", "2") and not list((root / "splits").glob("valid*"))


def test_groups_that_are_there_are_replaced_only_when_asked(make_folder: MakeFolder) -> None:
    root = folder_of(make_folder, [f"a{n}_{n % 2}" for n in range(4)])
    (root / "splits" / "groups.csv").write_text("video,group\n" + "".join(f"a{n}_{n % 2},all\n" for n in range(4)))
    with pytest.raises(InputError, match=r"groups\.csv: exists already"):
        make_splits(root, groups="_([01])$")
    assert make_splits(root, groups="_([01])$", overwrite=True).groups == 2


def test_videos_that_cannot_be_scored_are_in_no_split(make_folder: MakeFolder) -> None:
    root = folder_of(make_folder, [f"video{number}" for number in range(6)])
    (root / "groundTruth" / "video2.txt").unlink()
    frames = np.load(root / "features" / "video3.npy").shape[1]
    (root / "groundTruth" / "video3.txt").write_text("(unlabelled)\n" * frames)
    made = make_splits(root, folds=2)
    assert made.left_out == {"video2": "it has no labels", "video3": "no frame of it has a label"}
    assert len(made.videos) == 4


def test_without_any_labels_all_videos_are_dealt(make_folder: MakeFolder) -> None:
    root = folder_of(make_folder, [f"video{number}" for number in range(4)], labelled=False)
    assert len(make_splits(root).test) == 4


@pytest.mark.parametrize(
    ("count", "options", "line"),
    [
        (2, {}, "2 videos of 2 videos; folds need at least 3 videos"),
        (4, {"groups": "^(v)"}, "4 videos of 1 groups; folds need at least 3 videos and 2 groups"),
        (4, {"folds": 5}, "--folds 5 for 4 videos; give 2 to 4"),
        (4, {"folds": 1}, "--folds 1 for 4 videos; give 2 to 4"),
        (4, {"task_pattern": "tea"}, "--task-pattern 'tea' does not match the video name 'v0'"),
        (4, {"on_error": "never"}, "unknown --on-error 'never'; expected one of"),
    ],
)
def test_what_cannot_be_folded_ends_in_one_line(make_folder: MakeFolder, count: int, options: dict, line: str) -> None:
    root = folder_of(make_folder, [f"v{number}" for number in range(count)])
    with pytest.raises(InputError, match=line):
        make_splits(root, **options)
    assert not list((root / "splits").iterdir())


def test_a_fold_that_leaves_one_video_to_train_on_is_refused(make_folder: MakeFolder) -> None:
    root = folder_of(make_folder, ["a_1", "a_2", "b_1"])
    with pytest.raises(InputError, match="one of 2 folds tests 2 of 3 videos; at least 2 have to train"):
        make_splits(root, groups="^(.)_")
    assert not list((root / "splits").iterdir())


def test_splits_are_replaced_all_or_none_and_what_else_is_there_stays(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder_of(make_folder, [f"video{number}" for number in range(6)])
    (root / "splits" / "README").write_text("ours")
    make_splits(root, folds=3)
    before = {path.name: path.read_text() for path in (root / "splits").iterdir()}
    written = []

    def refuse(path: Path, lines: object) -> None:
        written.append(path)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(splitting, "write_lines", refuse)
    with pytest.raises(InputError, match="splits: cannot be written: No space left on device; nothing was changed"):
        make_splits(root, folds=2, overwrite=True)
    assert before == {path.name: path.read_text() for path in (root / "splits").iterdir()} and "README" in before


def test_a_folder_that_another_process_writes_to_gets_no_splits(make_folder: MakeFolder) -> None:
    root = folder_of(make_folder, [f"video{number}" for number in range(6)])
    with owning(root), pytest.raises(InputError, match="is writing there"):
        make_splits(root)
