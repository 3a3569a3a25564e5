"""Read a folder of frame features, in the MS-TCN layout or in keystep's own.

Both layouts share one structure::

    features/<video>.npy     one array per video
    groundTruth/<video>.txt  one class name per line         (optional: pretraining needs no labels)
    mapping.txt              "id name" per line              (optional, with groundTruth)
    splits/*.splitK.bundle   video names of train/valid/test (optional)
    splits/groups.csv        "video,group"                   (optional, `keystep.data.groups`)
    store.json               timeline and orientation        (always in keystep's own folders)
    scales/<video>.npy       (2, D) float32 scale of features that are int8 (`keystep.data.slots.quantise`)
    times/<video>.npy        (T,) float64 seconds of each slot that is not on the timeline (optional)
    seen/<video>.npy         (T, 3) source frames of each slot: first seen, shown at its moment, last seen (optional)
    segments/<video>.txt     one length per line, if neighbouring segments may have the same label (optional)
    mistakes/<video>.csv     "start,stop,kind,step" (optional, `keystep.data.mistakes`)

Arrays in MS-TCN folders are (D, T), sometimes (T, D); keystep's are (T, D). They are memory-mapped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from keystep.data.slots import (
    array_header,
    as_float32,
    dequantise,
    open_array,
    pool_labels,
    pool_mean,
    pool_times,
    read_scale,
    read_times,
)
from keystep.data.timeline import Timeline
from keystep.data.unused import unused_files
from keystep.errors import InputError
from keystep.files import sample_bytes
from keystep.reading import located, stored
from keystep.types import AnyRate, OnError, parse_rate


@dataclass(frozen=True, repr=False)
class FeatureFolder:
    """The videos of a folder, read at one rate.

    Features are averaged over ``pool`` consecutive slots; the last group may be shorter.

    Attributes:
        root: the folder.
        videos: by name.
        source: timeline of the arrays on disk.
        pool: slots on disk per slot.
        classes: class names in the order of their ids; empty without labels.
        problems: skipped videos and notes.
        oracle: how true boundaries were used for these features; empty if they were not. Every reader is told.
        extraction: how `keystep extract` made the features. None: another origin.
        tokens: number of vectors of equal width that a slot's features consist of.
        labels_used: which labels were used to make these features; empty if none were. Every reader is told.
        labelled_videos: the videos of these labels.
        grouping: groups given by the caller. None: those of ``splits/groups.csv``, if it exists.
    """

    root: Path
    videos: dict[str, Video]
    source: Timeline
    pool: int = 1
    classes: tuple[str, ...] = ()
    problems: Problems = field(default_factory=Problems)
    oracle: str = ""
    extraction: dict[str, Any] | None = None
    tokens: int = 1
    labels_used: str = ""
    labelled_videos: frozenset[str] = frozenset()
    grouping: Grouping | None = None

    def __repr__(self) -> str:
        return f"FeatureFolder({str(self.root)!r}, {len(self.videos)} videos, {self.timeline.rate} Hz)"

    @cached_property
    def timeline(self) -> Timeline:
        """The timeline of the slots at the pooled rate."""
        return self.source.pooled(self.pool)

    @cached_property
    def width(self) -> int:
        """Width of the features, D_in."""
        return next(iter(self.videos.values())).width

    @property
    def token_width(self) -> int:
        """Width of each token; that of the features where a slot has one."""
        return self.width // self.tokens

    def with_tokens(self, tokens: int | None) -> FeatureFolder:
        """The same videos with this number of tokens per slot; None: as the folder says.

        Raises:
            InputError: the number does not divide the width.
        """
        if tokens is not None and self.width % tokens:
            raise InputError(f"{self.root}: features {self.width} wide cannot hold {tokens} tokens of equal width")
        return replace(self, tokens=tokens or self.tokens)

    def length(self, name: str) -> int:
        """Number of slots of a video at the pooled rate."""
        return -(-self.video(name).frames // self.pool)

    def video(self, name: str) -> Video:
        """The record of a video.

        Raises:
            InputError: an unknown name.
        """
        if name not in self.videos:
            raise InputError(f"{self.root}: no video {name!r} among {len(self.videos)}")
        return self.videos[name]

    def features(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Read the features of a video.

        Args:
            name: of the video.
            start, stop: range of slots at the pooled rate. None: to the end.

        Returns:
            (stop - start, D_in) float32.

        Raises:
            InputError: NaN or infinity, with file and frame on disk; or slots that do not exist.
        """
        video = self.video(name)
        stop = self.length(name) if stop is None else stop
        if not 0 <= start <= stop <= self.length(name):
            raise InputError(f"{video.features}: no slots {start} to {stop}; it has {self.length(name)}")
        stored = open_array(video.features, quantised=video.scale is not None)
        first, last = start * self.pool, min(stop * self.pool, video.frames)
        rows = stored[first:last] if video.time_axis == 0 else stored[:, first:last].T
        rows = as_float32(rows)  # a copy, which callers may change
        if video.scale is not None:
            rows = dequantise(rows, read_scale(video.scale, video.width))
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            frame = first + int(np.argmin(finite))
            raise InputError(f"{video.features}: NaN or infinite value in frame {frame}; extract this video again")
        return pool_mean(rows, self.pool)

    def vectors(self, name: str) -> np.ndarray:
        """Read one vector per slot at the pooled rate, (T, D) float32: the features, or the mean of their tokens."""
        features = self.features(name)
        if self.tokens == 1:
            return features
        mean: np.ndarray = features.reshape(len(features), self.tokens, -1).mean(axis=1)
        return mean

    def every_vector(self, names: Sequence[str]) -> Iterable[np.ndarray]:
        """The vectors of some videos, read in each iteration, one video at a time."""
        return _Vectors(self, names)

    def frame_labels(self, name: str) -> np.ndarray:
        """Read the class ids of a video at the rate on disk, (frames,) int64, cut to the length of the features.

        Raises:
            InputError: the video has no labels, or they are invalid.
        """
        video = self.video(name)
        if video.labels is None:
            raise InputError(f"{self.root}: no groundTruth/{name}.txt; this needs labels")
        return read_labels(video.labels, self.classes)[: video.frames]

    def labels(self, name: str) -> np.ndarray:
        """Read the class ids of a video at the pooled rate, (T,) int64, by majority (`pool_labels`).

        Raises:
            InputError: the video has no labels, or they are invalid.
        """
        return pool_labels(self.frame_labels(name), self.pool, len(self.classes))

    def segment_lengths(self, name: str, start: int = 0, stop: int | None = None) -> list[int]:
        """Lengths of the true segments within a range of slots at the pooled rate.

        From ``segments/<video>.txt`` if it exists, otherwise the runs of equal labels. A pooled slot belongs to the
        segment of its middle frame, so that short segments may vanish.

        Args:
            name: of the video.
            start, stop: range of slots. None: to the end.

        Raises:
            InputError: no labels, or invalid ones.
        """
        path, frames = self.root / "segments" / f"{name}.txt", self.video(name).frames
        if not path.exists():
            return segment_lengths(self.labels(name)[start:stop])
        first = np.arange(0, frames, self.pool)
        middle = (first + np.minimum(first + self.pool, frames) - 1) // 2
        return segment_lengths(read_segments(path, frames)[middle][start:stop])

    def has_times(self, name: str) -> bool:
        """Whether the video's slots have explicit times."""
        return stored(self._times_path(name))

    def times(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The moments of a range of slots at the pooled rate.

        From ``times/<video>.npy`` if it exists, otherwise from the timeline.

        Args:
            name: of the video.
            start, stop: range of slots. None: to the end.

        Returns:
            (stop - start,) float64 seconds.

        Raises:
            InputError: invalid times.
        """
        if not self.has_times(name):
            index = np.arange(self.length(name), dtype=np.float64)
            return (float(self.timeline.start) + index / float(self.timeline.rate))[start:stop]
        video = self.video(name)
        on_disk = read_times(self._times_path(name), array_header(video.features).shape[video.time_axis])
        return pool_times(on_disk[: video.frames], self.pool, self.source.alignment)[start:stop]

    def _times_path(self, name: str) -> Path:
        return self.root / "times" / f"{self.video(name).name}.npy"

    def split(self, name: str) -> Split:
        """Read a split of ``splits/``, without videos that were skipped.

        Without a validation bundle, training videos are held out, whole groups if they are known.

        Raises:
            InputError: as for `read_split`.
        """
        return read_split(self.root, name, self.videos, self.problems.skipped, self.groups)

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """Names of all splits of the folder, in natural order."""
        return tuple(split_names(self.root))

    @cached_property
    def groups(self) -> Mapping[str, str] | None:
        """Video -> the person or site that it belongs to. None: unknown.

        Raises:
            InputError: groups that do not fit the videos.
        """
        return resolve_groups(self.root, self.videos, self.grouping, left_out=self.problems.skipped)

    def grouped(self, grouping: Grouping | None) -> FeatureFolder:
        """The same folder with the given groups; unchanged if None.

        Raises:
            InputError: groups that do not fit the videos.
        """
        if grouping is None:
            return self
        return replace(self, grouping=resolve_groups(self.root, self.videos, grouping, left_out=self.problems.skipped))

    def fingerprint(self) -> str:
        """SHA-256 of the data and of how they are read, which is equal for two runs on the same data.

        Of files above 1 MiB, only the size and samples are covered, because reading 64 GB would take minutes. Splits
        are not covered, so that adding one does not change the data.
        """
        digest = hashlib.sha256(json.dumps([self.classes, self.source.to_json(), self.pool]).encode())
        for name, video in sorted(self.videos.items()):
            digest.update(json.dumps([name, video.frames, video.width, video.time_axis]).encode())
            for path in (video.features, video.labels, *([video.scale] if video.scale is not None else [])):
                digest.update(b"-" if path is None else sample_bytes(*(located(path) or (path,))))
            for part, ending in (("segments", "txt"), ("mistakes", "csv")):
                path = self.root / part / f"{name}.{ending}"
                if path.exists():
                    digest.update(part.encode() + sample_bytes(path))
        return digest.hexdigest()


class _Vectors(Iterable[np.ndarray]):
    def __init__(self, folder: FeatureFolder, videos: Sequence[str]) -> None:
        self.folder, self.videos = folder, videos

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self.folder.vectors, self.videos)


def open_dataset(
    root: Path | str,
    *,
    source_rate: AnyRate | None = None,
    rate: AnyRate | None = None,
    problems: Problems | OnError | None = None,
    labels_needed: bool = True,
    groups: Grouping | None = None,
) -> FeatureFolder:
    """Open a feature folder: read array headers and labels, and check that they are consistent.

    Args:
        root: the folder.
        source_rate: slots per second on disk, such as 30 or "30000/1001", required without a ``store.json``.
        rate: slots per second to work at, an integer fraction of the source rate. None: the source rate.
        problems: treatment of bad videos: ``raise`` at the first (default), ``skip`` them, or a `Problems` object.
        labels_needed: if False, invalid labels give a note and are ignored, as in pretraining.
        groups: video -> person or site, or a pattern that matches it in the names. None: as in ``splits/groups.csv``.

    Raises:
        InputError: no usable video, unknown rate or orientation, a bad video (unless skipped), or groups that do not
            fit the videos.
    """
    root = Path(root)
    problems = problems if isinstance(problems, Problems) else Problems(on_error=problems or "raise")
    paths = feature_files(root)
    store = read_store(root / "store.json")
    source = source_timeline(root, store, None if source_rate is None else parse_rate(source_rate))
    pool = 1 if rate is None else source.pool_factor(parse_rate(rate))
    classes = read_mapping(root / "mapping.txt") if (root / "mapping.txt").exists() else ()
    if labels_needed and not classes and (root / "groundTruth").is_dir():
        raise InputError(f"{root}: groundTruth/ without mapping.txt; write one 'id name' per line")
    videos = find_videos(root, paths, store.get("time_axis"), classes, problems, labels_needed)
    if not videos:
        first = next(iter(problems.skipped.values()))
        raise InputError(f"{root}: none of its {len(paths)} videos can be used; the first: {first}")
    problems.notes += unused_files(root, paths)
    if not classes and (root / "groundTruth").is_dir():
        problems.notes.append("groundTruth/ is not read: there is no mapping.txt with 'id name' lines")
    oracle = read_oracle_note(store)
    labels_used, labelled_videos = read_label_use(store)
    notices = [f"ORACLE: {oracle}"] if oracle else []
    if labels_used:
        notices.append(f"LABELS: {labels_used}")
    if store.get("complete") is False:
        notices.append("the command that wrote this folder was stopped; run it again to finish")
    if notices:  # as one note and first, because some commands show only that
        problems.notes.insert(0, "; ".join(notices))
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
