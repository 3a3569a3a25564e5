"""Writing feature folders: keystep's own layout, and the (D, T) one that segmentation code reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from keystep.data.folder import FeatureFolder
from keystep.data.timeline import Timeline
from keystep.errors import InputError, quoted
from keystep.files import replacing, write_array, write_json, write_lines
from keystep.reading import read_json

Layout = Literal["native", "mstcn"]
FORMAT, FORMAT_VERSION = "keystep-features", 1
NAMES = "files"
"""Key of the provenance under which names of files stand: for people to read, not compared when a run goes on."""

PARTS_OF_A_VIDEO = (
    "features/{}.npy",
    "features/{}.json",
    "groundTruth/{}.txt",
    "segments/{}.txt",
    "times/{}.npy",
    "seen/{}.npy",
)


@dataclass(frozen=True)
class FeatureStore:
    """A feature folder being written, one finished file at a time, so that a killed run can go on.

    ``native`` holds (T, D) arrays and a small ``<video>.json`` beside each; ``mstcn`` holds (D, T) arrays.
    """

    root: Path
    timeline: Timeline
    layout: Layout = "native"
    provenance: dict[str, Any] | None = None
    """What made the features: model, weights hash, command."""
    _written: list[str] = field(default_factory=list, repr=False, compare=False)

    def create(self) -> FeatureStore:
        """Write ``store.json``; a folder written with other settings is refused rather than mixed.

        A folder in which no video was finished, as a run that failed at once leaves it, is begun anew.
        """
        record = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "complete": False,
            "time_axis": 0 if self.layout == "native" else 1,
            "timeline": self.timeline.to_json(),
            "provenance": self.provenance or {},
        }
        path = self.root / "store.json"
        if path.exists():
            before = read_json(path)
            old, new = _settings(before), _settings(json.loads(json.dumps(record)))
            changed = [key for key in new if old.get(key) != new[key]]
            if not changed:
                return self
            if before.get("format") != FORMAT or any((self.root / "features").glob("*.npy")):
                apart = _differing(old.get(changed[0]), new[changed[0]])
                was, now = (quoted(value, 300) for value in apart)
                raise InputError(f"{path}: written with {changed[0]} {was}, now {now}; choose another folder")
            self._clear()
        elif (self.root / "features").exists():
            raise InputError(f"{self.root}: has features that keystep did not write; choose another folder")
        write_json(path, record)
        return self

    def _clear(self) -> None:
        """Remove what was written for a video that was never finished, the classes, and what was left out."""
        lists = [path for name in ("mapping.txt", "labels.json", "skipped/*.json") for path in self.root.glob(name)]
        self._unlink([*lists, *(path for pattern in PARTS_OF_A_VIDEO for path in self.root.glob(pattern.format("*")))])

    def remove(self, video: str) -> None:
        """Remove what was written for a video, the array first: what is there no more is not taken for complete."""
        self._unlink(self.root / pattern.format(video) for pattern in PARTS_OF_A_VIDEO)

    def _unlink(self, paths: Iterable[Path]) -> None:
        try:
            for path in paths:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"{self.root}: cannot be written: {error.strerror}") from error

    def finish(self) -> None:
        """Say in ``store.json`` that everything is there; until then, readers are told that the run was stopped.

        Raises:
            InputError: a video that was written is there no more.
        """
        for video in self._written:
            if not (self.root / "features" / f"{video}.npy").exists():
                raise InputError(
                    f"{self.root / 'features' / video}.npy: is gone, so something removed it meanwhile; run again"
                )
        self._set_complete(True)

    def reopen(self) -> None:
        """Say that something is missing again: more videos are going to be added to a folder that was finished."""
        self._set_complete(False)

    def _set_complete(self, complete: bool) -> None:
        record = read_json(self.root / "store.json")
        if record.get("complete") is not complete:
            write_json(self.root / "store.json", record | {"complete": complete})

    def add(
        self,
        video: str,
        features: np.ndarray,
        details: dict[str, Any] | None = None,
        *,
        labels: Sequence[str] | None = None,
        segments: Sequence[int] | None = None,
        times: np.ndarray | None = None,
        seen: np.ndarray | None = None,
    ) -> None:
        """Write one video's (T, D) features and what belongs to them; once the array is there, the video is complete.

        Args:
            details: more for the small ``<video>.json`` beside a native array.
            labels: T class names, `annotation.UNLABELLED` where there is none.
            segments: lengths of the true segments, where the runs of equal labels do not tell them.
            times: (T,) seconds of each slot, where the timeline does not tell them.
            seen: (T, 3) source frames of each slot: the first one that went in, the one shown at its moment, the last.

        Raises:
            InputError: not (T, D) finite floats, no frames, or a name that is no plain file name.
        """
        if not video or Path(video).name != video:
            raise InputError(f"video name {video!r} leads out of the folder; use a plain name")
        if features.ndim != 2 or features.dtype.kind != "f" or not features.size or not np.isfinite(features).all():
            raise InputError(
                f"features of {video!r}, shape {features.shape}, type {features.dtype}: not finite (T, D) floats"
            )
        if labels is not None:
            assert len(labels) == len(features)
            write_lines(self.root / "groundTruth" / f"{video}.txt", labels)
        if segments is not None:
            assert sum(segments) == len(features)
            write_lines(self.root / "segments" / f"{video}.txt", segments)
        if times is not None:
            assert times.shape == (len(features),)
            write_array(self.root / "times" / f"{video}.npy", times.astype(np.float64))
        if seen is not None:
            assert seen.shape == (len(features), 3)
            write_array(self.root / "seen" / f"{video}.npy", seen)
        if self.layout == "native":
            record = {"slots": len(features), "width": features.shape[1], "timeline": self.timeline.to_json()}
            write_json(self.root / "features" / f"{video}.json", record | (details or {}))
        stored = features if self.layout == "native" else features.T
        write_array(self.root / "features" / f"{video}.npy", np.ascontiguousarray(stored))
        self._written.append(video)

    def copy_annotation(self, source: FeatureFolder) -> None:
        """Labels, segments, classes, splits and explicit times of the folder that the features came from, unchanged.

        Raises:
            InputError: the features written here have another rate than those labels.
        """
        if self.timeline.rate != source.source.rate:
            raise InputError(
                f"{self.root}: features at {self.timeline.rate} Hz do not fit the labels of {source.root} at "
                f"{source.source.rate} Hz"
            )
        for name in ("groundTruth", "segments", "splits", "mapping.txt"):
            if (source.root / name).exists():
                names = {path.name for path in (source.root / name).iterdir()} if (source.root / name).is_dir() else ()
                with replacing(self.root / name, names) as temporary:
                    _copy(source.root / name, temporary)
        on_disk = replace(source, pool=1)  # an equal rate means the same slots
        for name in filter(source.has_times, source.videos):
            write_array(self.root / "times" / f"{name}.npy", on_disk.times(name))


def labels_record(source: FeatureFolder) -> dict[str, Any]:
    """What the provenance of features has to say of labels that went into those they are made of."""
    if not source.labels_used:
        return {}
    return {"labels": source.labels_used, "labelled_videos": sorted(source.labelled_videos)}


def _settings(record: dict[str, Any]) -> dict[str, Any]:
    """What a folder has to have in common with a run that goes on in it."""
    settings = {key: value for key, value in record.items() if key != "complete"}
    if isinstance(settings.get("provenance"), dict):
        settings["provenance"] = {key: value for key, value in settings["provenance"].items() if key != NAMES}
    return settings


def _differing(old: Any, new: Any) -> tuple[Any, Any]:
    """Of two objects, only what differs."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return old, new
    parts = {key: _differing(old.get(key), new.get(key)) for key in {**old, **new} if old.get(key) != new.get(key)}
    return {key: part[0] for key, part in parts.items()}, {key: part[1] for key, part in parts.items()}


def _copy(source: Path, to: Path) -> None:
    """Files of a folder, or one file: the bytes only, because a read-only source would make a read-only copy."""
    if source.is_file():
        shutil.copyfile(source, to)
        return
    to.mkdir()
    for path in sorted(source.iterdir()):
        if path.is_file():
            shutil.copyfile(path, to / path.name)
