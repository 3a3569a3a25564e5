"""One process at a time writes an output, and what killed ones left half written is removed."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from keystep.errors import InputError, named
from keystep.files import check_writable, remove_leftovers

INSIDE = ".keystep.lock"
"""Name of the lock of a folder in it, where nothing may be written beside it, as in a container's volume."""


@contextmanager
def owning(*outputs: Path | str | None) -> Iterator[None]:
    """Keep other processes from writing the same files or folders until the block ends, also those of other machines.

    A lock lies beside each output, with the process and the machine that hold it; the system lets go of it when that
    process ends, however it does. What killed processes left half written in the outputs is removed. Pipes and devices
    are not locked.

    Raises:
        InputError: another process writes there, or the place cannot be written to.
    """
    with ExitStack() as stack:
        for output in dict.fromkeys(Path(os.path.realpath(output)) for output in outputs if output is not None):
            if not output.exists() or output.is_dir() or output.is_file():
                stack.enter_context(_locked(output))
                remove_leftovers(output)
        yield


@contextmanager
def _locked(output: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout  # not while --help is shown

    place = _place(output)
    lock = FileLock(place, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        if not place.exists():
            check_writable(output)  # some file systems refuse new files in a way that looks like a lock
        raise InputError(
            f"{output}: {_holder(place)} is writing there; wait for it, or choose another output"
        ) from None
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror or error}; nothing was done yet") from error
    try:
        with suppress(OSError):
            if not place.read_text():  # else the lock itself wrote it, where the system has no better one than files
                place.write_text(f"{os.getpid()}\n{socket.gethostname()}\n")
        yield
    finally:
        with suppress(OSError):
            place.unlink()  # while it is held: whoever waits for it sees that it is gone, and makes a new one
        lock.release()


def _place(output: Path) -> Path:
    """Where the lock of an output lies; folders above it are made."""
    beside = output.with_name(f".{output.name}.lock")
    with suppress(OSError):
        output.parent.mkdir(parents=True, exist_ok=True)
    if output.is_dir() and not os.access(output.parent, os.W_OK):
        return output / INSIDE
    return beside


def _holder(place: Path) -> str:
    """Who holds a lock, as far as its file says."""
    with suppress(OSError, ValueError):
        process, host = place.read_text().split("\n")[:2]
        return f"process {int(process)} on {named(host)}"
    return "another process"
