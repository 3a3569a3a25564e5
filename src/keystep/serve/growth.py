"""How good a head is, in words, and how that grew while people labelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np

from keystep.errors import InputError, quoted
from keystep.files import write_json
from keystep.reading import Record, read_record
from keystep.serve.ridge import Accuracy, Evidence, add

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


def too_few(evidence: Mapping[str, Evidence], classes: Sequence[str]) -> str:
    """What to do where there is nothing to tell apart."""
    if not evidence:
        return "nothing is labelled yet; label a stretch of a video to begin"
    only = classes[int(add(each.sums for each in evidence.values()).counts.argmax())]
    return f"all labels say {quoted(only)}; label a second class to begin"


def summary(accuracy: Accuracy | None, evidence: Mapping[str, Evidence], classes: Sequence[str]) -> str:
    """What the accuracy is to be compared with, and what weakens it; without one, what would show it."""
    if accuracy is None:
        other = "a second video" if len(evidence) == 1 else "a video of another group"
        return f"label {other} to see how good this is; until then confidence is a guess"
    told = f"always naming the commonest class: {accuracy.chance:.0f} % right"
    seen = np.sum([each.sums.counts > 0 for each in evidence.values()], axis=0)
    lonely = [quoted(name) for name, videos in zip(classes, seen, strict=True) if videos == 1]
    if lonely:
        told += f"; labelled in one video only, so wrong wherever held out: {', '.join(lonely[:3])}"
        told += f" and {len(lonely) - 3} more" if len(lonely) > 3 else ""
    return told
