"""Mistakes in the runs of a procedure, as annotated beside the labels.

``mistakes/<video>.csv`` has the header ``start,stop,kind,step`` and one line per mistake, in slots of the features on
disk; ``stop`` is exclusive::

    start,stop,kind,step
    120,131,swapped,step_4
    240,240,omitted,step_7

An omitted step has no slots: ``start`` and ``stop`` are the moment at which another one was begun instead. A video with
a file is annotated, even if the file lists no mistake; without a file, nobody knows.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from keystep.data.folder import FeatureFolder
from keystep.errors import InputError, quoted
from keystep.files import write_lines
from keystep.reading import read_rows, whole_number

MistakeKind = Literal["omitted", "swapped", "repeated", "corrected", "unknown"]
KINDS: tuple[MistakeKind, ...] = get_args(MistakeKind)
"""The kinds of made-up mistakes; annotations of other data sets may name others."""
FOLDER = "mistakes"
HEADER = ["start", "stop", "kind", "step"]


@dataclass(frozen=True, order=True)
class Mistake:
    """Slots ``start`` to ``stop`` (exclusive) of a video, none if a step was omitted; kind; class name of the step."""

    start: int
    stop: int
    kind: str
    step: str = ""


def write_mistakes(folder: Path, video: str, mistakes: Iterable[Mistake]) -> None:
    """Write ``mistakes/<video>.csv``.

    Args:
        folder: the feature folder.
        video: name.
        mistakes: in slots of the features on disk; none, if the run was correct.
    """
    text = io.StringIO()
    rows = [[found.start, found.stop, found.kind, found.step] for found in sorted(mistakes)]
    csv.writer(text, lineterminator="\n").writerows([HEADER, *rows])
    write_lines(folder / FOLDER / f"{video}.csv", text.getvalue().splitlines())


def read_mistakes(folder: FeatureFolder, video: str) -> list[Mistake] | None:
    """Read the mistakes of a video, in slots at the folder's pooled rate.

    Returns:
        In temporal order. None: the video is not annotated.

    Raises:
        InputError: another header, or a line that is no mistake within the video.
    """
    path = folder.root / FOLDER / f"{video}.csv"
    if not path.exists():
        return None
    frames = folder.video(video).frames
    header, *rows = read_rows(path) or [(1, [])]
    if header[1] != HEADER:
        raise InputError(f"{path}, line 1: {quoted(','.join(header[1]))} is not the header {','.join(HEADER)!r}")
    return sorted(_pooled(_parsed(path, number, row, frames), folder.pool) for number, row in rows)


def mistaken_frames(mistakes: Iterable[Mistake], slots: int) -> np.ndarray:
    """(slots,) bool, True in mistakes; an omission has no slots."""
    found = np.zeros(slots, dtype=bool)
    for mistake in mistakes:
        found[mistake.start : mistake.stop] = True
    return found


def _parsed(path: Path, number: int, row: list[str], frames: int) -> Mistake:
    if len(row) != len(HEADER) or whole_number(row[0]) is None or whole_number(row[1]) is None or not row[2]:
        raise InputError(f"{path}, line {number}: {quoted(','.join(row))} is not {','.join(HEADER)!r}")
    start, stop = int(row[0]), int(row[1])
    if not start <= stop <= frames:
        raise InputError(f"{path}, line {number}: no slots {start} to {stop} in a video of {frames}")
    return Mistake(start, stop, row[2], row[3])


def _pooled(mistake: Mistake, pool: int) -> Mistake:
    """The slots that a mistake touches at a lower rate."""
    start = mistake.start // pool
    stop = start if mistake.stop == mistake.start else -(-mistake.stop // pool)
    return Mistake(start, stop, mistake.kind, mistake.step)
