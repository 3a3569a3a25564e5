"""``keystep annotations export`` and ``import`` as a user runs them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from keystep.exchange import FORMATS
from keystep.exchange.formats import format_of

Run = Callable[..., tuple[int, str, str]]
RATE = ("--source-rate", 4)


@pytest.fixture
def bare(make_folder: Callable[..., Path], mstcn: Path) -> Path:
    """The folder `mstcn` without labels."""
    return make_folder("bare", labelled=False, lengths={f"video.{index}": 20 + 5 * index for index in range(6)})


def test_labels_go_out_and_come_back_and_are_never_replaced_unasked(
    keystep: Run, mstcn: Path, bare: Path, tmp_path: Path
) -> None:
    status, said, error = keystep("annotations", "export", mstcn, *RATE, "--format", "elan", "--out", tmp_path / "out")
    assert status == 0 and "6 files, 6 videos" in said and "note: elan counts milliseconds" in said, error
    files = sorted((tmp_path / "out").glob("*.eaf"))
    status, said, error = keystep("annotations", "import", *files, *RATE, "--data", bare)
    assert status == 0 and "3 new classes" in said and "next: keystep inspect" in said, error
    for path in (mstcn / "groundTruth").glob("*.txt"):
        assert (bare / "groundTruth" / path.name).read_text().split("\n")[:-1] == path.read_text().split("\n")
    status, _, error = keystep("annotations", "import", *files, *RATE, "--data", bare)
    assert status == 2 and "holds labels already; give --overwrite to replace those of 6 videos" in error
    assert keystep("annotations", "import", *files, *RATE, "--data", bare, "--overwrite")[0] == 0
    status, _, error = keystep("annotations", "export", mstcn, *RATE, "--format", "elan", "--out", tmp_path / "out")
    assert status == 2 and "give --overwrite to replace it" in error


def test_a_split_or_single_videos_are_exported(keystep: Run, mstcn: Path, tmp_path: Path) -> None:
    common = ("annotations", "export", mstcn, *RATE, "--format", "csv", "--out")
    assert keystep(*common, tmp_path / "a", "--split", 1, "--part", "test")[0] == 0
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["video.4.csv", "video.5.csv"]
    assert keystep(*common, tmp_path / "b", "--name", "video.0")[0] == 0
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["video.0.csv"]
    status, _, error = keystep(*common, tmp_path / "c", "--split", 1, "--part", "test", "--name", "video.0")
    assert status == 2 and "--name video.0: not among the 2 videos of --split 1" in error
    status, _, error = keystep(*common, tmp_path / "c", "--part", "test")
    assert status == 2 and "give --split, too" in error
    status, _, error = keystep(*common, tmp_path / "c", "--name", "video.9")
    assert status == 2 and "no video 'video.9'" in error


def test_every_format_is_documented_with_what_it_loses() -> None:
    page = (Path(__file__).parents[2] / "docs" / "exchange.md").read_text()
    rows = {line.split("|")[1].strip(" `"): line.split("|") for line in page.splitlines() if line.startswith("| `")}
    assert set(rows) == set(FORMATS.own)
    for name, row in rows.items():
        assert (row[2].strip() == "yes") == (format_of(name).read is not None) and row[5].strip(), name
