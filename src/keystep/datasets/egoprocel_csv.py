"""Read the original annotations of EgoProceL: one CSV file per video, in folders by data set and task."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from keystep.data.annotation import hold_out
from keystep.data.problems import Problems
from keystep.datasets.tree import (
    Array,
    Axis,
    SlotLabels,
    TimedSegment,
    label_slots,
    measure,
    open_features,
    positive_seconds,
    time_axis,
    without_progress,
)
from keystep.errors import InputError
from keystep.reading import read_rows

BACKGROUND = "background"
TEST_SHARE = 0.2
"""Share of test videos of each task in keystep's own split, because none was published for these annotations."""
NUMBERED = re.compile(r"\s*(\d+)")
"""Matches the number of a key-step: "4 crack the egg", or "4. crack the egg" in EGTEA's files."""

Shapes = dict[Path, tuple[int, ...]]


@dataclass(frozen=True)
class AnnotatedVideo:
    """An annotated video.

    Attributes:
        name: unique in the data set.
        task: its folders, at most two (``CMU-MMAC/Brownie``).
        path: its CSV file.
        segments: start and end in seconds, and the key-step as written.
    """

    name: str
    task: str
    path: Path
    segments: tuple[TimedSegment, ...]


@dataclass(frozen=True)
class Tree:
    """All annotations and their arrays.

    Attributes:
        videos: annotated videos.
        paths: video -> its array, if it has a usable one.
        damaged: video -> its unusable annotation or array.
        axis: time axis of the arrays.
        notes: for the survey.
    """

    videos: tuple[AnnotatedVideo, ...]
    paths: dict[str, Path]
    damaged: dict[str, Path]
    axis: Axis
    notes: tuple[str, ...]

    @property
    def with_features(self) -> tuple[AnnotatedVideo, ...]:
        """Videos with a usable array."""
        return tuple(video for video in self.videos if video.name in self.paths)

    @property
    def without_features(self) -> tuple[AnnotatedVideo, ...]:
        """Videos without an array."""
        return tuple(video for video in self.videos if video.name not in self.paths and video.name not in self.damaged)

    @cached_property
    def names(self) -> dict[tuple[str, str], str]:
        """(task, key of the key-step) -> class name ``task/key-step``, because each task has its own numbers.

        Of several spellings, the most frequent one is used.
        """
        spelled: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for video in self.videos:
            for segment in video.segments:
                spelled[video.task, step_key(segment.name)][" ".join(segment.name.split())] += 1
        ordered = sorted(spelled, key=lambda pair: (pair[0], not pair[1].isdecimal(), pair[1].zfill(4)))
        return {
            pair: f"{pair[0]}/{min(spelled[pair], key=lambda text: (-spelled[pair][text], text))}" for pair in ordered
        }

    @property
    def classes(self) -> tuple[str, ...]:
        """The background, then the key-steps of all tasks."""
        return (BACKGROUND, *self.names.values())

    def features(self, video: AnnotatedVideo) -> Array:
        """Read the features of a video, (T, D).

        Raises:
            InputError: NaN or infinity.
        """
        array = open_features(self.paths[video.name])
        rows = array if self.axis == 0 else array.T
        if not np.isfinite(rows).all():
            raise InputError(f"{self.paths[video.name]}: NaN or infinite values; extract this video again")
        return rows

    def labels(self, video: AnnotatedVideo, times: Array) -> SlotLabels:
        """Label the slots of a video, with the background between key-steps.

        A slot belongs to a key-step if start <= time < end. (The authors' code counts frames and
        includes the last one.)

        Args:
            video: its annotation.
            times: (T,) seconds of the slots.
        """
        named = [segment._replace(name=self.names[video.task, step_key(segment.name)]) for segment in video.segments]
        return label_slots(times, named, BACKGROUND)

    def split(self) -> dict[str, list[str]]:
        """Hold out `TEST_SHARE` of the videos of each task for testing, by hash of the name; single videos train."""
        parts: dict[str, list[str]] = {"train": [], "test": []}
        for task in dict.fromkeys(video.task for video in self.videos):
            videos = [video.name for video in self.videos if video.task == task]
            train, test = hold_out(videos, TEST_SHARE) if len(videos) > 1 else (tuple(videos), ())
            parts["train"] += train
            parts["test"] += test
        return parts

    def counts(self) -> dict[str, int]:
        """Counts for the survey."""
        return {
            "tasks": len({video.task for video in self.videos}),
            "videos": len(self.videos),
            "videos with features": len(self.with_features),
            "segments": sum(len(video.segments) for video in self.videos),
            "classes": len(self.classes),
        }


