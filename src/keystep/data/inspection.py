"""`inspect_dataset`: content, problems and warnings of a feature folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from keystep.data.annotation import IGNORED, PARTS, Split, read_split
from keystep.data.folder import FeatureFolder, open_dataset
from keystep.data.groups import Grouping, shared_groups
from keystep.data.layout import file_names
from keystep.data.time_scale import CHANNELS, TimeScale, decorrelation_time
from keystep.errors import InputError
from keystep.progress import SILENT, Progress
from keystep.reading import read_json, stored
from keystep.types import AnyRate

MEASURED = 60
"""Maximum number of evenly spaced videos on which the decorrelation time is measured."""

UNLABELLED_END = 0.3
"""Share of a video without labels at its end above which a warning asks about their rate."""


@dataclass(frozen=True)
class ClassCount:
    """Frequency of a class in the labelled videos, at the rate of the labels."""

    frames: int
    segments: int


@dataclass(frozen=True)
class SplitSizes:
    """Sizes of a split.

    Attributes:
        name: of the split.
        videos: part -> number of videos.
        groups: part -> number of groups; empty if groups are unknown.
        rule: where the validation part comes from.
    """

    name: str
    videos: Mapping[str, int]
    groups: Mapping[str, int]
    rule: str


@dataclass(frozen=True, repr=False)
class Inspection:
    """The content of a feature folder.

    Attributes:
        folder: the folder, without unusable videos.
        rate: slots per second. None: unknown.
        lengths: slots of each video.
        classes: frequencies of the classes, in descending order.
        labelled: total frames of the labelled videos.
        splits: sizes of the usable splits.
        groups: number of videos per group; empty if groups are unknown.
        time_scale: decorrelation time of the features in seconds (in frames if the rate is unknown). None: undefined;
            see the warnings.
        measured: number of videos on which it was measured.
        problems: one line each.
        warnings: one line each.
    """

    folder: FeatureFolder
    rate: Fraction | None
    lengths: Mapping[str, int]
    classes: Mapping[str, ClassCount]
    labelled: int
    splits: tuple[SplitSizes, ...]
    groups: Mapping[str, int]
    time_scale: TimeScale | None
    measured: int
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def tau_frames(self) -> tuple[float, float, float] | None:
        """The decorrelation time and its interval in frames."""
        if self.time_scale is None:
            return None
        rate = float(self.folder.timeline.rate)
        return self.time_scale.tau * rate, self.time_scale.low * rate, self.time_scale.high * rate

    def to_json(self) -> dict[str, Any]:
        """The inspection as plain values; tau in seconds and in frames, with its 95 % interval."""
        seconds = (
            None
            if self.time_scale is None or self.rate is None
            else (self.time_scale.tau, self.time_scale.low, self.time_scale.high)
        )
        return {
            "root": str(self.folder.root),
            "width": self.folder.width,
            "tokens": self.folder.tokens,
            "rate_hz": None if self.rate is None else float(self.rate),
            "lengths": dict(self.lengths),
            "tau": {"seconds": seconds, "frames": self.tau_frames, "videos": self.measured},
            "classes": {name: asdict(count) for name, count in self.classes.items()},
            "labelled_frames": self.labelled,
            "unlabelled_frames": self.unlabelled,
            "splits": [asdict(split) for split in self.splits],
            "groups": dict(self.groups),
            "problems": list(self.problems),
            "warnings": list(self.warnings),
        }

    @property
    def unlabelled(self) -> int:
        """Number of frames without a label in the labelled videos."""
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
    groups: Grouping | None = None,
    progress: Progress = SILENT,
) -> Inspection:
    """Read a whole feature folder: features, labels, times, segments, splits and groups.

    Args:
        root: the folder.
        source_rate: slots per second on disk, for folders without a ``store.json``.
        rate: slots per second to work at, an integer fraction of the source rate.
        groups: as for `open_dataset`.
        progress: reports the videos that are read.

    Raises:
        InputError: not a feature folder, no usable video, or an invalid rate.
    """
    root = Path(root)
    known = source_rate is not None or (root / "store.json").exists()
    if rate is not None and not known:
        raise InputError(f"{root}: no store.json states the rate of the features; give it with --source-rate 30")
    folder = open_dataset(
        root, source_rate=source_rate if known else 1, rate=rate if known else None, problems="skip", groups=groups
    )
    labels = _LabelSurvey(folder)
    tracks = _read_all(folder, labels, progress)
    sound = [name for name in folder.videos if name not in folder.problems.skipped]
    known_groups, of_groups = _inspect_groups(folder)
    splits, of_splits, shared = _inspect_splits(folder, known_groups)
    time_scale, constant = _measure_time_scale(folder, tracks)
    return Inspection(
        folder,
        folder.timeline.rate if known else None,
        {name: folder.length(name) for name in folder.videos},
        labels.classes(),
        labels.total,
        splits,
        dict(sorted(Counter((known_groups or {}).values()).items())),
        time_scale,
        len(tracks),
        (*folder.problems.skipped.values(), *_labels_alone(root), *of_groups, *of_splits),
        (
            *folder.problems.notes,
            *constant,
            *shared,
            *(_explicit_times(folder, sound) if known else ()),
            *labels.ending_early(),
            *_odd_videos(folder),
            *_left_out(folder),
        ),
    )


def _read_all(folder: FeatureFolder, labels: _LabelSurvey, progress: Progress) -> list[np.ndarray]:
    """Read every video; returns those on which tau is measured, (T, at most `CHANNELS`) each."""
    names = list(folder.videos)
    sample = {names[place] for place in np.linspace(0, len(names) - 1, min(MEASURED, len(names))).astype(int)}
    segmented, timed = (file_names(folder.root / part) for part in ("segments", "times"))
    measured = []

    def read(name: str) -> None:
        folder.features(name)
        if f"{name}.npy" in timed:
            folder.times(name)
        if f"{name}.txt" in segmented:
            folder.segment_lengths(name)

    with progress.task("reading", total=len(names), unit="videos") as task:
        for name in names:
            folder.problems.attempt(name, lambda name=name: read(name))  # type: ignore[misc]
            if name not in folder.problems.skipped:
                labels.add(name)
                if name in sample:
                    features = folder.vectors(name)
                    measured.append(features[:, :: -(-features.shape[1] // CHANNELS)].copy())
            task.advance(note=name)
    return measured


class _LabelSurvey:
    """What is said of the labels, from reading those of each video once.

    Attributes:
        total: frames of the labelled videos.
    """

    def __init__(self, folder: FeatureFolder) -> None:
        self.folder, self.total = folder, 0
        self._frames, self._segments = np.zeros((2, len(folder.classes)), dtype=int)
        self._unlabelled_ends: dict[str, float] = {}

    def add(self, name: str) -> None:
        """Read the labels of a video, if it has any."""
        if self.folder.video(name).labels is None:
            return
        labels = self.folder.frame_labels(name)
        self.total += len(labels)
        starts = np.concatenate([[0], np.flatnonzero(np.diff(labels)) + 1])
        for count, ids in ((self._frames, labels), (self._segments, labels[starts])):
            count += np.bincount(ids[ids != IGNORED], minlength=len(count))
        labelled = np.flatnonzero(labels != IGNORED)
        self._unlabelled_ends[name] = 1 - (labelled[-1] + 1) / len(labels) if len(labelled) else 1.0

    def classes(self) -> dict[str, ClassCount]:
        """Frequencies of the classes, in descending order."""
        order = np.argsort(-self._frames, kind="stable")
        return {
            self.folder.classes[index]: ClassCount(int(self._frames[index]), int(self._segments[index]))
            for index in order
        }

    def ending_early(self) -> list[str]:
        """Warning about videos whose labels end early, as labels of another rate do."""
        ends = self._unlabelled_ends
        early = {name: share for name, share in ends.items() if share > UNLABELLED_END}
        if not early:
            return []
        worst = max(early, key=early.__getitem__)
        return [
            f"labels end early in {len(early)} of {len(ends)} videos; {worst}: {100 * early[worst]:.0f} % is "
            "unlabelled: are they of another frame rate? ('keystep extract --labels DIR --label-rate N' aligns them "
            "by time)"
        ]


def _labels_alone(root: Path) -> Iterator[str]:
    features = file_names(root / "features")
    for name in sorted(name.removesuffix(".txt") for name in file_names(root / "groundTruth") if name.endswith(".txt")):
        if f"{name}.npy" not in features:
            yield f"{root}: labels but no features for {name!r}"


def _inspect_groups(folder: FeatureFolder) -> tuple[Mapping[str, str] | None, list[str]]:
    """The groups of the videos, or the problem with them."""
    try:
        return folder.groups, []
    except InputError as error:
        return None, [str(error)]


def _inspect_splits(
    folder: FeatureFolder, groups: Mapping[str, str] | None
) -> tuple[tuple[SplitSizes, ...], list[str], list[str]]:
    """(sizes, problems, warnings about groups in several parts) of the splits."""
    splits, problems, warnings = list[SplitSizes](), list[str](), list[str]()
    for name in folder.splits:
        try:
            split = read_split(folder.root, name, folder.videos, folder.problems.skipped, groups)
        except InputError as error:
            problems.append(str(error))
            continue
        splits.append(_sizes(split, groups))
        warnings += [] if groups is None else shared_groups(split, groups)
        problems += [
            f"split {name}: {video} of {part} has no labels"
            for part in PARTS
            for video in split.part(part)
            if folder.classes and folder.video(video).labels is None
        ]
    return tuple(splits), problems, warnings


def _sizes(split: Split, groups: Mapping[str, str] | None) -> SplitSizes:
    videos = {part: len(split.part(part)) for part in PARTS}
    persons = {} if groups is None else {part: len({groups[name] for name in split.part(part)}) for part in PARTS}
    return SplitSizes(split.name, videos, persons, split.rule)


def _measure_time_scale(folder: FeatureFolder, videos: list[np.ndarray]) -> tuple[TimeScale | None, list[str]]:
    """The decorrelation time of the features, or a warning that they have none."""
    if not videos:
        return None, []
    try:
        return decorrelation_time(videos, folder.timeline.rate), []
    except InputError as error:
        return None, [f"no decorrelation time: {error}"]


def _explicit_times(folder: FeatureFolder, names: list[str]) -> list[str]:
    """Warning about explicit times and their distance from the regular timeline."""
    timeline, timed = folder.timeline, file_names(folder.root / "times")
    apart = []
    for name in (name for name in names if f"{name}.npy" in timed):
        times = folder.times(name)
        apart.append(np.abs(times - float(timeline.start) - np.arange(len(times)) / float(timeline.rate)).max())
    if not apart:
        return []
    return [
        f"{len(apart)} of {len(folder.videos)} videos have explicit times, up to {max(apart):,.3f} s from the "
        f"regular timeline at {float(timeline.rate):g} Hz"
    ]


def _odd_videos(folder: FeatureFolder) -> Iterator[str]:
    """Notes of the extraction: damaged parts, other video tracks, jumps and gaps in the timestamps."""
    for name in folder.videos if folder.extraction is not None else ():
        record = folder.root / "features" / f"{name}.json"
        said = read_json(record) if stored(record) else {}
        for lines in (said.get("damage"), said.get("notes")):
            yield from (f"{name}: {line}" for line in lines) if isinstance(lines, list) else ()


def _left_out(folder: FeatureFolder) -> Iterator[str]:
    """Videos that could not be extracted, extracted again, or labelled."""
    for path in sorted(folder.root.glob("skipped/*.json")):
        there = path.stem in folder.videos
        yield f"{path.stem}: {'' if there else 'left out: '}{read_json(path).get('reason')}"
