"""Planning of an import before anything is written: names, slots, labels and splits of every sequence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from keystep.data.annotation import PARTS
from keystep.data.problems import Problems
from keystep.errors import InputError, quoted
from keystep.interop.official.archives import Archive
from keystep.interop.official.manifests import SPLITS, Manifest, ManifestTake, Segment, unique_names
from keystep.interop.official.slicing import Boundaries, on_bounds, take_slots, whole_labels

Sequences = Literal["whole", "segments"]
LONGEST_NAME = 200
"""Maximum length of a video name in bytes; file systems allow 255, including extensions and temporary names."""
SUFFIXES = (".pt", ".npy", ".mp4", ".avi")
WITHOUT_SLOTS = "segments without a slot of their own, which got the nearest"
CHOLEC80 = {"1": (32, 40, 80), "2": (40, 40, 80)}
"""Split -> number of the last video of train, valid and test."""


@dataclass(frozen=True)
class Item:
    """A sequence to write."""

    name: str
    """File name of the video in the feature folder."""
    video: int
    """Its index in the archive."""
    length: int
    labels: np.ndarray | None = None
    """(length,) int64 from a manifest; surgical archives have their own labels."""
    slots: np.ndarray | None = None
    """(length,) index into the (subsampled) slots of the video; None: all slots."""
    lengths: list[int] | None = None
    """Number of slots of each true segment, if the sequence consists of segments."""


@dataclass
class ImportPlan:
    """Everything to write, in the order on disk of the archive."""

    items: list[Item] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    splits: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """Split -> train, valid or test -> names."""
    counts: dict[str, int] = field(default_factory=dict)
    """Numbers of skipped, truncated or ambiguous items, which are stored with the data."""
    notes: list[str] = field(default_factory=list)

    def count(self, what: str, number: int) -> None:
        """Increase a count."""
        self.counts[what] = self.counts.get(what, 0) + number


def plan_archive(archive: Archive, every: int) -> ImportPlan:
    """Plan all videos with the labels and splits of the archive."""
    plan = ImportPlan(classes=unique_names(archive.classes) if archive.classes else ())
    videos = archive.order()
    plan.count("videos without slots", len(archive.lengths) - len(videos))
    names = plain_names([archive.names[video] for video in videos], archive.path)
    for video, name in zip(videos, names, strict=True):
        plan.items.append(Item(name, video, -(-int(archive.lengths[video]) // every)))
    if str(archive.metadata.get("dataset", "")).lower() == "cholec80":
        plan.splits = cholec80_splits(names)
    elif archive.splits:
        plan.splits = _known_splits({name: archive.splits[video] for video, name in zip(videos, names, strict=True)})
    return plan


@dataclass(frozen=True)
class Slicing:
    """How segments are converted to sequences."""

    sequence: Sequences = "whole"
    """``whole``: whole videos with gaps; ``segments``: the authors' training sequences of labelled segments."""
    boundaries: Boundaries = "exact"
    every: int = 1
    """Subsampling factor of the slots, which is applied first."""
    background_limit: int = 0
    """Number of slots at the start of a background segment that a training sequence keeps; 0: all."""


def plan_manifest(archive: Archive, manifest: Manifest, slicing: Slicing, problems: Problems) -> ImportPlan:
    """Plan whole videos with the labels of a manifest, or the authors' training sequences.

    Raises:
        InputError: no row matches a video of the archive, a video is in two splits, a name cannot be a file name, or
            times are invalid (unless ``problems`` skips them).
    """
    planner = _Planner(archive, manifest, slicing, problems)
    if slicing.sequence == "whole":
        planner.whole_videos()
    else:
        planner.takes()
    return planner.plan


