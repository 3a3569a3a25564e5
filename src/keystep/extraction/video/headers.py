"""What FFmpeg does not tell of the headers of MP4 and ASF files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
MOST_OBJECTS = 100
"""Objects of an ASF header that are looked through."""


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


def stated_size(path: Path) -> int | None:
    """Number of bytes that an ASF file (WMV) states of itself; None: another file, or a broadcast."""
    with path.open("rb") as file:
        if file.read(16) != ASF_HEADER:
            return None
        place = 30
        for _ in range(MOST_OBJECTS):
            file.seek(place)
            head = file.read(24)
            size = int.from_bytes(head[16:], "little")
            if head[:16] == ASF_FILE_PROPERTIES:  # file id, size, date, packets, three durations, flags
                body = file.read(68)
                is_broadcast = bool(body[64] & 1) if len(body) == 68 else True
                return None if is_broadcast else int.from_bytes(body[16:24], "little") or None
            if size < 24:
                return None
            place += size
    return None


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
