"""Read the annotation files of EgoExo4D's keysteps, as its documentation describes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keystep.data.clips import Part, TrimmedClip
from keystep.datasets.survey import Missing
from keystep.datasets.tree import positive_seconds
from keystep.errors import InputError, one_line, quoted
from keystep.reading import checked, is_file_name, parse_json, read_json, read_table, read_text
from keystep.reading.text import MOST_TEXT

SOURCE = "ego-exo4d-data.org (a licence to sign), then: egoexo -o DIR --parts annotations --benchmarks keystep"
CLIPS: Mapping[str, Part] = {"train": "train", "val": "test", "test_unannotated": "hidden"}
"""Name of a benchmark file -> part of the split."""
RAW: Mapping[str, Part] = {"train": "train", "val": "test"}
"""Name of an annotation file of whole takes -> part of the split."""


@dataclass(frozen=True)
class AnnotatedTake:
    """A recording.

    Attributes:
        name, uid: as in the annotations.
        scenario: the task; empty if unknown.
    """

    name: str
    uid: str
    scenario: str


@dataclass(frozen=True)
class Annotations:
    """Takes, clips and classes.

    Attributes:
        takes: recordings.
        clips: trimmed clips.
        classes: class names in the order of their ids.
        origin: where clips and label ids come from, as text.
        missing, notes: for the survey.
    """

    takes: tuple[AnnotatedTake, ...]
    clips: tuple[TrimmedClip, ...]
    classes: tuple[str, ...]
    origin: str
    missing: tuple[Missing, ...]
    notes: tuple[str, ...]

    def counts(self) -> dict[str, int]:
        """Counts for the survey, under the benchmark's names of its parts."""
        parts = Counter(clip.part for clip in self.clips)
        return {
            "takes": len(self.takes),
            "classes": len(self.classes),
            "train clips": parts["train"],
            "val clips": parts["test"],
            "test clips": parts["hidden"],
        }


