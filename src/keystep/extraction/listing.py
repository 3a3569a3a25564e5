"""Search for videos, and their names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from keystep.errors import InputError, quoted
from keystep.files import VIDEO_ENDINGS, is_video
from keystep.reading import read_lines

LONGEST_NAME = 200
"""Bytes of a video's name; file names have 255, and need some for endings and temporary names."""


def find_videos(paths: Iterable[Path], recursive: bool = False) -> dict[str, Path]:
    """Find videos among files and folders.

    Hidden files, such as the ``._x.mp4`` of macOS, are ignored, and duplicates count once.

    Args:
        paths: video files; folders, in which files with a known ending are videos; or lists of both, which are text
            files named ``*.txt`` with a path on each line, from the list's own folder unless it is absolute.
        recursive: search subfolders too; videos are then named by their path, joined with ``_``
            (``P03_cam01_cereals``).

    Returns:
        name -> file of each video.

    Raises:
        InputError: no such path, no video, or two videos with the same name, which would overwrite each other.
    """
    paths, found = list(_listed(paths)), []
    for path in paths:
        if path.is_dir():
            found += [("_".join(file.relative_to(path).with_suffix("").parts), file) for file in _walk(path, recursive)]
        elif path.exists():
            found.append((path.stem, path))
        else:
            raise InputError(f"{path}: no such file or folder")
    if not found:
        raise InputError(_nothing(paths, recursive))
    once = {(name, os.path.realpath(file)): file for name, file in reversed(found)}
    files = [(name, file) for (name, _), file in reversed(once.items())]
    name, count = Counter(name for name, _ in files).most_common(1)[0]
    if count > 1:
        both = ", ".join(str(file) for other, file in files if other == name)
        raise InputError(f"{count} videos have the name {name!r}: {both}; rename them, or extract into two folders")
    return dict(files)


def check_name(name: str, path: Path) -> None:
    """Refuse a video whose name cannot be that of its features.

    Raises:
        InputError: it is too long for a file name with the endings that are added, or its path is not UTF-8.
    """
    try:
        size = len(name.encode())
        os.path.realpath(path).encode()  # recorded as the source
    except UnicodeEncodeError as error:
        raise InputError(f"{quoted(str(path))}: its name is not valid UTF-8; rename it") from error
    if size > LONGEST_NAME:
        raise InputError(f"{path}: its name, {name[:20]}..., has {size} bytes; shorten it to {LONGEST_NAME}")


def ignored_files(paths: Iterable[Path], recursive: bool = False) -> list[str]:
    """Describe the files and subfolders that `find_videos` ignores, hidden ones aside, in a note per folder."""
    return [note for path in _listed(paths) if path.is_dir() for note in _ignored_files(path, recursive)]


def _listed(paths: Iterable[Path]) -> Iterator[Path]:
    """Replace each list by its paths."""
    for path in paths:
        if path.suffix.lower() == ".txt" and path.is_file():
            yield from (path.parent / line for line in read_lines(path))
        else:
            yield path


def _ignored_files(folder: Path, recursive: bool) -> Iterator[str]:
    here = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    folders = [path for path in here if path.is_dir()]
    inside = [path for path in folders if recursive and not path.is_symlink()]
    endings = Counter(path.suffix.lower() for path in here if not path.is_dir() and not is_video(path))
    parts = []
    if endings:
        kinds = ", ".join(f"{count} {ending or 'without ending'}" for ending, count in endings.most_common(6))
        others = len(endings) - 6
        kinds += f" and {others} more" if others > 0 else ""
        parts.append(
            f"{endings.total()} files without a known video ending ({kinds}); name a file to extract it anyway"
        )
    if len(folders) > len(inside):
        hint = "links are not followed" if recursive else "search them with --recursive"
        parts.append(f"{len(folders) - len(inside)} subfolders ({hint})")
    if parts:
        yield f"{folder}: ignored: {'; '.join(parts)}"
    for path in inside:
        yield from _ignored_files(path, recursive)


def _walk(folder: Path, recursive: bool) -> Iterator[Path]:
    """Yield the video files of a folder by name, then those of its subfolders."""
    here = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    yield from (path for path in here if is_video(path) and not path.is_dir())
    for path in here if recursive else ():
        if path.is_dir() and not path.is_symlink():  # links may be circular
            yield from _walk(path, recursive)


def _nothing(paths: Iterable[Path], recursive: bool) -> str:
    """Error message for no videos."""
    text = f"no videos in {', '.join(map(str, paths))}; known endings: {' '.join(sorted(VIDEO_ENDINGS))}"
    folders = [entry for path in paths if path.is_dir() for entry in os.scandir(path) if entry.is_dir()]
    return text if recursive or not folders else f"{text}; give --recursive to search subfolders too"
