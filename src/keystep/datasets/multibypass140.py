"""MultiBypass140 (Lavanchy et al., IJCARS 2024): phases and steps of gastric bypasses at two centres.

The authors publish annotations with five folds, and videos, but no features::

    labels/bern/labels_by70/BBP01.mp4.json         {"phases": [...], "steps": [...]} of start and end in milliseconds,
    labels/strasbourg/labels_by70/SBP01.mp4.json   label_name and label_id
    labels/<centre>/labels_by70_splits/labels/train/1fps_100_0.pickle, val/1fps_0.pickle, test/1fps_0.pickle
    features/BBP01.npy                             your own

Source: github.com/CAMMA-public/MultiBypass140, its README, labels and loaders. Adverse events (``severe_index``) are
annotated within phases, but are none: the authors' configuration has 13 phases, of ids 0 to 12, the last of which is
``out_of_body``. Time out of the body is annotated within a phase as well, and replaces it here. Not verified: that the
authors' frame labels treat both in this way, and that their folds of both centres are those of each centre together.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from keystep.data.annotation import composed
from keystep.datasets.own_features import Annotations, OwnFeatures, OwnFeaturesConfig
from keystep.datasets.survey import SurveyProblems
from keystep.datasets.tree import TimedSegment, positive_seconds
from keystep.errors import InputError
from keystep.reading import Record, check_regular, is_file_name, read_record

CENTRES = {"bern": "labels/bern", "strasbourg": "labels/strasbourg"}
FOLDS = {"train": "1fps_100_{}", "val": "1fps_{}", "test": "1fps_{}"}
"""Part -> name of the file of a fold."""
NO_PHASE = "severe_index"
VIDEO = re.compile(rb"[BS]BP\d{2}(?!\d)")


class MultiBypass140Config(OwnFeaturesConfig):
    """Options of the conversion."""

    level: Literal["phases", "steps"] = "phases"
    """The level of the labels."""
    centre: Literal["both", "bern", "strasbourg"] = "both"
    """The centre whose videos are used."""


class Event(Record):
    """An annotated phase or step, in milliseconds."""

    start: float
    end: float
    label_name: str
    label_id: int


class Video(Record):
    """An annotation file."""

    phases: list[Event]
    steps: list[Event]


class MultiBypass140(OwnFeatures):
    """`keystep.datasets.survey.Preparer` of MultiBypass140."""

    name = "multibypass140"
    title = "MultiBypass140: phases and steps of gastric bypasses, your own features"
    source = "github.com/CAMMA-public/MultiBypass140"

    def __init__(self, config: MultiBypass140Config | None = None) -> None:
        self.config: MultiBypass140Config = config or MultiBypass140Config()
        centre = self.config.centre
        self.centres = {name: place for name, place in CENTRES.items() if centre in ("both", name)}
        self.needed = tuple((f"{place}/labels_by70",) for place in self.centres.values())
        classes = 13 if self.config.level == "phases" else 46
        self.published = {"videos": 70 * len(self.centres), "classes": classes}

    def annotations(self, root: Path) -> Annotations:
        """See `OwnFeatures`."""
        problems, videos, names, damaged = SurveyProblems(), {}, dict[int, str](), {}
        for place in self.centres.values():
            for path in sorted((root / place / "labels_by70").glob("*.json")):
                name = path.name.removesuffix(".json").removesuffix(".mp4")
                events = problems.attempt(name, lambda path=path, name=name: self._events(path, name))  # type: ignore[misc]
                if events is None:
                    damaged[path] = problems.skipped[name]
                    continue
                videos[name] = [segment for _, segment in events]
                names |= {label: segment.name for label, segment in events}
        splits, notes = self._splits(root)
        return Annotations(videos, tuple(names[label] for label in sorted(names)), splits, damaged, notes)

    def _events(self, path: Path, name: str) -> list[tuple[int, TimedSegment]]:
        """(id of the class, segment) of a video."""
        if not is_file_name(name):
            raise InputError(f"{path}: its name cannot be that of a video")
        video, found = read_record(path, Video), []
        for place, event in enumerate(video.phases if self.config.level == "phases" else video.steps):
            if event.label_name != NO_PHASE:
                bounds = positive_seconds(path, f"entry {place}", event.start / 1000, event.end / 1000)
                found.append((event.label_id, TimedSegment(*bounds, composed(event.label_name))))
        return found

    def _splits(self, root: Path) -> tuple[dict[str, dict[str, list[str]]], tuple[str, ...]]:
        """Split -> part -> videos, split 1 from the authors' fold 0; and a note about absent files."""
        splits, absent = dict[str, dict[str, list[str]]](), 0
        for fold in range(5):
            parts = dict[str, list[str]]()
            for part, file in FOLDS.items():
                for place in self.centres.values():
                    path = root / place / "labels_by70_splits/labels" / part / f"{file.format(fold)}.pickle"
                    absent += not path.exists()
                    videos = _videos_in(path) if path.exists() else []
                    parts.setdefault("valid" if part == "val" else part, []).extend(videos)
            splits[str(fold + 1)] = parts
        return splits, ((f"{absent} files of the folds are missing (labels_by70_splits)",) if absent else ())


def _videos_in(path: Path) -> list[str]:
    """Names of the videos in a pickle, as text: it is not unpickled, because that may run code."""
    check_regular(path)
    return sorted({name.decode() for name in VIDEO.findall(path.read_bytes())})
