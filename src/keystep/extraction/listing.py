"""Which videos there are, and what each is called."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from keystep.errors import InputError
from keystep.files import VIDEO_ENDINGS, is_video


def find_videos(paths: Iterable[Path], recursive: bool = False) -> dict[str, Path]:
    """Name -> file of each video among files and folders (of which files with a video's ending are taken).

    Hidden files, such as those that macOS puts beside others (``._x.mp4``), are no videos. A file that is given twice
    counts once.

    Args:
        recursive: look into subfolders, too; a video is then called by its path in the folder, with ``_`` between the
            parts (``P03_cam01_cereals``).

    Raises:
        InputError: no such path, no video at all, or two videos of one name, which would overwrite each other.
    """
    paths, found = list(paths), []
    for path in paths:
        if path.is_dir():
            found += [("_".join(file.relative_to(path).with_suffix("").parts), file) for file in _in(path, recursive)]
        elif path.exists():
            found.append((path.stem, path))
        else:
            raise InputError(f"{path}: no such file or folder")
    if not found:
        raise InputError(_nothing(paths, recursive))
    once = {(name, file.resolve()): file for name, file in reversed(found)}
    files = [(name, file) for (name, _), file in reversed(once.items())]
    name, count = Counter(name for name, _ in files).most_common(1)[0]
    if count > 1:
        both = ", ".join(str(file) for other, file in files if other == name)
        raise InputError(f"{count} videos are called {name!r}: {both}; rename them, or extract into two folders")
    return dict(files)


def left_alone(paths: Iterable[Path], recursive: bool = False) -> list[str]:
    """A note a folder on the files and subfolders of it that `find_videos` passes over, hidden ones aside."""
    return [note for path in paths if path.is_dir() for note in _left_alone(path, recursive)]


def _left_alone(folder: Path, recursive: bool) -> Iterator[str]:
    here = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    folders = [path for path in here if path.is_dir()]
    inside = [path for path in folders if recursive and not path.is_symlink()]
    endings = Counter(path.suffix.lower() for path in here if not path.is_dir() and not is_video(path))
    parts = []
    if endings:
        kinds = ", ".join(f"{count} {ending or 'without'}" for ending, count in endings.most_common(6))
        others = len(endings) - 6
        kinds += f" and {others} kinds more" if others > 0 else ""
        parts.append(
            f"{endings.total()} files whose endings are no video's ({kinds}); one that is a video can be named"
        )
    if len(folders) > len(inside):
        hint = "links are not followed" if recursive else "--recursive takes them, too"
        parts.append(f"{len(folders) - len(inside)} subfolders ({hint})")
    if parts:
        yield f"{folder}: left alone: {'; '.join(parts)}"
    for path in inside:
        yield from _left_alone(path, recursive)


def _in(folder: Path, recursive: bool) -> Iterator[Path]:
    """A folder's video files by name, and then those of its subfolders."""
    here = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    yield from (path for path in here if is_video(path) and not path.is_dir())
    for path in here if recursive else ():
        if path.is_dir() and not path.is_symlink():  # a link may lead round in a circle
            yield from _in(path, recursive)


def _nothing(paths: Iterable[Path], recursive: bool) -> str:
    """Why there are no videos."""
    text = f"no videos in {', '.join(map(str, paths))}; known endings: {' '.join(sorted(VIDEO_ENDINGS))}"
    folders = [entry for path in paths if path.is_dir() for entry in os.scandir(path) if entry.is_dir()]
    return text if recursive or not folders else f"{text}; give --recursive to look into its subfolders, too"