def read_tree(root: Path, axis: Axis | None, problems: Problems) -> Tree:
    """Read all CSV files, find the arrays, and determine their orientation.

    Args:
        root: the download.
        axis: time axis of the arrays. None: determined from the shapes.
        problems: collects bad files, by the name of the video.

    Raises:
        InputError: no annotation, ambiguous axes, or a bad file (unless skipped).
    """
    files = sorted((root / "annotations").rglob("*.csv"))
    if not files:
        raise InputError(f"{root / 'annotations'}: no CSV files; download them from sid2697.github.io/egoprocel")
    stems = Counter(path.stem for path in files)
    tasks = [_task(path.relative_to(root / "annotations")) for path in files]
    videos, damaged, quiet = [], {}, without_progress(problems)
    for path, task in zip(files, tasks, strict=True):
        name = path.stem if stems[path.stem] == 1 else f"{task.replace('/', '_')}_{path.stem}"
        segments = quiet.attempt(name, lambda path=path: read_segments(path))  # type: ignore[misc]
        if segments is None:
            damaged[name] = path
        else:
            videos.append(AnnotatedVideo(name, task, path, segments))
    found = _find_arrays(root, videos)
    shapes = _check_widths(found, measure(found, problems), axis, quiet)
    paths = {name: path for name, path in found.items() if path in shapes}
    damaged |= {name: path for name, path in found.items() if path not in shapes}
    notes = ["split 1 is keystep's own: a fifth of each task's videos test; none was published for these annotations"]
    empty = sum(not video.segments for video in videos)
    if empty:
        notes.append(f"{empty} videos have no key-step")
    return Tree(tuple(videos), paths, damaged, _axis(shapes, axis), tuple(notes))


def read_segments(path: Path) -> tuple[TimedSegment, ...]:
    """Read lines ``start second, end second, key-step``. A header is skipped; key-steps may contain commas.

    Raises:
        InputError: a line with too few columns, invalid seconds, or no key-step.
    """
    rows = read_rows(path)
    if rows and not any(character.isdigit() for character in "".join(rows[0][1][:2])):
        rows = rows[1:]
    segments = []
    for number, row in rows:
        if len(row) < 3 or not ",".join(row[2:]).strip():
            raise InputError(f"{path}, line {number}: {','.join(row)!r} is not 'start,end,key-step'")
        start, end = positive_seconds(path, f"line {number}", row[0], row[1])
        segments.append(TimedSegment(start, end, ",".join(row[2:]).strip()))
    return tuple(segments)


def step_key(text: str) -> str:
    """The identifier of a key-step within its task: its number, or its words if it has none."""
    found = NUMBERED.match(text)
    return (found[1].lstrip("0") or "0") if found else " ".join(text.lower().split())


def _task(path: Path) -> str:
    """``CMU-MMAC/Brownie`` of ``CMU-MMAC/Brownie/S07_Brownie_Video/x.csv``; ``MECCANO`` of ``MECCANO/0003.csv``."""
    return "/".join(path.parts[:-1][:2]) or path.stem


def _find_arrays(root: Path, videos: Sequence[AnnotatedVideo]) -> dict[str, Path]:
    """Arrays with the path of the CSV file under ``features/``, otherwise with its name, otherwise with the video's."""
    arrays = [path for path in sorted((root / "features").rglob("*")) if path.suffix in (".npy", ".pt")]
    by_path = {path.relative_to(root / "features").with_suffix(""): path for path in reversed(arrays)}
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for path in arrays:
        by_stem[path.name.removesuffix(path.suffix)].append(path)
    found = {}
    for video in videos:
        relative = video.path.relative_to(root / "annotations").with_suffix("")
        own = by_path.get(relative)
        alone = by_stem[video.name] or (by_stem[video.path.stem] if video.name == video.path.stem else [])
        if own is not None or len(alone) == 1:
            found[video.name] = own if own is not None else alone[0]
        elif len(alone) > 1:
            raise InputError(
                f"{alone[0]}: {alone[1]} has the same name; put both into the folders of their annotations"
            )
    return found


def _axis(shapes: Shapes, axis: Axis | None) -> Axis:
    """The time axis."""
    if axis is None and shapes:
        return time_axis(shapes)
    return axis or 0


def _check_widths(paths: Mapping[str, Path], shapes: Shapes, axis: Axis | None, problems: Problems) -> Shapes:
    """The arrays with the most common width."""
    axis = _axis(shapes, axis)
    widths = Counter(shape[1 - axis] for shape in shapes.values())
    width = widths.most_common(1)[0][0] if widths else 0

    def check(path: Path) -> bool:
        if shapes[path][1 - axis] != width:
            shape = shapes[path]
            raise InputError(f"{path}: width {shape[1 - axis]} in shape {shape}; the other videos have {width}")
        return True

    known = {name: path for name, path in paths.items() if path in shapes}
    return {path: shapes[path] for name, path in known.items() if problems.attempt(name, lambda path=path: check(path))}  # type: ignore[misc]