def read_annotations(root: Path, least_clips: int = 20) -> Annotations:
    """Read the clips of the benchmark, or derive clips and classes from the annotations of whole takes.

    Args:
        root: the download.
        least_clips: minimum number of clips of a class, if they are derived.

    Raises:
        InputError: no folder, or an invalid file.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; {SOURCE}")
    raw = {part: path for part in RAW if (path := root / "annotations" / f"keystep_{part}.json").exists()}
    takes = {uid: take for path in raw.values() for uid, take in _takes(path)}
    folder = next((path for path in _benchmark_folders(root) if (path / "label_mapping.csv").exists()), None)
    if folder is not None:
        return _benchmark(folder, takes)
    missing = [Missing(_benchmark_folders(root)[0] / "label_mapping.csv", SOURCE, needed=False)]
    if not raw:
        gone = [Missing(root / "annotations" / f"keystep_{part}.json", SOURCE) for part in RAW]
        return Annotations((), (), (), "", (*gone, *missing), ())
    missing += [Missing(root / "annotations" / f"keystep_{part}.json", SOURCE) for part in RAW if part not in raw]
    return _from_takes(raw, takes, least_clips, tuple(missing))


def read_persons(root: Path, takes: Collection[AnnotatedTake]) -> tuple[dict[str, str], list[str]]:
    """Read the persons of takes from ``takes.json``.

    If no participant is stated, the recording session (``capture_uid``) is used instead.

    Args:
        root: the download.
        takes: to look up.

    Returns:
        Take name -> person (empty without ``takes.json``), and notes.

    Raises:
        InputError: an invalid file, or a missing take.
    """
    path = root / "takes.json"
    if not path.exists():
        return {}, [f"persons are not known without {path}: egoexo -o DIR --parts metadata"]
    try:
        listed = parse_json(read_text(path))
        records = {take["take_uid"]: take for take in checked(list[dict[str, Any]], listed, "it")}
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path}: not a list of takes with take_uid: {one_line(error)}; download the file again"
        ) from error
    persons, sessions = {}, 0
    for take in takes:
        record = records.get(take.uid)
        if record is None:
            raise InputError(f"{path}: no take {take.uid} ({take.name}); download the file again")
        person = record.get("participant_uid")
        sessions += person is None
        session = f"session {record.get('capture_uid', take.uid)}"
        persons[take.name] = session if person is None else f"participant {person}"
    return persons, [f"{sessions} takes name no participant; their recording session is used instead"] * (sessions > 0)


def _benchmark_folders(root: Path) -> tuple[Path, ...]:
    return root / "keystep_benchmark", root / "annotations" / "keystep_benchmark"


def _benchmark(folder: Path, takes: dict[str, AnnotatedTake]) -> Annotations:
    """Read the official clips and label ids."""
    classes, steps = read_mapping_csv(folder / "label_mapping.csv")
    clips: list[TrimmedClip] = []
    missing: list[Missing] = []
    for name, part in CLIPS.items():
        path = folder / f"keystep_segment_{name}.json"
        if not path.exists():
            missing.append(Missing(path, SOURCE, needed=part != "hidden"))
            continue
        for index, segment in enumerate(_list(path, read_json(path, MOST_TEXT), "segments")):
            clips.append(_official_clip(path, index, segment, part, steps))
            takes.setdefault(clips[-1].take_uid, AnnotatedTake(clips[-1].take, clips[-1].take_uid, ""))
    used = {clip.take for clip in clips}
    listed = tuple(take for take in takes.values() if take.name in used)
    return Annotations(listed, tuple(clips), classes, "the benchmark's own files", tuple(missing), ())


def read_mapping_csv(path: Path) -> tuple[tuple[str, ...], dict[int, set[int]]]:
    """Read ``label_mapping.csv``.

    Returns:
        Class names in the order of label_id, and step_unique_id -> its label ids.

    Raises:
        InputError: other columns, or label ids with gaps.
    """
    _, rows = read_table(path)
    try:
        found = {int(row["label_id"]): (int(row["step_unique_id"]), row["step_name"].strip()) for _, row in rows}
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{path}: not the benchmark's label_mapping.csv (label_id,step_unique_id,step_name,...): {one_line(error)}"
        ) from error
    if not found or sorted(found) != list(range(len(rows))):
        raise InputError(f"{path}: label ids must be 0 to {len(rows) - 1}, each once; download the file again")
    steps: dict[int, set[int]] = {}
    for label, (step, _) in found.items():
        steps.setdefault(step, set()).add(label)
    return _unique([found[label][1] for label in range(len(found))]), steps


def _official_clip(path: Path, index: int, segment: Any, part: Part, steps: Mapping[int, set[int]]) -> TrimmedClip:
    where = f"segment {index}"
    if not isinstance(segment, dict) or not {"take_uid", "take_name", "start_time", "end_time"} <= segment.keys():
        raise InputError(f"{path}, {where}: {quoted(segment)} has no take or no times; download the file again")
    start, end = positive_seconds(path, where, segment["start_time"], segment["end_time"])
    label = segment.get("label_id")
    if part != "hidden":
        if type(label) is not int or not any(label in labels for labels in steps.values()):
            raise InputError(f"{path}, {where}: label_id {quoted(label)} is not in label_mapping.csv")
        step = segment.get("step_unique_id")
        if isinstance(step, int) and label not in steps.get(step, ()):
            raise InputError(f"{path}, {where}: step {step} has label {label} here and another in label_mapping.csv")
    return TrimmedClip(
        take=_take_name(path, where, segment["take_name"]),
        start=start,
        end=end,
        label=label if part != "hidden" else None,
        part=part,
        name=str(segment.get("ego_segment_name", "")),
        take_uid=str(segment["take_uid"]),
    )


def _from_takes(
    raw: Mapping[str, Path], takes: dict[str, AnnotatedTake], least_clips: int, missing: tuple[Missing, ...]
) -> Annotations:
    """Derive clips of keysteps with at least ``least_clips`` segments; label ids are ranked by frequency."""
    found = [(RAW[part], path, uid, step) for part, path in raw.items() for uid, step in _segments(path)]
    names: dict[int, str] = {}
    counts = Counter[int]()
    for _, path, uid, segment in found:
        identifier = segment.get("step_unique_id")
        if type(identifier) is not int or not str(segment.get("step_name", "")).strip():
            raise InputError(f"{path}, take {uid}: {quoted(segment)} has no step_unique_id or no step_name")
        names.setdefault(identifier, str(segment["step_name"]).strip())
        counts[identifier] += 1
    steps = sorted((step for step in counts if counts[step] >= least_clips), key=lambda step: (-counts[step], step))
    classes = _unique([names[step] for step in steps])
    labels = {step: label for label, step in enumerate(steps)}
    clips = []
    for part, path, uid, segment in found:
        if segment["step_unique_id"] in labels:
            bounds = positive_seconds(path, f"take {uid}", segment.get("start_time"), segment.get("end_time"))
            clips.append(TrimmedClip(takes[uid].name, *bounds, labels[segment["step_unique_id"]], part, "", uid))
    note = (
        f"classes are the {len(steps)} keysteps with at least {least_clips} segments in {' and '.join(raw)}, numbered "
        "by keystep: the benchmark's 'cutoff threshold of 20' is not defined, so use its own files for comparisons and "
        "submissions"
    )
    return Annotations(tuple(takes.values()), tuple(clips), classes, "made of whole takes", missing, (note,))


def _takes(path: Path) -> Iterator[tuple[str, AnnotatedTake]]:
    for uid, record in _annotations(path).items():
        if not isinstance(record, dict):
            raise InputError(f"{path}, take {quoted(uid)}: {quoted(record)} is not a take; download the file again")
        name = _take_name(path, f"take {uid}", record.get("take_name", uid))
        yield uid, AnnotatedTake(name, uid, str(record.get("scenario", "")))


def _segments(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for uid, record in _annotations(path).items():
        for segment in _list(path, record, "segments"):
            if not isinstance(segment, dict):
                raise InputError(f"{path}, take {uid}: {quoted(segment)} is not a segment; download the file again")
            yield uid, segment


def _annotations(path: Path) -> dict[str, Any]:
    found = read_json(path, MOST_TEXT).get("annotations")
    if not isinstance(found, dict):
        raise InputError(f"{path}: has no 'annotations' by take; expected EgoExo4D's keystep annotations")
    return found


def _list(path: Path, record: dict[str, Any], key: str) -> list[Any]:
    found = record.get(key)
    if not isinstance(found, list):
        raise InputError(f"{path}: has no list of {key}; expected EgoExo4D's keystep annotations")
    return found


def _take_name(path: Path, where: str, name: object) -> str:
    """Validate the name of a take, which becomes a file name."""
    if not is_file_name(name):
        raise InputError(f"{path}, {where}: {quoted(name)} is not the name of a take; download the file again")
    return name


def _unique(names: list[str]) -> tuple[str, ...]:
    """Make class names unique, because a feature folder identifies classes by name."""
    shared = Counter(names)
    return tuple(name if shared[name] == 1 else f"{name} (#{label})" for label, name in enumerate(names))
