"""Writing the features of videos to a folder, where finished videos are always complete."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from keystep.data.annotation import UNLABELLED
from keystep.data.slots import open_array, read_times
from keystep.data.store import FeatureStore
from keystep.engines import Report
from keystep.errors import InputError
from keystep.extraction.extractor import Extractor, Features, joined
from keystep.extraction.labels import FEW, FrameCount, FrameLabels, Lengths, SourceFrames
from keystep.extraction.video import VideoInfo, open_video
from keystep.extraction.video.decoding import JUMP, reading
from keystep.extraction.video.frames import Frame
from keystep.files import sample_bytes, write_lines
from keystep.reading import open_npy, read_json, read_lines, stored

REPORT_SECONDS = 0.25

State = Literal["missing", "done", "changed"]


@dataclass(frozen=True)
class Writing:
    """Where and how features are written; pickled for workers.

    Attributes:
        store: the feature folder.
        half: store float16 instead of float32.
        labels: frame labels to write for the slots.
        jump: seconds ahead that count as a jump of the clock, see `open_video`.
    """

    store: FeatureStore
    half: bool = False
    labels: FrameLabels | None = None
    jump: Fraction | None = JUMP

    def state(self, name: str, path: Path) -> State:
        """Whether the features of a video exist, and are those of this file.

        Args:
            name: of the video.
            path: its file.

        Raises:
            InputError: they are those of another file that still exists.
        """
        if not self.store.has(name):
            return "missing"
        record = read_json(self._record(name))
        if not path.exists() or _is_source(record, path):
            return "done"
        source = record.get("source")
        if isinstance(source, str) and Path(source).exists() and not Path(source).samefile(path):
            raise InputError(
                f"{self._array(name)}: extracted from {source}, which has the same name as {path}; use another folder"
            )
        return "changed"

    def write(self, extractor: Extractor, name: str, path: Path, report: Report, batch: int = 1) -> Outcome:
        """Extract a video and write its features, records and labels.

        Args:
            extractor: computes the features.
            name: of the video.
            path: its file.
            report: takes the seconds of video and frames processed since the last call.
            batch: clips per call of the network.

        Raises:
            InputError: the video cannot be read, has no slot, its labels cannot be used, or its features exceed the
                range of float16.
        """
        origin, video = _origin(path), open_video(path, self.jump)
        count = FrameCount(video.info)
        frames = _reported(count.over(video.frames()), report)
        features = joined([self._narrowed(name, part) for part in extractor.stream(frames, batch=batch)])
        source = count.seen(bool(video.damage))
        remarks = [*video.notes, *_omitted(features.slots)]
        notes = [f"{name}: {line}" for line in (*video.damage, *remarks)]
        labels = None
        if (
            self.labels is not None
            and (found := self.labels.slot_labels(name, features.times, features.seen[:, 1], source)) is not None
        ):
            labels, about = found
            notes += about
        regular = np.array_equal(features.slots, np.arange(len(features)))
        self.store.remove(name)
        self.store.add(
            name,
            features.features,
            {
                "status": "partial" if video.damage else "complete",
                "damage": list(video.damage),
                "notes": remarks,
                **origin,
                **_video_record(video.info),
                **source.to_json(),
            },
            labels=labels,
            times=None if regular else features.times,
            seen=features.seen,
        )
        return Outcome(name, len(features), notes)

    def label(self, name: str) -> list[str]:
        """Write the labels of a finished video, unless they have not changed.

        Returns:
            notes on them.

        Raises:
            InputError: its labels cannot be used.
        """
        found, path = self._read_labels(name), self._label_path(name)
        if found is None or (path.exists() and read_lines(path) == found[0]):
            return []
        write_lines(path, found[0])
        return found[1]

    def check_labels(self, name: str) -> None:
        """Refuse to replace the labels of a finished video by ones that leave more of it unlabelled.

        Raises:
            InputError: the existing labels cover more of the video, and the new ones are probably at another rate.
        """
        found, path = self._read_labels(name), self._label_path(name)
        if found is None or not path.exists():
            return
        old, new = (sum(line != UNLABELLED for line in lines) for lines in (read_lines(path), found[0]))
        if new < FEW * len(found[0]) and new < old:
            share = 100 * (1 - new / len(found[0]))
            raise InputError(
                f"{path}: labels {old:,} slots; the new labels would leave {share:.0f} % of the video unlabelled "
                f"and were not taken: are they at another rate (--label-rate)? If they are right, delete {path}"
            )

    def _read_labels(self, name: str) -> tuple[list[str], list[str]] | None:
        """Labels and notes of a finished video, see `FrameLabels.slot_labels`."""
        assert self.labels is not None
        times = self._times(name)
        shown = self._shown(name, len(times))
        return self.labels.slot_labels(name, times, shown, SourceFrames.read(self._record(name)))

    def _label_path(self, name: str) -> Path:
        return self.store.root / "groundTruth" / f"{name}.txt"

    def lengths(self, name: str) -> Lengths | None:
        """Lengths of the labels and the video of a finished extraction; None if frames were lost.

        Raises:
            InputError: its labels cannot be read.
        """
        assert self.labels is not None
        source = SourceFrames.read(self._record(name))
        return None if source.damaged else self.labels.lengths(name, source.count, source.seconds)

    def _times(self, name: str) -> np.ndarray:
        path, slots = self.store.root / "times" / f"{name}.npy", len(open_array(self._array(name)))
        if stored(path):
            return read_times(path, slots)
        return np.array([float(self.store.timeline.seconds(slot)) for slot in range(slots)])

    def _shown(self, name: str, slots: int) -> np.ndarray:
        """(T,) the source frame that is shown at each slot's moment."""
        path = self.store.root / "seen" / f"{name}.npy"
        seen = open_npy(path)
        if seen.shape != (slots, 3) or seen.dtype.kind not in "iu" or seen.min() < 0:
            raise InputError(
                f"{path}: {seen.dtype} {seen.shape}; expected the numbers of source frames, ({slots}, 3); remove "
                f"{self._array(name)} to extract the video again"
            )
        return seen[:, 1].astype(np.int64)

    def _narrowed(self, name: str, part: Features) -> Features:
        """Convert features to the stored type."""
        if not self.half:
            return replace(part, features=part.features.astype(np.float32, copy=False))
        largest = float(np.abs(part.features).max())
        if largest > float(np.finfo(np.float16).max):
            raise InputError(f"{name}: features of up to {largest:.3g} exceed the range of float16; omit --half")
        return replace(part, features=part.features.astype(np.float16))

    def _array(self, name: str) -> Path:
        return self.store.root / "features" / f"{name}.npy"

    def _record(self, name: str) -> Path:
        return self.store.root / "features" / f"{name}.json"


