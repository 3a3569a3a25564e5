"""Breakfast, 50Salads and GTEA in the MS-TCN layout, as published by its authors (zenodo.org/records/3625992).

::

    data/<name>/features/<video>.npy       (2048, T) I3D, RGB and flow
    data/<name>/groundTruth/<video>.txt    one class name per frame
    data/<name>/splits/{train,test}.splitK.bundle
    data/<name>/mapping.txt

keystep reads this layout directly. On request, a copy in keystep's own layout is written, which states the rate and may
be subsampled.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from keystep.config import Config
from keystep.data.annotation import PARTS, read_split, segment_lengths, split_names
from keystep.data.folder import FeatureFolder, open_dataset
from keystep.data.groups import GROUPS, groups_by_pattern, write_groups
from keystep.data.problems import Problems
from keystep.data.slots import note_lost_segments, pool_mean
from keystep.data.store import FeatureStore
from keystep.data.timeline import Timeline
from keystep.datasets.subsampling import How, Subsampling, class_names
from keystep.datasets.survey import (
    Missing,
    Ready,
    Survey,
    SurveyProblems,
    check_root,
    first_existing,
    require,
    summarise_missing,
)
from keystep.datasets.tree import without_progress
from keystep.errors import InputError
from keystep.files import write_lines
from keystep.reading import read_lines

ORIGIN = "zenodo.org/records/3625992 (data.zip of MS-TCN, github.com/yabufarha/ms-tcn)"
NEEDED = ("features", "groundTruth", "mapping.txt", "splits")


class MSTCNConfig(Config):
    """Options of the copy."""

    every: int = Field(default=1, ge=1)
    """Frames per slot; MS-TCN uses every second frame of 50Salads."""
    how: How = "stride"
    """``stride``: the first of these frames. ``average``: the mean of all."""
    half: bool = False
    """Store float16 instead of float32."""


class MSTCN:
    """Base class of the three data sets, a `keystep.datasets.survey.Preparer`."""

    name: str
    title: str
    source = ORIGIN
    rate: Fraction
    """Slots per second."""
    published: ClassVar[Mapping[str, int]]
    """MS-TCN (Abu Farha and Gall, CVPR 2019), section 4; splits from the README of its repository. mapping.txt of
    50Salads has 19 classes: the paper's 17 and those of start and end."""
    background: tuple[str, ...]
    """Classes that are not steps. Published scores exclude only that of GTEA."""
    person: str
    """Pattern that matches the person in the name of a video."""

    def __init__(self, config: MSTCNConfig | None = None) -> None:
        self.config = config or MSTCNConfig()

    def survey(self, root: Path) -> Survey:
        """See `Preparer`. Reads array headers, all labels and all splits."""
        folder = self.folder(root)
        missing = tuple(Missing(folder / name, self.source) for name in NEEDED if not (folder / name).exists())
        if missing:
            return Survey({}, self.published, missing)
        problems = SurveyProblems()
        data = open_dataset(folder, source_rate=self._source_rate(folder), problems=problems)
        labelled = [name for name, video in data.videos.items() if video.labels is not None]
        read = [problems.attempt(name, lambda name=name: data.frame_labels(name)) for name in labelled]  # type: ignore[misc]
        labels = [ids for ids in read if ids is not None]
        counts = {
            "videos": len(data.videos),
            "classes": len(data.classes),
            "splits": len(split_names(folder)),
            "frames": sum(video.frames for video in data.videos.values()),
            "segments": sum(len(segment_lengths(ids)) for ids in labels),
        }
        bad, more = summarise_missing(
            [
                Missing(folder / "features" / f"{name}.npy", self.source, damage=line)
                for name, line in problems.skipped.items()
            ],
            "videos cannot be used",
        )
        notes = [*more, *problems.notes, *_split_notes(data)]
        if len(labelled) < len(data.videos):
            notes.append(f"{len(data.videos) - len(labelled)} videos have no labels")
        absent = sorted(set(self.background) - set(data.classes))
        if absent:
            notes.append(f"{folder / 'mapping.txt'}: no background class {absent[0]!r}")
        persons, unknown = self._persons(data)
        pattern = self.person if persons and not (folder / GROUPS).exists() else None
        ready = Ready(folder, data.source.rate, pattern)
        return Survey(counts, self.published, bad, (*notes, *unknown), ready)

    def write(self, root: Path, out: Path, problems: Problems) -> None:
        """See `Preparer`. Writes a copy in keystep's own layout."""
        require(self.survey(root))
        folder = self.folder(root)
        quiet = without_progress(problems)
        data = open_dataset(folder, source_rate=self._source_rate(folder), problems=quiet)
        provenance = {"data_set": self.name, "settings": self.config.model_dump(mode="json")}
        store = FeatureStore(out, Timeline(rate=data.source.rate / self.config.every), "native", provenance).create()
        write_lines(out / "mapping.txt", (f"{label} {name}" for label, name in enumerate(data.classes)))
        for name in data.videos:
            if not (out / "features" / f"{name}.npy").exists():
                problems.attempt(name, lambda name=name: self._write(store, data, name, problems))  # type: ignore[misc]
        _copy_splits(data, out)
        write_groups(out, self._persons(data)[0])
        store.finish()

    def folder(self, root: Path) -> Path:
        """The folder of the data set: the root itself, or one below it with its name.

        Raises:
            InputError: the root is not a folder.
        """
        check_root(root)
        if (root / "features").is_dir():
            return root
        return first_existing(root, (self.name, f"data/{self.name}"))

    def _persons(self, data: FeatureFolder) -> tuple[Mapping[str, str], list[str]]:
        """Video -> person, from ``groups.csv`` or the names; empty with a note if neither states them."""
        try:
            return data.groups or groups_by_pattern(self.person, data.videos), []
        except InputError as error:
            return {}, [f"persons are not known: {str(error).removeprefix('--groups ')}"]

    def _source_rate(self, folder: Path) -> Fraction | None:
        return None if (folder / "store.json").exists() else self.rate

    def _write(self, store: FeatureStore, data: FeatureFolder, name: str, problems: Problems) -> None:
        subsampling = Subsampling(self.config.every, self.config.how)
        rows = data.features(name)
        rows = pool_mean(rows[subsampling.frames(len(rows))], subsampling.pool)
        labelled = data.video(name).labels is not None
        frames = data.frame_labels(name) if labelled else None
        ids = None if frames is None else subsampling.labels(frames, len(data.classes))
        if frames is not None and ids is not None:
            problems.notes += note_lost_segments(name, frames, np.arange(0, len(frames), self.config.every), ids)
        store.add(
            name,
            rows.astype(np.float16 if self.config.half else np.float32),
            labels=None if ids is None else class_names(ids, data.classes),
        )


