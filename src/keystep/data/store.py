"""Write feature folders, in keystep's own layout or in the MS-TCN layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np

from keystep.data.folder import FeatureFolder
from keystep.data.layout import file_names
from keystep.data.sharding import append_video
from keystep.data.slots import quantise
from keystep.data.timeline import Timeline
from keystep.errors import InputError, quoted
from keystep.files import file_bytes, replacing, write_array, write_json, write_lines
from keystep.reading import held_in_shards, read_json, stored

Layout = Literal["native", "mstcn"]
Sink = Literal["folder", "tar"]
Kind = Literal["float32", "float16", "int8"]
FORMAT, FORMAT_VERSION = "keystep-features", 1
NAMES = "files"
"""Key of the provenance with names of files, which are not compared when a run is resumed."""

PARTS_OF_A_VIDEO = (
    "features/{}.npy",
    "features/{}.json",
    "groundTruth/{}.txt",
    "segments/{}.txt",
    "times/{}.npy",
    "seen/{}.npy",
    "mistakes/{}.csv",
    "scales/{}.npy",
)


@dataclass(frozen=True)
class FeatureStore:
    """Writes a feature folder file by file, so that an interrupted run can be resumed.

    Attributes:
        root: the folder.
        timeline: of the features.
        layout: ``native``: (T, D) arrays, each with a ``<video>.json``. ``mstcn``: (D, T) arrays.
        provenance: what made the features: model, hash of the weights, command.
        kind: type of the stored numbers. None: that of the given features.
        sink: ``folder``: files of their own for each video. ``tar``: tar files of many (`keystep.reading.shards`);
            labels are files of their own all the same.
    """

    root: Path
    timeline: Timeline
    layout: Layout = "native"
    provenance: dict[str, Any] | None = None
    kind: Kind | None = None
    sink: Sink = "folder"
    _written: list[str] = field(default_factory=list, repr=False, compare=False)

    def create(self) -> FeatureStore:
        """Write ``store.json``, or continue a folder with the same settings; returns self.

        A folder without any finished video, which a failed run leaves, is started again.

        Raises:
            InputError: the folder has features with other settings or of another program, or is not writable.
        """
        record = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "complete": False,
            "time_axis": 0 if self.layout == "native" else 1,
            "timeline": self.timeline.to_json(),
            "provenance": self.provenance or {},
            **({"sink": self.sink} if self.sink != "folder" else {}),
        }
        path = self.root / "store.json"
        if path.exists():
            before = read_json(path)
            old, new = _settings(before), _settings(json.loads(json.dumps(record)))
            held_in_shards(self.root, again=True)
            changed = [key for key in ("sink", *new) if old.get(key) != new.get(key)]
            if not changed:
                return self
            if before.get("format") != FORMAT or self.videos():
                apart = _difference(old.get(changed[0]), new.get(changed[0]))
                was, now = (quoted(value, 300) for value in apart)
                raise InputError(f"{path}: written with {changed[0]} {was}, now {now}; choose another folder")
            self._clear()
        elif (self.root / "features").exists():
            raise InputError(f"{self.root}: has features that keystep did not write; choose another folder")
        write_json(path, record)
        return self

    def _clear(self) -> None:
        """Remove all files of videos, classes and skipped videos."""
        lists = [
            path
            for name in ("mapping.txt", "labels.json", "skipped/*.json", "shards/*.tar")
            for path in self.root.glob(name)
        ]
        self._unlink([*lists, *(path for pattern in PARTS_OF_A_VIDEO for path in self.root.glob(pattern.format("*")))])

    def remove(self, video: str) -> None:
        """Remove the files of a video, the array first, so that an interruption does not leave it seemingly complete.

        Raises:
            InputError: the folder is not writable.
        """
        self._unlink(self.root / pattern.format(video) for pattern in PARTS_OF_A_VIDEO)

    def _unlink(self, paths: Iterable[Path]) -> None:
        try:
            for path in paths:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"{self.root}: cannot be written: {error.strerror}") from error

    def has(self, video: str) -> bool:
        """Whether a video is complete."""
        return stored(self.root / "features" / f"{video}.npy")

    def videos(self) -> set[str]:
        """Names of the finished videos. A listing also shows what other machines have just written."""
        held_in_shards(self.root, again=True)
        names = file_names(self.root / "features")
        return {name.removesuffix(".npy") for name in names if name.endswith(".npy") and not name.startswith(".")}

    def finish(self) -> None:
        """Mark the folder as complete in ``store.json``; until then, readers are told that the run was stopped.

        Raises:
            InputError: a written video was removed meanwhile.
        """
        there = self.videos()
        for video in self._written:
            if video not in there:
                raise InputError(
                    f"{self.root / 'features' / video}.npy: was removed while the folder was written; run again"
                )
        self._set_complete(True)

    def reopen(self) -> None:
        """Mark a finished folder as incomplete, because more videos are added."""
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
        """Write a video. The array is written last, so that its existence marks the video as complete.

        Args:
            video: its name.
            features: (T, D) floats.
            details: more entries for ``<video>.json`` of the native layout.
            labels: T class names, `keystep.data.annotation.UNLABELLED` if unlabelled.
            segments: lengths of the true segments, if they differ from the runs of equal labels.
            times: (T,) seconds of the slots, if they differ from the timeline.
            seen: (T, 3) source frames of each slot: the first one used, the one shown at its moment, the last one used.

        Raises:
            InputError: features that are not (T, D) finite floats, a name that is not a plain file name, or a folder
                that is not writable.
        """
        if not video or Path(video).name != video:
            raise InputError(f"video name {video!r} leads out of the folder; use a plain name")
        if self.kind == "float16" or self.kind == "float32":
            with np.errstate(over="ignore"):
                features = features.astype(self.kind)
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
        files: dict[str, Any] = {}
        if times is not None:
            assert times.shape == (len(features),)
            files["times/{}.npy"] = times.astype(np.float64)
        if seen is not None:
            assert seen.shape == (len(features), 3)
            files["seen/{}.npy"] = seen
        if self.layout == "native":
            record = {"slots": len(features), "width": features.shape[1], "timeline": self.timeline.to_json()}
            files["features/{}.json"] = record | (details or {})
        if self.kind == "int8":
            features, files["scales/{}.npy"] = quantise(features)
        files["features/{}.npy"] = np.ascontiguousarray(features if self.layout == "native" else features.T)
        if self.sink == "tar":
            append_video(self.root, video, {pattern: file_bytes(content) for pattern, content in files.items()})
        else:
            for pattern, content in files.items():
                write = write_array if isinstance(content, np.ndarray) else write_json
                write(self.root / pattern.format(video), content)
        self._written.append(video)

    def copy_annotation(self, source: FeatureFolder) -> None:
        """Copy labels, segments, mistakes, classes, splits and explicit times from the folder of the source features.

        Raises:
            InputError: its rate differs from that of the features written here.
        """
        if self.timeline.rate != source.source.rate:
            raise InputError(
                f"{self.root}: features at {self.timeline.rate} Hz do not fit the labels of {source.root} at "
                f"{source.source.rate} Hz"
            )
        for name in ("groundTruth", "segments", "mistakes", "splits", "mapping.txt"):
            if (source.root / name).exists():
                names = {path.name for path in (source.root / name).iterdir()} if (source.root / name).is_dir() else ()
                with replacing(self.root / name, names) as temporary:
                    _copy(source.root / name, temporary)
        on_disk = replace(source, pool=1)  # an equal rate means the same slots
        for name in filter(source.has_times, source.videos):
            write_array(self.root / "times" / f"{name}.npy", on_disk.times(name))


def sink_of(name: str) -> Sink:
    """The sink of a name.

    Raises:
        InputError: an unknown one.
    """
    if name not in get_args(Sink):
        raise InputError(f"unknown --sink {name!r}; expected one of {', '.join(get_args(Sink))}")
    return cast(Sink, name)


def labels_record(source: FeatureFolder) -> dict[str, Any]:
    """Provenance entries about labels that were used to make the source features."""
    if not source.labels_used:
        return {}
    return {"labels": source.labels_used, "labelled_videos": sorted(source.labelled_videos)}


def _settings(record: dict[str, Any]) -> dict[str, Any]:
    """The entries of store.json that must be equal for a run to be resumed."""
    settings = {key: value for key, value in record.items() if key != "complete"}
    if isinstance(settings.get("provenance"), dict):
        settings["provenance"] = {key: value for key, value in settings["provenance"].items() if key != NAMES}
    return settings


def _difference(old: Any, new: Any) -> tuple[Any, Any]:
    """The differing parts of two JSON values."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return old, new
    parts = {key: _difference(old.get(key), new.get(key)) for key in {**old, **new} if old.get(key) != new.get(key)}
    return {key: part[0] for key, part in parts.items()}, {key: part[1] for key, part in parts.items()}


def _copy(source: Path, to: Path) -> None:
    """Copy a file or the files of a folder without permissions, because a source may be read-only."""
    if source.is_file():
        shutil.copyfile(source, to)
        return
    to.mkdir()
    for path in sorted(source.iterdir()):
        if path.is_file():
            shutil.copyfile(path, to / path.name)
