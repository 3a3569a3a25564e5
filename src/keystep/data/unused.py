"""Find files of a feature folder that are not read, such as labels of a misspelt video."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path

from keystep.errors import named

NAMED = 5
"""Maximum number of files that are listed by name."""
_EXPECTED = {
    "features": "a video is VIDEO.npy",
    "groundTruth": "labels are VIDEO.txt for features/VIDEO.npy, one class name per line",
    "splits": "a split is train.splitK.bundle and test.splitK.bundle, groups are groups.csv",
    "segments": "segments are VIDEO.txt for features/VIDEO.npy",
    "times": "times are VIDEO.npy for features/VIDEO.npy",
    "scales": "scales of int8 features are VIDEO.npy for features/VIDEO.npy",
    "seen": "source frames are VIDEO.npy for features/VIDEO.npy",
    "mistakes": "mistakes are VIDEO.csv for features/VIDEO.npy",
}


def unused_files(root: Path, paths: Collection[Path]) -> list[str]:
    """Find files that do not belong to any video.

    Args:
        root: the feature folder.
        paths: the arrays of its videos.

    Returns:
        One warning per subfolder.
    """
    names = {path.name.removesuffix(".npy") for path in paths}
    expected: dict[str, Callable[[str], bool]] = {
        "features": lambda name: name.removesuffix(".npy") in names or name.removesuffix(".json") in names,
        "groundTruth": lambda name: name.endswith(".txt") and name.removesuffix(".txt") in names,
        "splits": _is_split,
        "segments": lambda name: name.endswith(".txt") and name.removesuffix(".txt") in names,
        "times": lambda name: name.endswith(".npy") and name.removesuffix(".npy") in names,
        "scales": lambda name: name.endswith(".npy") and name.removesuffix(".npy") in names,
        "seen": lambda name: name.endswith(".npy") and name.removesuffix(".npy") in names,
        "mistakes": lambda name: name.endswith(".csv") and name.removesuffix(".csv") in names,
    }
    lines = []
    for folder, used in expected.items():
        there = sorted(path.name for path in (root / folder).iterdir()) if (root / folder).is_dir() else []
        left = [name for name in there if not name.startswith(".") and not used(name)]
        if left:
            more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
            shown = ", ".join(map(named, left[:NAMED]))
            lines.append(f"{folder}/: not used: {shown}{more}; {_EXPECTED[folder]}")
    return lines


def _is_split(name: str) -> bool:
    return name == "groups.csv" or re.fullmatch(r"(train|valid|val|test)\.split.+\.bundle", name) is not None