class Breakfast(MSTCN):
    """Breakfast: ten dishes in 18 kitchens."""

    name = "breakfast"
    title = "Breakfast: ten breakfast dishes, I3D features"
    rate = Fraction(15)
    published: ClassVar[Mapping[str, int]] = {"videos": 1712, "classes": 48, "splits": 4}
    background = ("SIL",)
    person = "^(P[0-9]+)[_.]"


class Salads50(MSTCN):
    """50Salads: mixed salads; 17 steps, start and end."""

    name = "50salads"
    title = "50Salads: mixed salads from above, I3D features"
    rate = Fraction(30)
    published: ClassVar[Mapping[str, int]] = {"videos": 50, "classes": 19, "splits": 5}
    background = ("action_start", "action_end")
    person = "^rgb-([0-9]+)-"


class GTEA(MSTCN):
    """GTEA: seven activities of four people, egocentric."""

    name = "gtea"
    title = "GTEA: seven kitchen activities, egocentric, I3D features"
    rate = Fraction(15)
    published: ClassVar[Mapping[str, int]] = {"videos": 28, "classes": 11, "splits": 4}
    background = ("background",)
    person = "^(S[0-9]+)_"


def _split_notes(data: FeatureFolder) -> list[str]:
    """Problems of the splits."""
    notes = []
    for split in split_names(data.root):
        try:
            read_split(data.root, split, data.videos, left_out=data.problems.skipped)
        except InputError as error:
            notes.append(str(error))
    return notes


def _copy_splits(data: FeatureFolder, out: Path) -> None:
    """Copy the bundles without the videos that were skipped."""
    for split in split_names(data.root):
        data.split(split)  # validates it
    for part in (*PARTS, "val"):
        for path in sorted((data.root / "splits").glob(f"{part}.split*.bundle")):
            names = [line.removesuffix(".txt") for line in read_lines(path)]
            done = [name for name in names if (out / "features" / f"{name}.npy").exists()]
            if done:
                write_lines(out / "splits" / path.name, done)
