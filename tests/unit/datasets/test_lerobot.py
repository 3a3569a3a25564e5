"""LeRobot data sets of version 3, on a made-up one."""

import json
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keystep.data.annotation import UNLABELLED
from keystep.data.folder import open_dataset
from keystep.datasets import examine, prepare
from keystep.errors import InputError

arrow: Any = pytest.importorskip("pyarrow", reason="pyarrow is an extra")
parquet: Any = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra")
LENGTHS = (12, 9, 15)
NAMES = ("reach for the cup", "lift it", "pour")


def write(path: Path, columns: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.table(columns), path)


def tree(root: Path, splits: dict[str, str] | None = None, names: tuple[str, ...] = NAMES) -> Path:
    """Three episodes in two files of frames, at 10 Hz: the state is 3 wide, the action one number, as wide as 1 is."""
    info = {"codebase_version": "v3.0", "fps": 10, "total_episodes": 3, "total_frames": sum(LENGTHS), "features": {}}
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info | {"splits": splits or {"train": "0:2", "test": "2:3"}}))
    write(root / "meta/subtasks.parquet", {"subtask_index": range(len(names)), "subtask": names})
    write(root / "meta/tasks.parquet", {"task_index": [0], "__index_level_0__": ["make tea"]})
    episodes = {"episode_index": range(3), "length": LENGTHS, "tasks": [["make tea"]] * 3}
    places = {"data/chunk_index": [0, 0, 0], "data/file_index": [0, 0, 1], "stats/action/mean": [[0.0]] * 3}
    write(root / "meta/episodes/chunk-000/file-000.parquet", episodes | places)
    for file, own in enumerate(((0, 1), (2,))):
        frames = np.concatenate([np.arange(LENGTHS[episode]) for episode in own])
        episode = np.repeat(own, [LENGTHS[episode] for episode in own])
        state = np.stack([episode, frames, frames % 2], axis=1).astype(np.float32)
        columns = {
            "observation.state": arrow.FixedSizeListArray.from_arrays(state.ravel(), 3) if file else state.tolist(),
            "action": (frames / 10).astype(np.float32),
            "episode_index": episode,
            "frame_index": frames,
            "task_index": 0 * frames,
            "subtask_index": frames // 5,
            "note": ["text"] * len(frames),
        }
        write(root / f"data/chunk-000/file-{file:03d}.parquet", columns)
    return root


def test_state_and_action_become_features_and_subtasks_labels(tmp_path: Path) -> None:
    root = tree(tmp_path / "in")
    survey = examine("lerobot", root)
    assert survey.counts == {"videos": 3, "frames": 36, "classes": 3, "segments": 3 + 2 + 3} and not survey.differing
    prepared = prepare("lerobot", root, tmp_path / "out")
    assert prepared.splits == ("1",) and prepared.videos == ("episode_000000", "episode_000001", "episode_000002")
    folder = open_dataset(tmp_path / "out")
    assert folder.classes == NAMES and folder.timeline.rate == 10 and folder.timeline.look_ahead == 0
    features = folder.features("episode_000002")
    assert features.shape == (15, 4) and features[7].tolist() == pytest.approx([2, 7, 1, 0.7])
    assert folder.labels("episode_000002").tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert folder.split("1").test == ("episode_000002",)


def test_columns_labels_and_rate_are_chosen(tmp_path: Path) -> None:
    settings = {"columns": ["observation.state"], "labels": "task", "every": 4, "how": "average", "half": True}
    prepare("lerobot", tree(tmp_path / "in"), tmp_path / "out", settings=settings)
    folder = open_dataset(tmp_path / "out")
    assert folder.timeline.rate == Fraction(5, 2) and folder.timeline.look_ahead == 0
    assert folder.classes == ("make tea",) and folder.features("episode_000001").tolist()[0] == [1, 1.5, 0.5]
    assert np.load(tmp_path / "out/features/episode_000001.npy").shape == (3, 3)


def test_without_a_test_part_or_subtasks_that_is_said(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", splits={"train": "0:3"})
    (root / "meta/subtasks.parquet").unlink()
    prepared = prepare("lerobot", root, tmp_path / "out")
    assert "keystep split makes folds" in prepared.survey.notes[1] and prepared.splits == ()
    assert "without labels" in prepared.survey.notes[0] and not (tmp_path / "out/groundTruth").exists()


def test_frames_that_keystep_exported_as_unlabelled_are_so_again(tmp_path: Path) -> None:
    prepare("lerobot", tree(tmp_path / "in", names=("cut", UNLABELLED, "stir")), tmp_path / "out")
    folder = open_dataset(tmp_path / "out")
    assert folder.classes == ("cut", "stir")
    assert folder.labels("episode_000000").tolist() == [0] * 5 + [folder.labels("episode_000000")[5]] * 5 + [1] * 2
    assert folder.labels("episode_000000")[5] < 0


def test_a_missing_file_leaves_out_its_episodes(tmp_path: Path) -> None:
    root = tree(tmp_path / "in")
    (root / "data/chunk-000/file-001.parquet").unlink()
    with pytest.raises(InputError, match=r"file-001.parquet: missing; .* or give --on-error skip"):
        prepare("lerobot", root, tmp_path / "out")
    prepared = prepare("lerobot", root, tmp_path / "out", on_error="skip")
    assert list(prepared.skipped) == ["episode_000002"] and len(prepared.videos) == 2 and prepared.splits == ()
    assert "split 1 is not written: it lacks videos to train on or to test on" in prepared.warnings


def edited(path: Path, **columns: Any) -> None:
    """Replace columns of a file; None removes one."""
    table = parquet.read_table(path).to_pydict() | columns
    write(path, {name: column for name, column in table.items() if column is not None})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"frame_index": [*range(1, 16)]}, r"episode 2 does not have the frames 0 to 14"),
        ({"subtask_index": [3] * 15}, r"a subtask_index that is none of the 3 in meta/subtasks.parquet"),
        ({"action": None}, r"no column action; it has observation.state, episode_index"),
        ({"action": [[0.0]] * 14 + [[0.0, 1.0]]}, r"column action, list<.*>, does not hold lists of one length"),
        ({"action": [None] * 15}, r"column action has 15 empty cells"),
        ({"action": ["left"] * 15}, r"column action does not hold numbers; set columns"),
    ],
)
def test_what_does_not_fit_is_one_line_about_its_file(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    root = tree(tmp_path / "in")
    edited(root / "data/chunk-000/file-001.parquet", **change)
    with pytest.raises(InputError, match=said) as error:
        prepare("lerobot", root, tmp_path / "out")
    assert "file-001.parquet" in str(error.value) and "\n" not in str(error.value)


def test_older_versions_damage_and_a_missing_package_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path / "in")
    info = root / "meta/info.json"
    text = info.read_text()
    info.write_text(text.replace("v3.0", "v2.1"))
    with pytest.raises(InputError, match=r"info.json: version v2.1; version 3 is read; convert it"):
        examine("lerobot", root)
    info.write_text(text)
    (root / "meta/subtasks.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"subtasks.parquet: not a readable Parquet file"):
        examine("lerobot", root)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'keystep\[exchange\]'"):
        examine("lerobot", root)
    assert examine("lerobot", tmp_path).lacking[0].path == tmp_path / "meta/info.json"
