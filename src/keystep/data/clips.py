"""Trimmed clips of longer takes, which the EgoExo4D benchmark classifies, and the file that stores them."""

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
"""Name of the file in a feature folder."""

Part = Literal["train", "valid", "test", "hidden"]


@dataclass(frozen=True)
class TrimmedClip:
    """An interval of a take with one label.

    Attributes:
        take: name of the video in the feature folder.
        start, end: seconds of the take.
        label: class id. None: not published.
        part: of the benchmark; ``hidden`` clips have no published labels.
        name: the benchmark's name of the clip; empty if it has none.
        take_uid: the benchmark's id of the take.
    """

    take: str
    start: float
    end: float
    label: int | None
    part: Part
    name: str = ""
    take_uid: str = ""


def write_clips(path: Path, clips: Sequence[TrimmedClip], origin: str) -> None:
    """Write clips as JSON.

    Args:
        path: the file.
        clips: to write.
        origin: where clips and label ids come from, as text.

    Raises:
        InputError: the file cannot be written.
    """
    record = {"format": FORMAT, "version": FORMAT_VERSION, "origin": origin}
    write_json(path, record | {"clips": [asdict(clip) for clip in clips]})


def read_clips(path: Path, classes: int | None = None) -> tuple[TrimmedClip, ...]:
    """Read a file that `write_clips` wrote.

    Args:
        path: the file.
        classes: number of classes, to check the labels. None: unchecked.

    Raises:
        InputError: no such file, another format, or an invalid clip, with its number from 0.
    """
    record = read_json(path, MOST_BYTES)
    if record.get("format") != FORMAT or record.get("version") != FORMAT_VERSION:
        raise InputError(f"{path}: not a table of clips of version {FORMAT_VERSION}; prepare the data set again")
    rows = record.get("clips")
    if not isinstance(rows, list):
        raise InputError(f"{path}: has no list of clips; prepare the data set again")
    return tuple(_parse_clip(path, index, row, classes) for index, row in enumerate(rows))


class _ClipRecord(Record):
    """Schema of a clip."""

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
        raise InputError(f"{path}, clip {index}: {quoted(row)} is not a clip; prepare the data set again")
    return clip
