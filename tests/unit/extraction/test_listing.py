from pathlib import Path

import pytest

from keystep.errors import InputError
from keystep.extraction.listing import find_videos


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Videos beside what is none, and in subfolders."""
    for name in ("b.MP4", "a.mkv", "._a.mkv", "notes.txt", "P03/cam01/P03_cereals.avi", "P03/.hidden/c.mp4"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "tree" / "folder.mp4").mkdir()
    return tmp_path / "tree"


def test_hidden_files_folders_and_other_files_are_no_videos(tree: Path):
    assert find_videos([tree]) == {"a": tree / "a.mkv", "b": tree / "b.MP4"}


def test_a_file_that_is_given_twice_counts_once(tree: Path):
    again = tree / ".." / "tree" / "a.mkv"
    assert find_videos([tree, tree / "a.mkv", again]) == find_videos([tree])


def test_videos_of_subfolders_are_called_by_their_path(tree: Path):
    found = find_videos([tree], recursive=True)
    assert list(found) == ["a", "b", "P03_cam01_P03_cereals"]
    (tree / "P03" / "cam01_P03_cereals.mkv").write_bytes(b"x")
    with pytest.raises(InputError, match="2 videos are called 'P03_cam01_P03_cereals'"):
        find_videos([tree], recursive=True)


def test_a_folder_of_folders_is_told_how_it_is_searched(tree: Path):
    with pytest.raises(InputError, match=r"no videos in .*--recursive"):
        find_videos([tree / "P03"])
    with pytest.raises(InputError, match=r"no videos in .* \.wmv$"):
        find_videos([tree / "folder.mp4"])
