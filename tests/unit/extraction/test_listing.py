import os
from pathlib import Path

import pytest

from keystep.errors import InputError
from keystep.extraction.listing import check_name, find_videos, ignored_files


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


def test_what_is_ignored_is_named(tree: Path):
    (tree / "README").write_bytes(b"x")
    (note,) = ignored_files([tree])
    assert note.startswith(f"{tree}: ignored: 2 files without a known video ending (1 without ending, 1 .txt); ")
    assert note.endswith("2 subfolders (search them with --recursive)")
    (note,) = ignored_files([tree, tree / "a.mkv"], recursive=True)
    assert "subfolders" not in note
    (tree / "P03" / "cam01" / "thumbs.DB").write_bytes(b"x")
    (tree / "P03" / "link").symlink_to(tree)
    _, links, inside = ignored_files([tree], recursive=True)
    assert links == f"{tree / 'P03'}: ignored: 1 subfolders (links are not followed)"
    assert inside.startswith(f"{tree / 'P03' / 'cam01'}: ignored: 1 files without a known video ending (1 .db)")


@pytest.mark.parametrize("ending", [".3gp", ".mxf", ".VOB", ".ogv", ".asf", ".m2v", ".h264", ".mts", ".f4v", ".divx"])
def test_endings_of_all_kinds_of_videos_are_known(tmp_path: Path, ending: str):
    path = tmp_path / f"clip{ending}"
    path.write_bytes(b"x")
    assert find_videos([tmp_path]) == {"clip": path} and ignored_files([tmp_path]) == []


def test_a_file_that_is_given_twice_counts_once(tree: Path):
    again = tree / ".." / "tree" / "a.mkv"
    assert find_videos([tree, tree / "a.mkv", again]) == find_videos([tree])


def test_videos_of_subfolders_are_called_by_their_path(tree: Path):
    found = find_videos([tree], recursive=True)
    assert list(found) == ["a", "b", "P03_cam01_P03_cereals"]
    (tree / "P03" / "cam01_P03_cereals.mkv").write_bytes(b"x")
    with pytest.raises(InputError, match="2 videos have the name 'P03_cam01_P03_cereals'"):
        find_videos([tree], recursive=True)


def test_a_folder_of_folders_is_told_how_it_is_searched(tree: Path):
    with pytest.raises(InputError, match=r"no videos in .*--recursive"):
        find_videos([tree / "P03"])
    with pytest.raises(InputError, match=r"no videos in .* \.wmv .*\.y4m$"):
        find_videos([tree / "folder.mp4"])


def test_links_to_themselves_are_files_that_cannot_be_read(tree: Path):
    (tree / "loop.mp4").symlink_to("loop.mp4")
    (tree / "gone.mp4").symlink_to("nowhere.mp4")
    assert {"loop", "gone"} < set(find_videos([tree]))


@pytest.mark.parametrize(
    ("name", "said"), [("a" * 201, "has 201 bytes; shorten it to 200"), ("\u00e9" * 101, "has 202 bytes")]
)
def test_names_too_long_for_what_is_written_are_refused(tmp_path: Path, name: str, said: str):
    check_name(name[:100], tmp_path / "clip.mp4")
    with pytest.raises(InputError, match=said):
        check_name(name, tmp_path / "clip.mp4")


def test_names_that_are_no_text_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="not valid UTF-8; rename it"):
        check_name("clip", tmp_path / os.fsdecode(b"\xff") / "clip.mp4")
