"""Where the JSON lines of a stream go."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Protocol

from keystep.errors import InputError


class Output(Protocol):
    """Takes the lines of one chunk after the other."""

    def say(self, lines: str) -> None:
        """Hand them on at once.

        Raises:
            InputError, OSError: they did not get there.
        """


class StandardOutput:
    """Lines for whoever reads them; what a pipe took cannot be taken back."""

    def say(self, lines: str) -> None:
        print(lines, end="", flush=True)


class FileOutput:
    """A file that has the lines of a chunk whole, or none of them, so that it never says more than the state knows."""

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
            raise InputError(f"{self.path}: something removed it, so that what is written to it is lost")
