"""Files of feature folders that lie in tar files: a million videos need not be a million files.

``shards/*.tar`` of a feature folder hold what would lie in ``features/``, ``times/``, ``seen/`` and ``scales/``, in the
form of WebDataset: ``<video>.json``, ``<video>.times.npy``, ... and last ``<video>.features.npy``, uncompressed, so
that arrays are memory-mapped where they lie. Such a file is asked for by the path that it would have in the folder. Of
a video that was written twice, the last one counts; one that is cut off does not.
"""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

FOLDER = "shards"
ENDINGS = {
    "features/{}.json": ".json",
    "times/{}.npy": ".times.npy",
    "seen/{}.npy": ".seen.npy",
    "scales/{}.npy": ".scales.npy",
    "features/{}.npy": ".features.npy",
}
"""Path of a file in the folder -> how it ends in a tar file after the name of its video. The last one completes it."""
_LAST = ".features.npy"
_DAMAGE = (tarfile.TarError, OSError, ValueError, OverflowError, EOFError, RecursionError)
"""What `tarfile` raises about headers that are none."""
_PARTS = {pattern.partition("/")[0] for pattern in ENDINGS}
_PATTERNS = {ending: pattern for pattern, ending in ENDINGS.items()}


class Place(NamedTuple):
    """Where a file lies: in which tar file, from which byte on, and how many bytes."""

    shard: Path
    start: int
    size: int


Videos = dict[str, dict[str, Place]]
"""Name of a video -> path in the folder -> place."""
_read: dict[Path, tuple[int, Videos]] = {}
"""Tar file -> its size when it was read, and what it holds."""
_held: dict[Path, dict[str, Place]] = {}
"""Feature folder -> path in it -> place."""


def held_in_shards(root: Path, *, again: bool = False) -> Mapping[str, Place]:
    """The files that the tar files of a feature folder hold, by their paths in the folder.

    Args:
        root: the feature folder.
        again: look whether there are more than when this was asked last.
    """
    if again or root not in _held:
        videos: Videos = {}
        for shard in sorted((root / FOLDER).glob("*.tar")):
            videos |= _held_by(shard)
        _held[root] = {path: place for files in videos.values() for path, place in files.items()}
    return _held[root]


def located(path: Path) -> Place | None:
    """Where the file of a feature folder lies in its tar files; None: in none of them."""
    part = path.parent.name
    return held_in_shards(path.parent.parent).get(f"{part}/{path.name}") if part in _PARTS else None


def stored(path: Path) -> bool:
    """Whether a feature folder has a file, in a tar file or by itself."""
    return located(path) is not None or path.exists()


def _held_by(shard: Path) -> Videos:
    size = shard.stat().st_size
    before = _read.get(shard)
    if before is None or before[0] != size:
        _read[shard] = before = size, _scan(shard, size)
    return before[1]


def _scan(shard: Path, size: int) -> Videos:
    """What a tar file holds of complete videos; a damaged rest is left out."""
    found: Videos = {}
    parts: dict[str, Place] = {}
    try:
        with tarfile.open(shard, "r:") as file:
            for member in file:
                name, ending = _split(member.name)
                if not (member.isreg() and ending and 0 <= member.size <= size - member.offset_data):
                    continue
                parts[_PATTERNS[ending].format(name)] = Place(shard, member.offset_data, member.size)
                if ending == _LAST:
                    found[name], parts = parts, {}
    except _DAMAGE:
        return found
    return found


def _split(name: str) -> tuple[str, str]:
    """(video, ending) of a name in a tar file; no ending: not one of ours."""
    ending = next((ending for ending in _PATTERNS if name.endswith(ending)), "")
    return (name.removesuffix(ending), ending) if "/" not in name else (name, "")
