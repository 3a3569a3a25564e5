"""A disk that is full from some write on, in every process of a command."""

import errno
import os
import sys
from pathlib import Path

FULL = "KEYSTEP_CHAOS_FULL"
"""Environment variable by which worker processes know: number of the write, place, file that counts."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def full_from(number: int, place: Path, counted: Path) -> None:
    """Let the disk be full below a folder from the so-manieth write on, here and in the processes that this one starts.

    Writes are files opened for it, renames, folders made, and the flushes to disk.

    counted: a file elsewhere that grows by a byte with each write of any process.
    """
    os.environ[FULL] = os.pathsep.join((str(number), str(place), str(counted)))
    file, flush, below = os.open(counted, os.O_WRONLY | os.O_CREAT | os.O_APPEND), os.fsync, str(place)

    def count() -> None:
        os.write(file, b".")
        if os.fstat(file).st_size >= number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def audit(event: str, given: tuple[object, ...]) -> None:
        if event == "open" and isinstance(given[2], int) and not given[2] & WRITES:
            return
        if event in ("open", "os.mkdir", "os.rename") and str(given[0]).startswith(below):
            count()

    def flushed(descriptor: int) -> None:
        count()
        flush(descriptor)

    sys.addaudithook(audit)
    os.fsync = flushed  # type: ignore[assignment]  # keystep.files asks for it by this name


def full_as_said() -> None:
    """In a worker process, do what the process that started it was told."""
    number, place, counted = os.environ[FULL].split(os.pathsep)
    full_from(int(number), Path(place), Path(counted))
