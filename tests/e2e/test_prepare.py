"""``keystep prepare``, as a person uses it."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from trees import RECORDINGS, assembly101, fact_tree, mstcn, write_arrays

from keystep.data.folder import open_dataset
from keystep.datasets import DATA_SETS

Run = Callable[..., tuple[int, str, str]]


def test_without_a_name_all_data_sets_are_listed_with_their_sources(keystep: Run) -> None:
    status, said, _ = keystep("prepare")
    assert status == 0 and all(name in said for name in DATA_SETS.names())
    assert "assembly-101.github.io" in said and "zenodo.org/records/3625992" in said


def test_without_a_root_the_options_are_listed_with_their_meaning(keystep: Run) -> None:
    status, said, _ = keystep("prepare", "assembly101")
    assert status == 0 and "--set view=C10119: A camera" in said and "--set every=8: Frames (at 30 Hz) per slot" in said


def test_a_whole_tree_is_checked_and_then_written(keystep: Run, tmp_path: Path) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    assembly101(root)
    write_arrays(root, ["C10119_rgb"], dict.fromkeys(RECORDINGS, 150))
    status, said, error = keystep("prepare", "assembly101", "--root", root)
    assert status == 0, error
    assert re.search(r"classes\W+4\W+202\W+differs", said) and re.search(r"segments\W+30\W", said)
    assert "give --out" in said and not out.exists()
    status, said, error = keystep("prepare", "assembly101", "--root", root, "--out", out, "--set", "every=4")
    assert status == 0 and "10 videos" in said, error
    folder = open_dataset(out)
    assert len(folder.videos) == 10 and folder.timeline.rate == 7.5 and not folder.problems.notes


def test_what_is_missing_is_named_and_the_status_is_1(keystep: Run, tmp_path: Path) -> None:
    status, said, _ = keystep("prepare", "gtea", "--root", tmp_path, "--out", tmp_path / "out")
    assert status == 1 and not (tmp_path / "out").exists()
    assert f"missing: {tmp_path / 'gtea' / 'features'}; available from zenodo.org/records/3625992" in said


def test_a_readable_layout_is_said_to_be_ready_with_its_rate(keystep: Run, tmp_path: Path) -> None:
    root = mstcn(tmp_path / "50salads", ("action_start", "action_end", "cut"))
    status, said, _ = keystep("prepare", "50salads", "--root", tmp_path)
    assert status == 0 and f"directly\nnext: keystep inspect {root} --source-rate 30" in said


def test_bad_videos_stop_it_or_are_listed(keystep: Run, tmp_path: Path) -> None:
    root = mstcn(tmp_path / "in", ("background", "take", "open"))
    path = root / "features" / "P03.cam01_v1.npy"
    features = np.load(path)
    features[0, 0] = np.nan
    np.save(path, features)
    command = ("prepare", "gtea", "--root", root, "--out", tmp_path / "out")
    status, _, error = keystep(*command)
    assert status == 2 and "NaN or infinite value in frame 0" in error
    status, said, _ = keystep(*command, "--on-error", "skip")
    assert status == 0 and "left out:" in said and "5 videos" in said


def test_a_video_without_its_files_has_to_be_left_out_by_word(keystep: Run, tmp_path: Path) -> None:
    root, out = fact_tree(tmp_path), tmp_path / "out"
    path = root / "egoprocel" / "features" / "0003.npy"
    path.unlink()
    command = ("prepare", "egoprocel", "--root", root)
    for more in ((), ("--out", out)):
        status, said, _ = keystep(*command, *more)
        assert status == 1 and "all required files" not in said and not out.exists()
        assert f"missing: {path}; available from FACT's" in said and "--on-error skip leaves its video out" in said
    status, said, _ = keystep(*command, "--on-error", "skip")
    assert status == 0 and "all required files are present, except for the videos that are left out" in said
    status, said, _ = keystep(*command, "--on-error", "skip", "--out", out)
    assert status == 0 and "5 videos" in said


def test_a_count_that_could_not_be_made_differs(keystep: Run, tmp_path: Path) -> None:
    root = fact_tree(tmp_path)
    (root / "egoprocel" / "split1.test").unlink()
    status, said, _ = keystep("prepare", "egoprocel", "--root", root, "--out", tmp_path / "out")
    assert status == 1 and "split1.test; available from FACT's" in said and not (tmp_path / "out").exists()
    assert re.search(r"test\W+183\W+differs", said)


def test_wrong_names_suggest_the_nearest(keystep: Run, tmp_path: Path) -> None:
    for command, said in (
        (("brekfast", "--root", tmp_path), "unknown data set 'brekfast'; did you mean breakfast?"),
        (("gtea", "--root", tmp_path, "--set", "evry=2"), "unknown setting evry (did you mean every?)"),
        (("gtea", "--root", tmp_path, "--set", "every=0"), "every: Input should be greater than or equal to 1"),
        (("--root", tmp_path), "give both the data set and its folder"),
        (
            ("gtea", "--root", tmp_path, "--on-error", "ignore"),
            "unknown --on-error 'ignore'; expected one of raise, skip",
        ),
    ):
        status, _, error = keystep("prepare", *command)
        assert status == 2 and said in error, error
