"""Schemas of the result files, which are validated before use because users may have edited them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, Field, Strict, model_validator

from keystep.errors import InputError, named, quoted
from keystep.reading import Record, checked

MOST_ROWS = 1000
MOST_VIDEOS_SHOWN = 100

Count = Annotated[int, Field(ge=0, le=10**15)]
Number = Annotated[float, Field(ge=-1e9, le=1e9)]
Percent = Annotated[float, Field(ge=-1e-6, le=100 + 1e-6)]
Seconds = Annotated[float, Field(ge=0, le=1e9)]
Mode = Literal["offline", "causal"]
Family = Literal["raw", "control", "untrained", "reconstruction", "learned", "oracle"]
SHOWN = ("accuracy", "edit", "f1@10", "f1@25", "f1@50")


def _check_shown_metrics(found: Mapping[str, Any]) -> Mapping[str, Any]:
    missing = [name for name in SHOWN if name not in found]
    if missing:
        raise ValueError(f"no {missing[0]}")
    return found


Means = Annotated[dict[str, Percent], AfterValidator(_check_shown_metrics)]
Spreads = Annotated[dict[str, Percent | None], AfterValidator(_check_shown_metrics)]


class _Clips(Record):
    """Top-1 on trimmed clips, with the preceding take as context and without context."""

    take: Percent
    clip: Percent


class _RunRecord(Record):
    seed: int
    scores: Annotated[dict[str, Percent | None], Field(min_length=1)]
    valid_accuracy: Percent
    correct: list[Count]
    strengths: dict[str, Number] | None = None

    @model_validator(mode="after")
    def _has_accuracy(self) -> Self:
        if self.scores.get("accuracy") is None:
            raise ValueError("no accuracy among the scores")
        return self


class _HeadRunRecord(_RunRecord):
    at_the_moment: dict[str, Percent]
    clips: _Clips | Annotated[dict[str, Percent], Field(max_length=0)]

    @model_validator(mode="after")
    def _has_its_moment(self) -> Self:
        if self.at_the_moment and "accuracy" not in self.at_the_moment:
            raise ValueError("no accuracy at_the_moment")
        return self


class _RowRecord(Record):
    name: str
    head: str
    family: Family
    mode: Mode
    oracle: bool
    delay: Seconds | None
    detail: str
    beside: str
    width: Count | None = None
    position: str = ""
    mean: Means
    spread: Spreads
    runs: Annotated[list[_RunRecord], Field(min_length=1)]


class _HeadRowRecord(_RowRecord):
    parameters: Count
    frames_per_second: Annotated[float, Field(ge=0, le=1e15)]
    runs: Annotated[list[_HeadRunRecord], Field(min_length=1)]  # type: ignore[assignment]  # each is a run

    @model_validator(mode="after")
    def _clips_agree(self) -> Self:
        if len({isinstance(run.clips, _Clips) for run in self.runs}) > 1:
            raise ValueError("only some of the runs have clip scores")
        return self


class _SegmentScores(Record):
    name: str
    head: str
    mode: Mode
    answer: str
    mean: Means

    @model_validator(mode="after")
    def _has_segments(self) -> Self:
        if "segments" not in self.mean:
            raise ValueError("no share of correct segments")
        return self


class _Top1(Record):
    take: Annotated[list[Percent], Field(min_length=1)]
    clip: Annotated[list[Percent], Field(min_length=1)]


class _ClipRow(Record):
    name: str
    clips: Count
    top1: _Top1


class _TaskRun(Record):
    seed: int
    scores: Annotated[dict[str, Number], Field(min_length=1)]


class _TaskRow(Record):
    name: str
    mode: Mode
    delay: Seconds | None
    runs: Annotated[list[_TaskRun], Field(min_length=1)]


class _QuotedRow(Record):
    representation: str
    head: str
    scores: list[Number]
    note: str


class _Quoted(Record):
    title: str
    protocol: str
    metrics: list[str]
    rows: list[_QuotedRow]


class _ComparisonRecord(Record):
    """A comparison."""

    asks: str
    claim: str
    mode: Mode
    first: str
    second: str
    verdict: Literal["holds", "fails", "answers later", "not enough seeds", "quick look"]
    holds: bool
    later: bool
    stronger: str
    question: str = ""
    mean: Number
    low: Number
    high: Number
    seeds: Annotated[list[Count], Field(min_length=2, max_length=2)]
    videos: Count


class _TaskTable(Record):
    name: str
    title: str
    note: str
    rows: Annotated[list[_TaskRow], Field(max_length=MOST_ROWS)]
    gains: Annotated[list[_ComparisonRecord], Field(max_length=MOST_ROWS)] = Field(default=[])

    @model_validator(mode="after")
    def _measures_agree(self) -> Self:
        if len({tuple(run.scores) for row in self.rows for run in row.runs}) > 1:
            raise ValueError("the rows have different measures")
        return self


class _Data(Record):
    name: str
    fingerprint: str
    oracle: str = ""
    labels: str = ""
    rate_hz: Annotated[float, Field(gt=1e-9, le=1e6)]
    width: Count
    classes: list[str]
    split: str
    validation: str
    videos: dict[str, Count]
    slots: dict[str, Count]
    test_videos: Annotated[list[str], Field(min_length=1)]
    groups: list[str] | None = None
    test_frames: list[Count]
    left_out: dict[str, str]
    notes: list[str]
    leaks: list[str]

    @model_validator(mode="after")
    def _one_for_each_video(self) -> Self:
        count = len(self.test_videos)
        if len(set(self.test_videos)) < count:
            raise ValueError("a test video is listed twice")
        if len(self.test_frames) != count or (self.groups is not None and len(self.groups) != count):
            raise ValueError(f"test_frames and groups need {count} entries, one for each test video")
        if self.videos.keys() != self.slots.keys():
            raise ValueError("videos and slots have different parts")
        return self


class _Clock(Record):
    tau: Seconds
    low: Seconds
    high: Seconds
    stated: bool


class _Protocol(Record):
    metrics: str
    background: list[str]
    scored_at_hz: Number
    selection: str
    probe: dict[str, Any]
    probes_fitted: Count
    clock: _Clock


class _Result(Record):
    """``result.json``."""

    created: str
    command: str
    software: dict[str, str]
    data: _Data
    protocol: _Protocol
    rows: Annotated[list[_RowRecord], Field(max_length=MOST_ROWS)]
    gate: Annotated[list[_ComparisonRecord], Field(max_length=MOST_ROWS)]
    head_rows: Annotated[list[_HeadRowRecord], Field(max_length=MOST_ROWS)]
    head_gains: Annotated[list[_ComparisonRecord], Field(max_length=MOST_ROWS)]
    clip_rows: Annotated[list[_ClipRow], Field(max_length=MOST_ROWS)]
    segment_scores: Annotated[list[_SegmentScores], Field(max_length=MOST_ROWS)]
    task_tables: Annotated[list[_TaskTable], Field(max_length=MOST_ROWS)] = Field(default=[])
    quoted: Annotated[list[_Quoted], Field(max_length=MOST_ROWS)]
    geometry: dict[str, dict[str, Number]]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        frames = self.data.test_frames
        for row in (*self.rows, *self.head_rows):
            for run in row.runs:
                if len(run.correct) != len(frames) or any(c > f for c, f in zip(run.correct, frames, strict=True)):
                    raise ValueError(f"row {named(row.name)}: correct does not match test_frames")
        if self.protocol.background:
            scored: list[_RowRecord | _SegmentScores] = [*self.rows, *self.head_rows, *self.segment_scores]
            lacking = next((row.name for row in scored if "accuracy_foreground" not in row.mean), None)
            if lacking is not None:
                raise ValueError(f"row {named(lacking)}: no accuracy_foreground, though there is a background")
        known = {(row.name, mode) for row in self.rows for mode in _modes(row)}
        for line in self.gate:
            for name in (line.first, line.second):
                if (name, line.mode) not in known:
                    raise ValueError(f"the gate compares {named(name)}, {line.mode}, which is not a row")
        if len({tuple(numbers) for numbers in self.geometry.values()}) > 1:
            raise ValueError("rows of geometry have different measures")
        return self


def _modes(row: _RowRecord) -> tuple[str, ...]:
    return ("offline", "causal") if row.family == "raw" else (row.mode,)


Step = Annotated[dict[str, Annotated[float, Strict()] | None], Field(min_length=1)]


def _check_steps(lines: list[Step]) -> list[Step]:
    for number, line in enumerate(lines):
        step = line.get("step")
        if step is None or step < 0 or not float(step).is_integer():
            raise ValueError(f"line {number}: its step is {quoted(step)}")
    return lines


_CURVES = dict[str, Annotated[list[Step], AfterValidator(_check_steps)]]


def check_result(record: Mapping[str, Any], path: Path) -> None:
    """Validate a ``result.json``.

    Raises:
        InputError: the first missing or invalid entry.
    """
    checked(_Result, record, str(path))


def check_curves(curves: Any, path: Path) -> None:
    """Validate a ``training.json``.

    Raises:
        InputError: the first invalid entry.
    """
    checked(_CURVES, curves, str(path))


def check_pictures(arrays: Mapping[str, np.ndarray], test_videos: Sequence[str], path: Path) -> None:
    """Validate picture arrays against the format of `keystep.evals.results.picture_arrays`.

    Raises:
        InputError: the first invalid array.
    """
    names = arrays.get("names")
    if names is None or names.ndim != 1 or (names.size and names.dtype.kind != "U") or len(names) > MOST_VIDEOS_SHOWN:
        raise InputError(f"{path}: 'names' must be a list of video names")
    videos = [str(name) for name in names]
    if len(set(videos)) < len(videos) or not set(videos) <= set(test_videos):
        raise InputError(f"{path}: its videos {quoted(videos)} are not test videos of the result")
    lengths = {index: arrays[f"{index}/truth"].size for index in range(len(videos)) if f"{index}/truth" in arrays}
    for name, array in arrays.items():
        number, _, rest = name.partition("/")
        index = int(number) if number.isascii() and number.isdecimal() and len(number) < 4 else -1
        if name != "names" and not _fits(rest, array, lengths.get(index, 0)):
            raise InputError(f"{path}: {named(name)} has unexpected type {array.dtype} or shape {array.shape}")
    if len(lengths) < len(videos):
        raise InputError(f"{path}: the true steps of a video are missing")


def _fits(rest: str, array: np.ndarray, length: int) -> bool:
    """Whether an array has the type and shape that its name implies. length: slots of its video."""
    what, kind, shape = rest.partition("/")[0], array.dtype.kind, array.shape
    if what in ("truth", "prediction"):
        return kind == "i" and shape == (length,) and length > 0
    if what == "colours":
        return kind == "u" and array.ndim == 2 and shape[0] == length and 1 <= shape[1] <= 3
    return what == "similarity" and kind == "f" and array.ndim == 2 and shape[0] == shape[1] > 0
