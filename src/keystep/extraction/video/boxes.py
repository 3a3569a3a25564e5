"""Top-level boxes of an MP4 file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def is_fragmented(path: Path) -> bool:
    """Whether an MP4 file is fragmented (``moof`` boxes), so that its header does not list all frames."""
    return any(kind == b"moof" for kind, _ in _boxes(path))


def second_file(path: Path) -> int | None:
    """Offset of a second MP4 file after the first one, as ``cat`` produces; players show only the first."""
    lists = [place for kind, place in _boxes(path) if kind == b"moov"]
    if len(lists) < 2:
        return None
    begins = [place for kind, place in _boxes(path) if kind == b"ftyp" and place]
    return min([lists[1], *begins])


def _boxes(path: Path) -> Iterator[tuple[bytes, int]]:
    """Yield the type and offset of each box."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        place = 0
        while place + 8 <= end:
            file.seek(place)
            size, kind = int.from_bytes(file.read(4), "big"), file.read(4)
            yield kind, place
            if size == 1:  # a 64-bit size follows the type
                size = int.from_bytes(file.read(8), "big")
            if size < 8:  # 0: extends to the end of the file; other sizes are invalid
                return
            place += size
