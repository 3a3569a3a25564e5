"""Trimmed clips of longer takes: what the benchmark of EgoExo4D classifies, and the table in which they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from keystep.errors import InputError, quoted
from keystep.files import write_json
from keystep.reading import Record, checked, read_json

FORMAT, FORMAT_VERSION = "keystep-clips", 1
MOST_BYTES = 512 << 20
FILE = "clips.json"
"""Where a feature folder has its clips."""

Part = Literal["train", "valid", "test", "hidden"]


@dataclass(frozen=True)
class TrimmedClip:
    """A stretch of a take with one label.

    take: the video in the feature folder. start, end: seconds of the take. label: class id, None where it is not
    published. part: whose it is; ``hidden`` ones have no published label. name: the benchmark's own name of the clip,
    empty where it has none. take_uid: the benchmark's own id of the take.
    """

    take: str
    start: float
    end: float
    label: int | None
    part: Part
    name: str = ""
    take_uid: str = ""


def write_clips(path: Path, clips: Sequence[TrimmedClip], origin: str) -> None:
    """The table as JSON. origin: where clips and label ids came from, in words."""
    record = {"format": FORMAT, "version": FORMAT_VERSION, "origin": origin}
    write_json(path, record | {"clips": [asdict(clip) for clip in clips]})


def read_clips(path: Path, classes: int | None = None) -> tuple[TrimmedClip, ...]:
    """The table that `write_clips` wrote.

    Raises:
        InputError: no such file, another format, or a clip that is none (with its number from 0).
    """
    record = read_json(path, MOST_BYTES)
    if record.get("format") != FORMAT or record.get("version") != FORMAT_VERSION:
        raise InputError(f"{path}: not a table of clips of version {FORMAT_VERSION}; prepare the data set again")
    rows = record.get("clips")
    if not isinstance(rows, list):
        raise InputError(f"{path}: has no list of clips; prepare the data set again")
    return tuple(_parse_clip(path, index, row, classes) for index, row in enumerate(rows))


class _ClipRecord(Record):
    """A row of the table."""

    take: Annotated[str, Field(min_length=1)]
    start: Annotated[float, Field(ge=0)]
    end: float
    label: Annotated[int, Field(ge=0)] | None
    part: Part
    name: str = ""
    take_uid: str = ""


def _parse_clip(path: Path, index: int, row: Any, classes: int | None) -> TrimmedClip:
    try:
        clip = TrimmedClip(**checked(_ClipRecord, row, "it").model_dump())
        good = clip.start <= clip.end and (clip.label is None or classes is None or clip.label < classes)
    except InputError:
        good = False
    if not good:
        raise InputError(f"{path}, clip {index}: {quoted(row)} is no clip; prepare the data set again")
    return clip
