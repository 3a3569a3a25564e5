"""The outermost parts of an MP4 file."""

from __future__ import annotations

from pathlib import Path


def is_fragmented(path: Path) -> bool:
    """Whether an MP4 file lists its frames piece by piece (in ``moof`` boxes), so that no list is of all."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        place = 0
        while place + 8 <= end:
            file.seek(place)
            size, kind = int.from_bytes(file.read(4), "big"), file.read(4)
            if kind == b"moof":
                return True
            if size == 1:  # the size is in 64 bits behind the name
                size = int.from_bytes(file.read(8), "big")
            if size < 8:  # 0: up to the end of the file; others are nonsense
                return False
            place += size
    return False
