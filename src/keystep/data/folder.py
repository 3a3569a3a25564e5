"""A folder of frame features, in the field's MS-TCN layout or keystep's own, behind one reader.

Both layouts look alike on disk, so one reader serves both::

    features/<video>.npy     one array a video
    groundTruth/<video>.txt  one class name a line          (optional: pretraining needs no labels)
    mapping.txt              "id name" a line               (optional, with groundTruth)
    splits/*.splitK.bundle   video names of train/valid/test (optional)
    splits/groups.csv        "video,group": whose each video is  (optional, `keystep.data.groups`)
    store.json               timeline and orientation       (always in keystep's own folders)
    times/<video>.npy        (T,) float64 seconds of each slot, where they do not follow the timeline  (optional)
    seen/<video>.npy         (T, 3) source frames: first one seen, shown at the slot's moment, last one seen (optional)
    segments/<video>.txt     one length a line, where neighbouring segments may share a label          (optional)

MS-TCN folders hold (D, T) arrays, some of them (T, D); ours hold (T, D). Arrays stay on disk and are memory-mapped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from keystep.data.annotation import (
    Split,
    read_labels,
    read_mapping,
    read_segments,
    read_split,
    segment_lengths,
    split_names,
)
from keystep.data.groups import Grouping, resolve_groups
from keystep.data.layout import (
    Video,
    feature_files,
    find_videos,
    read_extraction_record,
    read_label_use,
    read_oracle_note,
    read_store,
    read_token_count,
    source_timeline,
)
from keystep.data.problems import Problems
from keystep.data.slots import as_float32, open_array, pool_labels, pool_mean, pool_times, read_times
from keystep.data.timeline import Timeline
from keystep.data.unused import unused_files
from keystep.errors import InputError
from keystep.files import sample_bytes
from keystep.types import AnyRate, OnError, parse_rate


@dataclass(frozen=True, repr=False)
class FeatureFolder:
    """Videos of one folder, read at one rate.

    Features are averaged over ``pool`` consecutive slots (the last group may be shorter, nothing is cut off).
    """

    root: Path
    videos: dict[str, Video]
    source: Timeline
    """The timeline of the arrays on disk."""
    pool: int = 1
    classes: tuple[str, ...] = ()
    problems: Problems = field(default_factory=Problems)
    oracle: str = ""
    """What true boundaries had to do with these features, where they had; a note says so on every reading."""
    extraction: dict[str, Any] | None = None
    """How the features were made of videos, where `keystep extract` made them."""
    tokens: int = 1
    """Vectors of equal width that a slot's features hold side by side."""
    labels_used: str = ""
    """Which labels these features were made with, where they were; a note says so on every reading."""
    labelled_videos: frozenset[str] = frozenset()
    """The videos that those labels are of."""
    grouping: Grouping | None = None
    """What the caller says of groups; None: ``splits/groups.csv`` does, where it is."""

    def __repr__(self) -> str:
        return f"FeatureFolder({str(self.root)!r}, {len(self.videos)} videos, {self.timeline.rate} Hz)"

    @cached_property
    def timeline(self) -> Timeline:
        """The timeline of what `features` returns."""
        return self.source.pooled(self.pool)

    @cached_property
    def width(self) -> int:
        """Numbers in one feature vector, D_in."""
        return next(iter(self.videos.values())).width

    def tokens_as(self, asked: int | None) -> int:
        """Tokens a slot as asked for; None: as the folder says.

        Raises:
            InputError: the features cannot hold so many of equal width.
        """
        if asked is not None and self.width % asked:
            raise InputError(f"{self.root}: features {self.width} wide cannot hold {asked} tokens of equal width")
        return asked or self.tokens

    def length(self, name: str) -> int:
        """Slots of one video at the pooled rate."""
        return -(-self.video(name).frames // self.pool)

    def video(self, name: str) -> Video:
        """The record of one video."""
        if name not in self.videos:
            raise InputError(f"{self.root}: no video {name!r} among {len(self.videos)}")
        return self.videos[name]

    def features(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """(stop - start, D_in) float32 features of slots ``start`` to ``stop`` at the pooled rate.

        Raises:
            InputError: a NaN or infinite number, with the file and the frame on disk; slots that do not exist.
        """
        video = self.video(name)
        stop = self.length(name) if stop is None else stop
        if not 0 <= start <= stop <= self.length(name):
            raise InputError(f"{video.features}: no slots {start} to {stop}; it has {self.length(name)}")
        stored = open_array(video.features)
        first, last = start * self.pool, min(stop * self.pool, video.frames)
        rows = stored[first:last] if video.time_axis == 0 else stored[:, first:last].T
        rows = as_float32(rows)  # a copy: callers may write
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            frame = first + int(np.argmin(finite))
            raise InputError(f"{video.features}: NaN or infinite value in frame {frame}; extract this video again")
        return pool_mean(rows, self.pool)

    def vectors(self, name: str) -> np.ndarray:
        """(T, D) float32, one vector a slot at the pooled rate: the features, or the mean of their tokens."""
        features = self.features(name)
        if self.tokens == 1:
            return features
        mean: np.ndarray = features.reshape(len(features), self.tokens, -1).mean(axis=1)
        return mean

    def frame_labels(self, name: str) -> np.ndarray:
        """(frames,) int64 class ids at the labels' own rate, cut to the features' length."""
        video = self.video(name)
        if video.labels is None:
            raise InputError(f"{self.root}: no groundTruth/{name}.txt; this needs labels")
        return read_labels(video.labels, self.classes)[: video.frames]

    def labels(self, name: str) -> np.ndarray:
        """(T,) int64: the most frequent class in each pooled slot (the smaller id on ties).

        `IGNORED` only where no frame of the slot has a label.
        """
        return pool_labels(self.frame_labels(name), self.pool, len(self.classes))

    def segment_lengths(self, name: str, start: int = 0, stop: int | None = None) -> list[int]:
        """Lengths of the true segments in slots ``start`` to ``stop`` at the pooled rate.

        From ``segments/<video>.txt`` where it is (a pooled slot belongs to the segment of its middle frame, so a short
        segment may vanish); else the runs of equal labels.
        """
        path, frames = self.root / "segments" / f"{name}.txt", self.video(name).frames
        if not path.exists():
            return segment_lengths(self.labels(name)[start:stop])
        first = np.arange(0, frames, self.pool)
        middle = (first + np.minimum(first + self.pool, frames) - 1) // 2
        return segment_lengths(read_segments(path, frames)[middle][start:stop])

    def has_times(self, name: str) -> bool:
        """Whether the video's slots have explicit times."""
        return self._times_path(name).exists()

    def times(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """(stop - start,) float64 seconds that slots ``start`` to ``stop`` at the pooled rate stand for.

        From ``times/<video>.npy`` where it is, else from the timeline.
        """
        if not self.has_times(name):
            index = np.arange(self.length(name), dtype=np.float64)
            return (float(self.timeline.start) + index / float(self.timeline.rate))[start:stop]
        video = self.video(name)
        on_disk = read_times(self._times_path(name), open_array(video.features).shape[video.time_axis])
        return pool_times(on_disk[: video.frames], self.pool, self.source.alignment)[start:stop]

    def _times_path(self, name: str) -> Path:
        return self.root / "times" / f"{self.video(name).name}.npy"

    def split(self, name: str) -> Split:
        """A split of ``splits/``; videos that were skipped as unreadable are left out of it.

        Without a validation bundle, that part is cut from training: whole groups, where they are known.
        """
        return read_split(self.root, name, self.videos, self.problems.skipped, self.groups)

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """Names of all splits in the folder, 2 before 10."""
        return tuple(split_names(self.root))

    @cached_property
    def groups(self) -> Mapping[str, str] | None:
        """Video -> the person or site that it belongs to; None where nothing says.

        Raises:
            InputError: what says it does not fit the videos.
        """
        return resolve_groups(self.root, self.videos, self.grouping, left_out=self.problems.skipped)

    def grouped(self, grouping: Grouping | None) -> FeatureFolder:
        """The same folder with groups as given; itself where nothing is.

        Raises:
            InputError: they do not fit the videos.
        """
        if grouping is None:
            return self
        return replace(self, grouping=resolve_groups(self.root, self.videos, grouping, left_out=self.problems.skipped))

    def fingerprint(self) -> str:
        """SHA-256 over how the folder is read and what is in it: tells whether two runs read the same data.

        Reading 64 GB to the last byte would cost minutes, so of files above 1 MiB only samples from all over are
        covered, with the size. Splits are not: adding one leaves the data as they are.
        """
        digest = hashlib.sha256(json.dumps([self.classes, self.source.to_json(), self.pool]).encode())
        for name, video in sorted(self.videos.items()):
            digest.update(json.dumps([name, video.frames, video.width, video.time_axis]).encode())
            for path in (video.features, video.labels):
                digest.update(b"-" if path is None else sample_bytes(path))
            segments = self.root / "segments" / f"{name}.txt"
            if segments.exists():
                digest.update(b"segments" + sample_bytes(segments))
        return digest.hexdigest()


def open_dataset(
    root: Path | str,
    *,
    source_rate: AnyRate | None = None,
    rate: AnyRate | None = None,
    problems: Problems | OnError | None = None,
    labels_needed: bool = True,
    groups: Grouping | None = None,
) -> FeatureFolder:
    """Read what lies in a folder (array headers and label lengths only) and check that it fits together.

    Args:
        source_rate: features a second on disk, such as 30 or "30000/1001", where the folder has no ``store.json`` that
            says so.
        rate: the rate to work at; a whole fraction of the source rate. None keeps the source rate.
        problems: what to do with bad videos: ``raise`` at the first (the default), ``skip`` them, or a collection.
        labels_needed: False to note unusable labels and go on without them, as pretraining does.
        groups: video -> person or site, or a pattern that finds it in the names; None: as ``splits/groups.csv`` says.

    Raises:
        InputError: no usable video, unknown rate or orientation, any bad video (unless ``problems`` skips it), or
            groups that do not fit the videos.
    """
    root = Path(root)
    problems = problems if isinstance(problems, Problems) else Problems(on_error=problems or "raise")
    paths = feature_files(root)
    store = read_store(root / "store.json")
    source = source_timeline(root, store, None if source_rate is None else parse_rate(source_rate))
    pool = 1 if rate is None else source.pool_factor(parse_rate(rate))
    classes = read_mapping(root / "mapping.txt") if (root / "mapping.txt").exists() else ()
    if labels_needed and not classes and (root / "groundTruth").is_dir():
        raise InputError(f"{root}: groundTruth/ without mapping.txt; write one 'id name' a line")
    videos = find_videos(root, paths, store.get("time_axis"), classes, problems, labels_needed)
    if not videos:
        first = next(iter(problems.skipped.values()))
        raise InputError(f"{root}: none of its {len(paths)} videos can be used; the first: {first}")
    problems.notes += unused_files(root, paths)
    if not classes and (root / "groundTruth").is_dir():
        problems.notes.append("groundTruth/ is not read: there is no mapping.txt with 'id name' lines")
    oracle = read_oracle_note(store)
    labels_used, labelled_videos = read_label_use(store)
    told = [f"ORACLE: {oracle}"] if oracle else []
    if labels_used:
        told.append(f"LABELS: {labels_used}")
    if store.get("complete") is False:
        told.append("what wrote this folder was stopped; run it again to finish")
    if told:  # one note, and the first: some commands show no more
        problems.notes.insert(0, "; ".join(told))
    tokens = read_token_count(root, store, next(iter(videos.values())).width)
    folder = FeatureFolder(
        root,
        videos,
        source,
        pool,
        classes,
        problems,
        oracle,
        read_extraction_record(store),
        tokens=tokens,
        labels_used=labels_used,
        labelled_videos=labelled_videos,
    )
    return folder.grouped(groups)
