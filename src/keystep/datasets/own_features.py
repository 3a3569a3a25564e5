"""Data sets that publish videos and annotations, but no features: these are your own, of one rate.

::

    <root>/features/<video>.npy or .pt     (T, D) or (D, T), slot i at i / features_rate seconds
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from keystep.config import Config
from keystep.data.annotation import UNLABELLED
from keystep.data.problems import Problems
from keystep.data.store import FeatureStore
from keystep.data.timeline import Timeline
from keystep.datasets.survey import (
    Missing,
    Survey,
    SurveyProblems,
    check_root,
    first_existing,
    require,
    summarise_missing,
)
from keystep.datasets.tree import (
    Array,
    Axis,
    TimedSegment,
    check_covered,
    label_slots,
    measure,
    open_features,
    time_axis,
    write_splits,
)
from keystep.errors import InputError
from keystep.files import write_lines
from keystep.types import Rate, parse_rate

FEATURES_SOURCE = "your own extraction, such as keystep extract"


class OwnFeaturesConfig(Config):
    """Options of the conversion."""

    features_rate: Rate = parse_rate(1)
    """Slots per second of your arrays."""
    time_axis: Axis | None = None
    """0 for (T, D) arrays, 1 for (D, T). None: determined from the shapes."""
    half: bool = False
    """Store float16."""


@dataclass(frozen=True)
class Annotations:
    """The annotations of a download.

    Attributes:
        videos: video -> its segments in seconds.
        classes: names in the order of their ids.
        splits: split -> part -> videos.
        damaged: file -> one line about it.
        notes: for the survey.
    """

    videos: Mapping[str, Sequence[TimedSegment]]
    classes: tuple[str, ...]
    splits: Mapping[str, Mapping[str, Sequence[str]]]
    damaged: Mapping[Path, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class OwnFeatures(ABC):
    """Base class of these data sets, a `keystep.datasets.survey.Preparer`."""

    name: str
    title: str
    source: str
    published: Mapping[str, int]
    needed: tuple[tuple[str, ...], ...]
    """Places of the necessary parts below the root, each with its alternatives."""
    between: ClassVar[str] = UNLABELLED
    """Label of slots outside of all segments."""
    config: OwnFeaturesConfig

    @abstractmethod
    def annotations(self, root: Path) -> Annotations:
        """Read all annotations; damaged files of single videos are collected.

        Raises:
            InputError: a damaged file that concerns all videos.
        """

    def survey(self, root: Path) -> Survey:
        """See `Preparer`. Reads the annotations and array headers."""
        check_root(root)
        places = [first_existing(root, candidates) for candidates in (*self.needed, ("features",))]
        missing = tuple(
            Missing(path, FEATURES_SOURCE if path == root / "features" else self.source)
            for path in places
            if not path.exists()
        )
        if missing:
            return Survey({}, self.published, missing)
        found, problems = self.annotations(root), SurveyProblems()
        paths = arrays(root, found.videos)
        measure(paths, problems)
        absent = [Missing(root / "features" / f"{name}.npy", FEATURES_SOURCE) for name in found.videos.keys() - paths]
        bad = [
            *(Missing(path, self.source, damage=line) for path, line in found.damaged.items()),
            *(Missing(paths[name], FEATURES_SOURCE, damage=line) for name, line in problems.skipped.items()),
        ]
        few, notes = summarise_missing(sorted(absent, key=lambda part: part.path), "files are missing")
        more, others = summarise_missing(bad, "files cannot be used")
        counts = {
            "videos": len(found.videos),
            "videos with features": len(paths) - len(problems.skipped),
            "classes": len(found.classes),
            "segments": sum(len(segments) for segments in found.videos.values()),
            **{part: len(videos) for part, videos in found.splits.get("1", {}).items()},
        }
        return Survey(counts, self.published, (*few, *more), (*notes, *others, *found.notes))

    def write(self, root: Path, out: Path, problems: Problems) -> None:
        """See `Preparer`."""
        require(self.survey(root))
        found, config = self.annotations(root), self.config
        paths = arrays(root, found.videos)
        shapes = measure(paths, problems)
        axis = config.time_axis if config.time_axis is not None or not shapes else time_axis(shapes)
        settings = config.model_dump(mode="json", exclude={"time_axis"})
        provenance = {"data_set": self.name, "settings": settings}
        store = FeatureStore(out, Timeline(rate=config.features_rate), "native", provenance).create()
        write_lines(out / "mapping.txt", (f"{label} {name}" for label, name in enumerate(found.classes)))
        for path, line in found.damaged.items():
            problems.attempt(path.stem, lambda line=line: _raise(line))  # type: ignore[misc]
        for name, segments in found.videos.items():
            path = paths.get(name, root / "features" / f"{name}.npy")
            if name not in problems.skipped and not store.has(name):

                def add(name: str = name, path: Path = path, segments: Sequence[TimedSegment] = segments) -> list[str]:
                    features = open_features(path)
                    return self._add(store, name, features.T if axis == 1 else features, segments)

                problems.notes += problems.attempt(name, add) or []
        write_splits(out, found.splits, problems)
        store.finish()

    def _add(self, store: FeatureStore, name: str, features: Array, segments: Sequence[TimedSegment]) -> list[str]:
        times = np.arange(len(features)) / float(self.config.features_rate)
        found = label_slots(times, segments, self.between)
        notes = check_covered(name, found, len(segments), times, "features_rate")
        store.add(name, features.astype("float16" if self.config.half else "float32"), labels=found.labels)
        return notes


def _raise(line: str) -> None:
    raise InputError(line)


def arrays(root: Path, videos: Mapping[str, Sequence[TimedSegment]]) -> dict[str, Path]:
    """Video -> its array, if there is one."""
    places = {name: first_existing(root, [f"features/{name}.npy", f"features/{name}.pt"]) for name in videos}
    return {name: path for name, path in places.items() if path.exists()}
