"""Segments that were found without labels, as `keystep segment` writes them.

::

    segmenter.json    how they were found: see `Record`
    <video>.txt       one segment length a line, in slots at that rate
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from keystep.data.annotation import read_segments, segment_lengths
from keystep.errors import InputError
from keystep.files import check_ours, read_json, replacing, write_json, write_lines
from keystep.types import parse_rate

Boundaries = Literal["true", "discovered"]
"""Whose segments: those of the annotation (ORACLE), or those found without labels."""
SEGMENTER = "segmenter.json"
FORMAT, FORMAT_VERSION = "keystep-segmenter", 1


class Origin(BaseModel):
    """The model that boundaries were found with."""

    source: str
    weights: str
    """SHA-256."""
    videos: tuple[str, ...] = ()
    """What it was pretrained on, without labels; empty where that is not known."""


class Record(BaseModel):
    """What ``segmenter.json`` says of how boundaries were found, as far as it is read again."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, arbitrary_types_allowed=True)

    settings: dict[str, Any]
    """Of a `keystep.boundaries.SegmenterConfig`."""
    rate: Annotated[Fraction, BeforeValidator(parse_rate)]
    """Slots a second."""
    look_ahead_slots: Annotated[int, Field(ge=0)]
    threshold: float
    scale: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
    width: Annotated[int | None, Field(ge=1)] = None
    """Of the features, where those are the source."""
    clusters: Annotated[int | None, Field(ge=2)] = None
    """surprise: of what kind the model's answers are."""
    fitted_on: tuple[str, ...]
    """Videos."""
    model: Origin | None = None


@dataclass(frozen=True)
class Discovered:
    """The segments of a folder's videos.

    rate: slots a second. look_ahead: slots after a segment's first one that were seen before it began.
    fitted_on: the videos that the segmenter, or the model that it reads, was fitted on, without labels.
    whole_past: whether those are all; False where the model's videos are not known.
    """

    root: Path
    rate: Fraction
    look_ahead: int
    fitted_on: frozenset[str]
    whole_past: bool
    videos: Mapping[str, tuple[int, ...]]
    signature: str
    """SHA-256 over the segments, the settings and the fitted numbers; not over names and places."""

    def lengths(self, video: str, start: int = 0, stop: int | None = None) -> list[int]:
        """Lengths of the segments in slots ``start`` to ``stop`` of a video."""
        if video not in self.videos:
            raise InputError(f"{self.root}: no {video}.txt; run 'keystep segment' on all videos that are used")
        lengths = self.videos[video]
        return segment_lengths(np.repeat(np.arange(len(lengths)), lengths)[start:stop])

    def delay(self, videos: Sequence[str]) -> float:
        """Seconds until a frame of these videos is final, at most: the longest segment, and what is seen beyond it."""
        longest = max(max(self.lengths(video)) for video in videos)
        return float((longest + self.look_ahead) / self.rate)


def check_free(root: Path, videos: Sequence[str]) -> None:
    """Refuse a folder that holds anything but boundaries of these videos, which would be lost."""
    check_ours(root, _names(videos))


def write_boundaries(
    root: Path, videos: Mapping[str, Sequence[int]], record: Mapping[str, Any], known: Sequence[str] = ()
) -> None:
    """Write a whole folder, or nothing; one of these videos, or of others that are ``known``, is replaced."""
    with replacing(root, _names([*videos, *known])) as temporary:
        temporary.mkdir()
        for video, lengths in videos.items():
            write_lines(temporary / f"{video}.txt", lengths)
        write_json(temporary / SEGMENTER, {"format": FORMAT, "version": FORMAT_VERSION, **record})


def read_record(path: Path) -> Record:
    """How boundaries were found, from a ``segmenter.json``.

    Raises:
        InputError: no such file, another format or version, a damaged one.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file; 'keystep segment' writes folders of discovered boundaries")
    record = read_json(path)
    if record.get("format") != FORMAT or record.get("version") != FORMAT_VERSION:
        raise InputError(f"{path}: not a segmenter of format {FORMAT} {FORMAT_VERSION}")
    try:
        return Record.model_validate(record)
    except ValidationError as error:
        wrong = error.errors()[0]
        name = ".".join(str(part) for part in wrong["loc"])
        raise damaged(path, f"{name}: {wrong['msg'].removeprefix('Value error, ')}") from error


def damaged(path: Path, reason: str) -> InputError:
    """What to say of a ``segmenter.json`` that `keystep segment` cannot have written."""
    return InputError(f"{path}: damaged: {reason}; run 'keystep segment' again")


def read_boundaries(root: Path, rate: Fraction, slots: Mapping[str, int]) -> Discovered:
    """The segments of those of the videos (name -> slots at ``rate``) that the folder has.

    Raises:
        InputError: no such folder, another rate, or lengths that do not sum to a video's slots.
    """
    record = read_record(root / SEGMENTER)
    if record.rate != rate:
        raise InputError(
            f"{root}: boundaries at {record.rate} Hz do not fit features at {rate} Hz; give --rate {record.rate}"
        )
    videos = {name: _lengths(root / f"{name}.txt", count) for name, count in slots.items() if _has(root, name)}
    numbers = record.model_dump(mode="json", exclude={"fitted_on", "model", "rate"})
    said = json.dumps([str(rate), numbers, videos], sort_keys=True)
    return Discovered(
        root=root,
        rate=rate,
        look_ahead=record.look_ahead_slots,
        fitted_on=frozenset(record.fitted_on).union(record.model.videos if record.model else ()),
        whole_past=record.model is None or bool(record.model.videos),
        videos=videos,
        signature=hashlib.sha256(said.encode()).hexdigest(),
    )


def _names(videos: Sequence[str]) -> set[str]:
    return {SEGMENTER, *(f"{video}.txt" for video in videos)}


def _has(root: Path, video: str) -> bool:
    return (root / f"{video}.txt").exists()


def _lengths(path: Path, slots: int) -> tuple[int, ...]:
    return tuple(int(length) for length in np.bincount(read_segments(path, slots)))
