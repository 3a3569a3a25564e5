"""The authors' segment manifests for Assembly101 and EgoProceL (FACT): CSV files with one row for each labelled
segment.

Both have columns for the video, the split, the class and the bounds in seconds. Assembly101 also has the action type: a
*take* consists of the segments of one action type in one view of a recording. In EgoProceL, a take is a video. Other
columns are ignored.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from keystep.data.annotation import UNLABELLED
from keystep.errors import InputError, quoted
from keystep.reading import read_table

Kind = Literal["assembly101", "egoprocel"]
BACKGROUND = 0
"""EgoProceL's class id of the background."""
SPLITS = {"train": "train", "val": "valid", "valid": "valid", "validation": "valid", "test": "test"}
"""Split names in the manifests -> ours."""
MOST_CLASSES = 100_000
FEWEST_DECIMALS = 2
"""Seconds with fewer decimals are treated as if written with this number: 1.5 is rarely a rounded 1.46."""

_COMMON = ("video_path", "official_split", "start_sec", "end_sec")
_COLUMNS: dict[Kind, tuple[str, ...]] = {
    "assembly101": (*_COMMON, "action_id", "action_type"),
    "egoprocel": (*_COMMON, "fact_step_id", "fact_step_name"),
}


class Segment(NamedTuple):
    """A labelled segment in seconds; sorted by start, end and sample id, as in the authors' code."""

    start: float
    end: float
    uid: str
    label: int
    halves: tuple[float, float] = (5e-7, 5e-7)
    """Half of the last decimal of start and end as written, that is, the maximum rounding error."""


class ManifestTake(NamedTuple):
    """One of the authors' training sequences: an action type (empty for EgoProceL) and a path in the archive."""

    action_type: str
    path: str


@dataclass(frozen=True)
class Manifest:
    """The rows of all files."""

    kind: Kind
    takes: dict[ManifestTake, list[Segment]]
    """Take -> its segments, sorted."""
    splits: dict[ManifestTake, str]
    """Take -> train, valid or test."""
    classes: tuple[str, ...]
    """Names of the classes from 0 to the largest id."""
    hashes: dict[str, str]
    """File -> its SHA-256."""
    notes: list[str]


class _Row(NamedTuple):
    take: ManifestTake
    split: str
    segment: Segment
    class_name: str
    where: str
    """File and line."""


def read_manifests(paths: Sequence[Path]) -> Manifest:
    """Read the manifests of one data set, such as those for training and test.

    Raises:
        InputError: a file of an unknown or another kind, the same file twice, a take in two splits, or an invalid row,
            with file and line.
    """
    kinds: list[Kind] = []
    takes: dict[ManifestTake, list[Segment]] = {}
    splits: dict[ManifestTake, str] = {}
    names: dict[int, str] = {}
    hashes: dict[str, str] = {}
    notes: dict[str, None] = {}
    for path in paths:
        kind, rows = _read(path)
        kinds.append(kind)
        if kind != kinds[0]:
            raise InputError(f"{path}: manifest of {kind}, but {paths[0]} is one of {kinds[0]}; import one data set")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest in hashes.values():
            raise InputError(f"{path}: this manifest is given twice")
        hashes[str(path)] = digest
        for row in rows:
            takes.setdefault(row.take, []).append(row.segment)
            if splits.setdefault(row.take, row.split) != row.split:
                both = f"{splits[row.take]} and in {row.split}"
                raise InputError(f"{row.where}: {quoted(row.take.path)} is in {both}")
            label = row.segment.label
            if names.setdefault(label, row.class_name) != row.class_name:
                both = f"{quoted(names[label])} and {quoted(row.class_name)}"
                notes[f"class {label} has two names, {both}; the first is used"] = None
    for segments in takes.values():
        segments.sort()
    return Manifest(kinds[0], takes, splits, _class_names(names), hashes, list(notes))


def _read(path: Path) -> tuple[Kind, list[_Row]]:
    columns, table = read_table(path)
    kind = _kind(path, columns)
    rows = [_row(kind, values, f"{path}, line {line}") for line, values in table]
    if not rows:
        raise InputError(f"{path}: no segments; expected one per row")
    return kind, rows


