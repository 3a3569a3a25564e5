"""`inspect_dataset`: what a feature folder holds, and all that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from keystep.data.annotation import IGNORED, PARTS, segment_lengths, split_names
from keystep.data.folder import FeatureFolder, open_dataset
from keystep.errors import InputError
from keystep.files import read_json
from keystep.progress import SILENT, Progress
from keystep.types import AnyRate


@dataclass(frozen=True)
class ClassCount:
    """How often a class occurs in the labelled videos, at the labels' own rate."""

    frames: int
    segments: int


@dataclass(frozen=True)
class SplitSizes:
    """Videos in each part of a split. rule: where the validation part comes from."""

    name: str
    videos: Mapping[str, int]
    rule: str


@dataclass(frozen=True, repr=False)
class Inspection:
    """What a feature folder holds.

    Attributes:
        folder: the folder, without the videos that cannot be used.
        rate: slots a second; None where neither the folder nor the caller says it.
        lengths: slots of each video.
        classes: by falling number of frames.
        labelled: frames of all labelled videos.
        splits: sizes of the splits that can be used.
        problems: one line each for what is wrong.
        warnings: one line each for what deserves a look.
    """

    folder: FeatureFolder
    rate: Fraction | None
    lengths: Mapping[str, int]
    classes: Mapping[str, ClassCount]
    labelled: int
    splits: tuple[SplitSizes, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def unlabelled(self) -> int:
        """Frames without a label in labelled videos."""
        return self.labelled - sum(count.frames for count in self.classes.values())

    def __repr__(self) -> str:
        return (
            f"Inspection({str(self.folder.root)!r}, {len(self.lengths)} videos, {len(self.classes)} classes, "
            f"{len(self.problems)} problems, {len(self.warnings)} warnings)"
        )


def inspect_dataset(
    root: Path | str,
    *,
    source_rate: AnyRate | None = None,
    rate: AnyRate | None = None,
    progress: Progress = SILENT,
) -> Inspection:
    """Read all of a feature folder: features, labels, times, segments, splits.

    Args:
        root: the folder.
        source_rate: features a second on disk, where the folder has no ``store.json`` that says so.
        rate: the rate to work at, a whole fraction of the source rate.
        progress: reports the videos that are read.

    Raises:
        InputError: not a feature folder, no usable video in it, or a rate that does not fit.
    """
    root = Path(root)
    known = source_rate is not None or (root / "store.json").exists()
    if rate is not None and not known:
        raise InputError(f"{root}: no store.json says how many features a second; give it with --source-rate 30")
    folder = open_dataset(root, source_rate=source_rate if known else 1, rate=rate if known else None, problems="skip")
    with progress.task("reading", total=len(folder.videos), unit="videos") as task:
        for name in folder.videos:
            folder.problems.attempt(name, lambda name=name: _read(folder, name))  # type: ignore[misc]
            task.advance(note=name)
    sound = [name for name in folder.videos if name not in folder.problems.skipped]
    classes, labelled = _count_classes(folder, sound)
    splits, of_splits = _inspect_splits(folder)
    return Inspection(
        folder,
        folder.timeline.rate if known else None,
        {name: folder.length(name) for name in folder.videos},
        classes,
        labelled,
        splits,
        (*folder.problems.skipped.values(), *_labels_alone(root), *of_splits),
        (
            *folder.problems.notes,
            *(_explicit_times(folder, sound) if known else ()),
            *_damaged_videos(folder),
            *_left_out(folder),
        ),
    )


def _read(folder: FeatureFolder, name: str) -> None:
    """Read everything of one video that may be bad."""
    folder.features(name)
    folder.times(name)
    if (folder.root / "segments" / f"{name}.txt").exists():
        folder.segment_lengths(name)


def _labels_alone(root: Path) -> Iterator[str]:
    for name in sorted(path.name.removesuffix(".txt") for path in (root / "groundTruth").glob("*.txt")):
        if not (root / "features" / f"{name}.npy").exists():
            yield f"{root}: labels but no features for {name!r}"


def _count_classes(folder: FeatureFolder, names: list[str]) -> tuple[dict[str, ClassCount], int]:
    """How often each class occurs in the labelled ones of some videos, and how many frames those have."""
    frames = np.zeros(len(folder.classes), dtype=int)
    segments = np.zeros(len(folder.classes), dtype=int)
    total = 0
    for name in names:
        if folder.video(name).labels is not None:
            total += folder.video(name).frames
            labels = folder.frame_labels(name)
            starts = np.cumsum([0, *segment_lengths(labels)[:-1]])
            for count, ids in ((frames, labels), (segments, labels[starts])):
                count += np.bincount(ids[ids != IGNORED], minlength=len(count))
    order = np.argsort(-frames, kind="stable")
    return {folder.classes[index]: ClassCount(int(frames[index]), int(segments[index])) for index in order}, total


def _inspect_splits(folder: FeatureFolder) -> tuple[tuple[SplitSizes, ...], list[str]]:
    """Sizes of each split, and what is wrong with any."""
    splits, problems = [], []
    for name in split_names(folder.root):
        try:
            split = folder.split(name)
        except InputError as error:
            problems.append(str(error))
            continue
        splits.append(SplitSizes(name, {part: len(split.part(part)) for part in PARTS}, split.rule))
        problems += [
            f"split {name}: {video} of {part} has no labels"
            for part in PARTS
            for video in split.part(part)
            if folder.classes and folder.video(video).labels is None
        ]
    return tuple(splits), problems


def _explicit_times(folder: FeatureFolder, names: list[str]) -> list[str]:
    """How many videos have explicit times, and how far those are from the regular timeline."""
    timeline = folder.timeline
    apart = []
    for name in filter(folder.has_times, names):
        times = folder.times(name)
        apart.append(np.abs(times - float(timeline.start) - np.arange(len(times)) / float(timeline.rate)).max())
    if not apart:
        return []
    return [
        f"{len(apart)} of {len(folder.videos)} videos have explicit times, up to {max(apart):,.3f} s from the "
        f"regular timeline at {float(timeline.rate):g} Hz"
    ]


def _damaged_videos(folder: FeatureFolder) -> Iterator[str]:
    """One line a video of which a part could not be decoded."""
    for name in folder.videos if folder.extraction is not None else ():
        record = folder.root / "features" / f"{name}.json"
        damage = read_json(record).get("damage") if record.exists() else None
        if isinstance(damage, list):
            yield from (f"{name}: {line}" for line in damage)


def _left_out(folder: FeatureFolder) -> Iterator[str]:
    """One line a video that could not be extracted, or not done again or labelled when it was there already."""
    for path in sorted(folder.root.glob("skipped/*.json")):
        there = path.stem in folder.videos
        yield f"{path.stem}: {'' if there else 'left out: '}{read_json(path).get('reason')}"