class _Planner:
    """Builds a plan from an archive and its manifest."""

    def __init__(self, archive: Archive, manifest: Manifest, slicing: Slicing, problems: Problems) -> None:
        self.archive, self.manifest, self.slicing, self.problems = archive, manifest, slicing, problems
        self.plan = ImportPlan(classes=manifest.classes, notes=list(manifest.notes))
        self.videos = {archive.names[video]: video for video in archive.order()}
        self.by_path: dict[str, list[ManifestTake]] = {path: [] for path in self.videos}
        lacking = 0
        for take, segments in manifest.takes.items():
            if take.path in self.by_path:
                self.by_path[take.path].append(take)
            else:
                lacking += len(segments)
        if not any(self.by_path.values()):
            first, held = next(iter(manifest.takes)).path, archive.names[0]
            raise InputError(
                f"{archive.path}: no video of the manifests, such as {quoted(first)}; it has {quoted(held)}"
            )
        self.plan.count("videos without slots", len(archive.lengths) - len(self.videos))
        self.plan.count("videos without rows", sum(not takes for takes in self.by_path.values()))
        self.plan.count("manifest rows", sum(map(len, manifest.takes.values())))
        self.plan.count("manifest rows of videos that the archive lacks", lacking)

    def whole_videos(self) -> None:
        """Plan all videos. Slots outside of all segments are unlabelled."""
        parts: dict[str, str] = {}
        for path, name in zip(self.videos, plain_names(list(self.videos), self.archive.path), strict=True):
            length, labels = -(-int(self.archive.lengths[self.videos[path]]) // self.slicing.every), None
            if self.by_path[path]:
                times = self._times(path, name)
                if times is None:
                    continue
                segments = sorted(segment for take in self.by_path[path] for segment in self.manifest.takes[take])
                found = whole_labels(times, segments, self.slicing.boundaries)
                labels = found.labels
                self.plan.count("slots that several segments claim", found.shared)
                self.plan.count(WITHOUT_SLOTS, found.nearest)
                self.plan.count("segments outside of their video, left out", found.outside)
                self._count_bounds(times, segments)
                parts[name] = self._split(path)
            self.plan.items.append(Item(name, self.videos[path], length, labels))
        self.plan.splits = _one_split(parts)

    def takes(self) -> None:
        """Plan the concatenated labelled segments of each take. Videos without rows are skipped."""
        parts: dict[str, str] = {}
        takes = [take for takes in self.by_path.values() for take in sorted(takes)]
        names = plain_names([str(PurePosixPath(take.action_type, take.path)) for take in takes], self.archive.path)
        for take, name in zip(takes, names, strict=True):
            times = self._times(take.path, name)
            if times is None:
                continue
            segments = self.manifest.takes[take]
            built = take_slots(times, segments, self.slicing.boundaries, self.slicing.background_limit)
            video = self.videos[take.path]
            self.plan.items.append(Item(name, video, len(built.slots), built.labels, built.slots, built.lengths))
            self.plan.count("slots that overlapping segments repeat", len(built.slots) - len(np.unique(built.slots)))
            self.plan.count("background slots cut off", built.cut)
            self.plan.count(WITHOUT_SLOTS, built.nearest)
            self._count_bounds(times, segments)
            parts[name] = self.manifest.splits[take]
        self.plan.splits = _one_split(parts)

    def _times(self, path: str, name: str) -> np.ndarray | None:
        """(T,) times of the subsampled video; None for an invalid video that is skipped."""
        return self.problems.attempt(name, lambda: self.archive.video(self.videos[path]).times[:: self.slicing.every])

    def _split(self, path: str) -> str:
        found = sorted({self.manifest.splits[take] for take in self.by_path[path]})
        if len(found) > 1:
            raise InputError(f"{self.archive.path}: {quoted(path)} is in {found[0]} and in {found[1]} of the manifests")
        return found[0]

    def _count_bounds(self, times: np.ndarray, segments: Sequence[Segment]) -> None:
        found = on_bounds(times, segments)
        self.plan.count("slots exactly on a bound", found.slots)
        self.plan.count("of them, slots that float32 puts before the bound", found.moved)


def plain_names(paths: Sequence[str], source: Path) -> list[str]:
    """File names of videos: the path in the archive without its extension, with ``/`` replaced by ``__``.

    Raises:
        InputError: two paths with the same name, or an unsuitable file name.
    """
    names: dict[str, str] = {}
    for path in paths:
        stem = next((path.removesuffix(suffix) for suffix in SUFFIXES if path.endswith(suffix)), path)
        name = "__".join(PurePosixPath(stem).parts)
        if not name or name != name.strip() or name.startswith(".") or not name.isprintable():
            raise InputError(f"{source}: {quoted(path)} is not a valid file name; rename it in the archive")
        if len(name.encode()) > LONGEST_NAME:
            raise InputError(f"{source}: {quoted(path)} is too long for a file name; rename it in the archive")
        if name in names:
            both = f"{quoted(names[name])} and {quoted(path)}"
            raise InputError(f"{source}: {both} have the same file name {quoted(name)}; rename one")
        names[name] = path
    return list(names)


def _one_split(parts: Mapping[str, str]) -> dict[str, dict[str, list[str]]]:
    """Split 1 from name -> train, valid or test. If there is only one evaluation part, it becomes the test part."""
    split: dict[str, list[str]] = {part: [name for name, own in parts.items() if own == part] for part in PARTS}
    if not split["test"]:
        split["test"], split["valid"] = split["valid"], []
    return {"1": split}


def _known_splits(splits: Mapping[str, str]) -> dict[str, dict[str, list[str]]]:
    """Split 1 from the archive's split names, if there are several and all are known."""
    words = {word.lower() for word in splits.values()}
    if len(words) < 2 or not words <= set(SPLITS):
        return {}
    return _one_split({name: SPLITS[word.lower()] for name, word in splits.items()})


def cholec80_splits(names: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """Splits of Cholec80: in split 1, videos 1-32 are train, 33-40 valid and 41-80 test; in split 2, 1-40 train and
    41-80 test.

    Videos are identified by the number at the end of their names; those without a number from 1 to 80 are in no split.
    """
    numbers = {name: int(found[1]) for name in names if (found := re.search(r"(\d+)$", name))}
    splits = {}
    for split, lasts in CHOLEC80.items():
        firsts = (1, *(last + 1 for last in lasts[:-1]))
        splits[split] = {
            part: [name for name, number in numbers.items() if first <= number <= last]
            for part, first, last in zip(PARTS, firsts, lasts, strict=True)
        }
    return splits
