"""Outputs for the JSON lines of a stream."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Protocol

from keystep.errors import InputError


class Output(Protocol):
    """Writes the lines of a stream chunk by chunk."""

    def say(self, lines: str) -> None:
        """Write lines without buffering.

        Raises:
            InputError, OSError: if they cannot be written.
        """


class StandardOutput:
    """Standard output. Lines that a pipe has accepted cannot be taken back."""

    def say(self, lines: str) -> None:
        print(lines, end="", flush=True)


class FileOutput:
    """A file that holds either all lines of a chunk or none, so that it never runs ahead of the saved state."""

    def __init__(self, path: Path, file: FileIO) -> None:
        self.path, self.file = path, file

    def say(self, lines: str) -> None:
        place = self.file.tell() if self.file.seekable() else None
        left = memoryview(lines.encode())
        try:
            while left:
                left = left[self.file.write(left) :]
        except OSError as error:
            if place is None:
                raise
            with suppress(OSError):
                self.file.truncate(place)
            raise InputError(f"{self.path}: cannot be written: {error.strerror}") from error
        status = os.fstat(self.file.fileno())
        if stat.S_ISREG(status.st_mode) and not status.st_nlink:
            raise InputError(f"{self.path}: the file was removed while the stream was writing to it")
