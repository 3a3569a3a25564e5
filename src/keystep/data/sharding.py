"""Write the files of videos into tar files, see `keystep.reading.shards`."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from keystep.errors import InputError
from keystep.reading.shards import ENDINGS, FOLDER

MOST_BYTES = 1 << 30
"""Size from which on a tar file gets no more videos."""

_open: dict[tuple[Path, int], IO[bytes]] = {}
"""(Feature folder, process) -> the tar file that this process writes. A process writes to no other's."""


def append_video(root: Path, video: str, files: Mapping[str, bytes]) -> None:
    """Append the files of a video to the tar file of this process, in one piece.

    Args:
        root: the feature folder.
        video: its name.
        files: what `ENDINGS` names -> content.

    Raises:
        InputError: the disk refuses.
    """
    block = io.BytesIO()
    for pattern in ENDINGS:
        if pattern in files:
            member = tarfile.TarInfo(video + ENDINGS[pattern])
            member.size = len(files[pattern])
            block.write(member.tobuf(tarfile.GNU_FORMAT, errors="surrogateescape"))
            block.write(files[pattern])
            block.write(bytes(-member.size % tarfile.BLOCKSIZE))
    try:
        file = _writable(root)
        file.write(block.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    except OSError as error:
        _close(root)
        raise InputError(f"{root / FOLDER}: cannot be written: {error.strerror or error}") from error


def _writable(root: Path) -> IO[bytes]:
    """The tar file that this process writes; a new one, named by the time, if there is none, it was
    removed, or it is full.
    """
    key = root.resolve(), os.getpid()
    if key in _open and (_open[key].tell() >= MOST_BYTES or not Path(_open[key].name).exists()):
        _close(root)
    if key not in _open:
        folder = root / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{time.time_ns():020d}-{os.getpid()}-{os.urandom(4).hex()}.tar"
        _open[key] = (folder / name).open("xb")
    return _open[key]


def _close(root: Path) -> None:
    """Leave the tar file of this process, also where it is cut off: nothing is ever written behind that."""
    file = _open.pop((root.resolve(), os.getpid()), None)
    if file is not None:
        file.close()
