"""A log of changes, one JSON object a line, of which nothing that was acknowledged is ever lost."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StrictInt, StrictStr

from keystep.data.spans import Span
from keystep.errors import InputError, one_line
from keystep.reading import Record as Fields
from keystep.reading import check_regular, checked, parse_json


class ChangeRecord(Fields):
    """One change: a video's labels from then on."""

    when: str
    author: str
    video: str
    revision: int
    kind: Literal["before", "edit", "merge", "file"]
    spans: list[Annotated[tuple[StrictInt, StrictInt, StrictStr], Field(strict=False)]]

    def own_spans(self) -> tuple[Span, ...]:
        """The spans as values."""
        return tuple(Span(*span) for span in self.spans)


class Log:
    """Appends records to a file; each is on disk before `append` returns.

    A last line without an end was cut off when a process or machine died, so nobody was told that it was saved.

    Args:
        repair: cut such a line off.

    Raises:
        InputError: it is no regular file; a link could lead to a file of another program.
    """

    def __init__(self, path: Path, *, repair: bool) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file: int | None = None
        if path.is_symlink():
            raise InputError(f"{path}: a link; a log is written where it lies: move the file that it points to here")
        if path.exists():
            check_regular(path)
            self._whole = self._whole_lines()
            if repair and self._whole < path.stat().st_size:
                os.truncate(path, self._whole)
        else:
            self._whole = 0

    def records(self) -> Iterator[tuple[int, ChangeRecord]]:
        """(place in the file, record) of every change, oldest first.

        Raises:
            InputError: a line that is no record.
        """
        if not self._whole:
            return
        place = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if place >= self._whole:
                    return
                yield place, self._parsed(line, f"{self.path}, line {number}")
                place += len(line)

    def read(self, place: int) -> ChangeRecord:
        """The record that begins there."""
        with self.path.open("rb") as file:
            file.seek(place)
            return self._parsed(file.readline(), f"{self.path}, byte {place}")

    def append(self, record: ChangeRecord) -> int:
        """Write a record and have the system put it on disk; returns its place.

        Raises:
            InputError: the disk refuses; nothing was written.
        """
        line = json.dumps(record.model_dump(), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            place = self._whole
            try:
                if self._file is None:
                    self._file = _opened(self.path)
                    os.ftruncate(self._file, place)  # what a write that failed could not take back
                _write(self._file, line)
            except OSError as error:
                self._take_back(place)
                raise InputError(f"{self.path}: cannot be written: {error.strerror}; nothing was saved") from error
            self._whole += len(line)
            return place

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _take_back(self, place: int) -> None:
        """Cut off what a failed write left; if that fails too, it is done when the file is opened again."""
        try:
            if self._file is not None:
                os.ftruncate(self._file, place)
        except OSError:
            os.close(self._file)  # type: ignore[arg-type]
            self._file = None

    def _parsed(self, line: bytes, where: str) -> ChangeRecord:
        try:
            data = parse_json(line.decode())
        except ValueError as error:
            raise InputError(f"{where}: unreadable: {one_line(error)}; correct or remove the line") from error
        return checked(ChangeRecord, data, where)

    def _whole_lines(self) -> int:
        """Bytes up to the last end of a line."""
        with self.path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            while end:
                begin = max(0, end - (1 << 16))
                file.seek(begin)
                found = file.read(end - begin).rfind(b"\n")
                if found >= 0:
                    return begin + found + 1
                end = begin
        return 0


def _opened(path: Path) -> int:
    new = not path.exists()
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    file = os.open(path, flags, 0o666)
    if new and os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # else the name may be gone with the power
        finally:
            os.close(folder)
    return file


def _write(file: int, line: bytes) -> None:
    rest = memoryview(line)
    while rest:
        rest = rest[os.write(file, rest) :]
    os.fsync(file)
