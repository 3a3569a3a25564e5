"""The outermost parts of an MP4 file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def is_fragmented(path: Path) -> bool:
    """Whether an MP4 file lists its frames piece by piece (in ``moof`` boxes), so that no list is of all."""
    return any(kind == b"moof" for kind, _ in _boxes(path))


def second_file(path: Path) -> int | None:
    """Where a second MP4 file begins behind the first one, as ``cat`` leaves it; players show the first."""
    lists = [place for kind, place in _boxes(path) if kind == b"moov"]
    if len(lists) < 2:
        return None
    begins = [place for kind, place in _boxes(path) if kind == b"ftyp" and place]
    return min([lists[1], *begins])


def _boxes(path: Path) -> Iterator[tuple[bytes, int]]:
    """Name of each box and where it begins."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        place = 0
        while place + 8 <= end:
            file.seek(place)
            size, kind = int.from_bytes(file.read(4), "big"), file.read(4)
            yield kind, place
            if size == 1:  # the size is in 64 bits behind the name
                size = int.from_bytes(file.read(8), "big")
            if size < 8:  # 0: up to the end of the file; others are nonsense
                return
            place += size