@dataclass(frozen=True)
class Outcome:
    """Result for one finished video.

    Attributes:
        name: of the video.
        slots: number of slots.
        notes: lines for the user.
    """

    name: str
    slots: int
    notes: list[str] = field(default_factory=list)


def _reported(frames: Iterable[Frame], report: Report) -> Iterator[Frame]:
    """Yield the same frames, reporting progress periodically."""
    reported, count, last, position = 0.0, 0, time.monotonic(), 0.0
    for frame in frames:
        yield frame
        count, position = count + 1, float(frame.time)
        if time.monotonic() - last > REPORT_SECONDS:
            report(position - reported, count)
            reported, count, last = position, 0, time.monotonic()
    report(position - reported, count)


def _origin(path: Path) -> dict[str, Any]:
    """Record that identifies the source file of features."""
    if not path.is_file():
        return {}  # opening it reports the problem
    with reading(path):
        stat = path.stat()
        sample = hashlib.sha256(sample_bytes(path)).hexdigest()
    return {
        "source": os.path.realpath(path),
        "source_bytes": stat.st_size,
        "source_modified": stat.st_mtime_ns,
        "source_sample": sample,
    }


def _is_source(record: dict[str, Any], path: Path) -> bool:
    """Whether a ``<video>.json`` describes this file in its present state.

    A copy of a complete video is recognised by its size and a sample of its bytes. A damaged video may have been
    repaired anywhere, so its modification time has to match as well.
    """
    with reading(path):
        stat = path.stat()
    if record.get("source_bytes") != stat.st_size:
        return False
    if record.get("source_modified") == stat.st_mtime_ns:
        return True
    return record.get("status") == "complete" and record.get("source_sample") == _origin(path).get("source_sample")


def _omitted(slots: np.ndarray) -> list[str]:
    """A note on missing slots."""
    missing = int(slots[-1] - slots[0]) + 1 - len(slots)
    if not missing:
        return []
    return [f"{missing} slots omitted, as one picture was shown for too long (limit: --set longest_hold=SECONDS)"]


def _video_record(info: VideoInfo) -> dict[str, Any]:
    return {"source_size": [info.width, info.height], "codec": info.codec}
