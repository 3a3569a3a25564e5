"""`keystep.datasets.prepare`, as a program uses it."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from trees import fact_tree, mstcn

from keystep.datasets import examine, prepare
from keystep.errors import InputError
from keystep.progress import Lines


def test_a_readable_download_is_used_as_it_is(tmp_path: Path) -> None:
    root = mstcn(tmp_path / "in", ("background", "take", "open"))
    prepared = prepare("gtea", root)
    assert prepared.folder == root and prepared.source_rate == Fraction(15)
    assert prepared.splits == ("1", "2") and len(prepared.videos) == prepared.survey.counts["videos"]
    assert prepared.groups is None, "these names are not GTEA's"
    assert repr(prepared) == f"Prepared({str(root)!r}, {len(prepared.videos)} videos, splits 1, 2)"


def test_a_written_folder_names_its_videos_splits_and_what_was_left_out(tmp_path: Path) -> None:
    root = mstcn(tmp_path / "in", ("background", "take", "open"))
    path = root / "features" / "P03.cam01_v1.npy"
    features = np.load(path)
    features[0, 0] = np.nan
    np.save(path, features)
    lines: list[str] = []
    progress = Lines(lines.append, interval=0)
    prepared = prepare("gtea", root, tmp_path / "out", settings={"every": 3}, on_error="skip", progress=progress)
    assert prepared.folder == tmp_path / "out" and prepared.source_rate is None and prepared.splits == ("1", "2")
    assert list(prepared.skipped) == ["P03.cam01_v1"] and len(prepared.videos) == 5
    assert lines[-1].startswith("preparing: 6 of 6 videos")


def test_what_is_missing_ends_in_one_line_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gtea is incomplete: .*features: missing; it comes from zenodo"):
        prepare("gtea", tmp_path, tmp_path / "out")
    root = fact_tree(tmp_path)
    (root / "egoprocel" / "features" / "0003.npy").unlink()
    assert examine("egoprocel", root).leaving_out
    with pytest.raises(InputError, match=r"0003.npy: missing; .* or give --on-error skip"):
        prepare("egoprocel", root, tmp_path / "out")
    with pytest.raises(InputError, match="has to be converted; give the folder to write"):
        prepare("egoprocel", root, on_error="skip")
    assert not (tmp_path / "out").exists()


def test_persons_in_names_are_given_as_a_pattern_where_nothing_is_written(tmp_path: Path) -> None:
    root = mstcn(tmp_path / "in", ("background", "take", "open"), name="S{1}_Tea_C{0}")
    prepared = prepare("gtea", root)
    assert prepared.groups == "^(S[0-9]+)_"
    assert prepare("gtea", root, tmp_path / "out").groups is None, "splits/groups.csv says so"
    assert (tmp_path / "out" / "splits" / "groups.csv").read_text().startswith("video,group\nS0_Tea_C0,S0\n")