def _kind(path: Path, columns: Sequence[str]) -> Kind:
    """The kind of a manifest, from its columns."""
    kind: Kind = "egoprocel" if "fact_step_id" in columns or "fact_step_name" in columns else "assembly101"
    missing = [column for column in _COLUMNS[kind] if column not in columns]
    if missing:
        raise InputError(
            f"{path}: no column {missing[0]!r}; a manifest needs {', '.join(_COMMON)} and either action_id, "
            "action_type (Assembly101) or fact_step_id, fact_step_name (EgoProceL)"
        )
    return kind


def _row(kind: Kind, values: Mapping[str, str | None], where: str) -> _Row:
    row = {column: (values[column] or "").strip() for column in _COLUMNS[kind]}
    empty = [column for column, value in row.items() if not value and column != "fact_step_name"]
    if empty:
        raise InputError(f"{where}: no {empty[0]}")
    start, end = (_seconds(row[column], column, where) for column in ("start_sec", "end_sec"))
    if end < start:
        raise InputError(f"{where}: the segment ends at {end:.12g} s, before it starts at {start:.12g} s")
    split = row["official_split"].lower()
    if split not in SPLITS:
        raise InputError(
            f"{where}: unknown official_split {quoted(row['official_split'])}; expected one of {', '.join(SPLITS)}"
        )
    column = "action_id" if kind == "assembly101" else "fact_step_id"
    label = _class_id(row[column], column, where)
    if kind == "assembly101":
        name = f"action {label}"
    else:
        name = "background" if label == BACKGROUND else row["fact_step_name"]
    return _Row(
        take=ManifestTake(row.get("action_type", ""), archive_path(row["video_path"])),
        split=SPLITS[split],
        segment=Segment(
            start,
            end,
            (values.get("sample_uid") or "").strip(),
            label,
            (half_decimal(row["start_sec"]), half_decimal(row["end_sec"])),
        ),
        class_name=name,
        where=where,
    )


def archive_path(video: str) -> str:
    """Path of a manifest's video in the archive: ``.mp4`` and ``.avi`` are replaced by ``.pt``."""
    path = PurePosixPath(video)
    return str(path.with_suffix(".pt")) if path.suffix.lower() in (".mp4", ".avi") else video


def _seconds(text: str, column: str, where: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise InputError(f"{where}: {column} {quoted(text)} is not a number of seconds")
    return seconds


def half_decimal(text: str) -> float:
    """Half of the last decimal of a number as written (at least `FEWEST_DECIMALS`): 5e-7 for 5.700000."""
    exponent = Decimal(text).as_tuple().exponent
    assert isinstance(exponent, int)  # the number is finite
    return 0.5 * 10.0 ** min(exponent, -FEWEST_DECIMALS)


def _class_id(text: str, column: str, where: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 9 or int(text) >= MOST_CLASSES:
        known = f"expected an integer from 0 to {MOST_CLASSES - 1}"
        raise InputError(f"{where}: {column} {quoted(text)} is not a class id; {known}")
    return int(text)


def _class_names(names: Mapping[int, str]) -> tuple[str, ...]:
    """Names of the classes from 0 to the largest id."""
    return unique_names([names.get(label, "") for label in range(max(names) + 1)])


def unique_names(names: Sequence[str]) -> tuple[str, ...]:
    """Unique one-line class names: missing ones become ``class ID``, and repeated ones get their id appended.

    Characters that cannot be printed, such as terminal escapes, are replaced by U+FFFD.
    """
    words = (" ".join(name.split()) for name in names)
    lines = [
        "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line) for line in words
    ]
    plain = [line or f"class {label}" for label, line in enumerate(lines)]
    counts = Counter([*plain, UNLABELLED])
    unique = [name if counts[name] == 1 else f"{name} {label}" for label, name in enumerate(plain)]
    return tuple(unique) if unique == plain else unique_names(unique)
