"""How the accuracy grew while people labelled: a small file in the work folder."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from keystep.errors import InputError
from keystep.files import write_json
from keystep.reading import Record, read_record
from keystep.serve.ridge import Accuracy

FILE = "learning.json"
MOST_ENTRIES = 1_000


class Entry(Record):
    """One fit. accuracy, spread: 0-100, as in `Accuracy`. time: ISO 8601, UTC."""

    labelled_videos: int
    labelled_seconds: float
    accuracy: float
    spread: float
    time: str


class _File(Record):
    """What ``learning.json`` holds."""

    format: Literal["keystep-learning"]
    version: Literal[1]
    entries: list[Entry]


class History:
    """The entries of a folder, oldest first; a damaged or foreign file counts as none, and is replaced.

    Args:
        folder: the folder; it is created with the first entry.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self.entries: tuple[Entry, ...] = ()
        if self._path.exists():
            with suppress(InputError):
                self.entries = tuple(read_record(self._path, _File).entries)

    def add(self, videos: int, seconds: float, accuracy: Accuracy) -> None:
        """Append an entry; it replaces the last one if as much was labelled then.

        Raises:
            InputError: the folder cannot be written to.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = Entry(
            labelled_videos=videos,
            labelled_seconds=seconds,
            accuracy=accuracy.mean,
            spread=accuracy.spread,
            time=now,
        )
        last = self.entries[-1:]
        again = bool(last) and (last[0].labelled_videos, last[0].labelled_seconds) == (videos, seconds)
        kept = self.entries[:-1] if again else self.entries
        self.entries = (*kept, entry)[-MOST_ENTRIES:]
        record = _File(format="keystep-learning", version=1, entries=list(self.entries))
        write_json(self._path, record.model_dump(mode="json"))
