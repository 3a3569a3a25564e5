"""Many videos to one feature folder: each finished video is there whole, a run that was stopped goes on."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from keystep.data.annotation import UNLABELLED
from keystep.data.slots import open_array, read_times
from keystep.data.store import FeatureStore
from keystep.errors import InputError
from keystep.extraction.extractor import Extractor, Features, joined
from keystep.extraction.labels import FEW, FrameCount, FrameLabels, Lengths, SourceFrames
from keystep.extraction.video import VideoInfo, open_video
from keystep.extraction.video.frames import Frame
from keystep.files import sample_bytes, write_lines
from keystep.reading import open_npy, read_json, read_lines

REPORT_SECONDS = 0.25

Advance = Callable[[float, int], None]
"""Called now and then with the seconds of video and the source frames that were done since the last call."""
State = Literal["missing", "done", "changed"]


@dataclass(frozen=True)
class Writing:
    """Where features go, and in what form; it travels to worker processes.

    half: store float16. labels: labels frame by frame, to be written for the slots. batch: clips at a time.
    """

    store: FeatureStore
    half: bool = False
    labels: FrameLabels | None = None
    batch: int = 1

    def state(self, name: str, path: Path) -> State:
        """Whether the video's features are there, and still those of this file.

        Raises:
            InputError: they are those of another file, which is still there.
        """
        if not self._array(name).exists():
            return "missing"
        record = read_json(self._record(name))
        if not path.exists() or _is_source(record, path):
            return "done"
        source = record.get("source")
        if isinstance(source, str) and Path(source).exists() and not Path(source).samefile(path):
            raise InputError(
                f"{self._array(name)}: made of {source}, now {path} has that name, too; choose another folder"
            )
        return "changed"

    def write(self, extractor: Extractor, name: str, path: Path, advance: Advance) -> Outcome:
        """Extract one video and write all that belongs to it.

        Raises:
            InputError: the video cannot be read, holds no slot, its labels cannot be used, or its features do not fit
                into float16.
        """
        origin, video = _origin(path), open_video(path)
        count = FrameCount(video.info)
        frames = _reported(count.over(video.frames()), advance)
        made = joined([self._narrowed(name, part) for part in extractor.stream(frames, batch=self.batch)])
        source = count.seen(bool(video.damage))
        remarks = [*video.notes, *_left_out(made.slots)]
        notes = [f"{name}: {line}" for line in (*video.damage, *remarks)]
        labels = None
        if self.labels is not None and (found := self.labels.of(name, made.times, made.seen[:, 1], source)) is not None:
            labels, about = found
            notes += about
        regular = np.array_equal(made.slots, np.arange(len(made)))
        self.store.remove(name)
        self.store.add(
            name,
            made.features,
            {
                "status": "partial" if video.damage else "complete",
                "damage": list(video.damage),
                "notes": remarks,
                **origin,
                **_of_video(video.info),
                **source.to_json(),
            },
            labels=labels,
            times=None if regular else made.times,
            seen=made.seen,
        )
        return Outcome(name, len(made), notes)

    def label(self, name: str) -> list[str]:
        """Write the labels of a video whose features are there, if they are not the same already; notes on them.

        Raises:
            InputError: its labels cannot be used.
        """
        found, path = self._read_labels(name), self._label_path(name)
        if found is None or (path.exists() and read_lines(path) == found[0]):
            return []
        write_lines(path, found[0])
        return found[1]

    def check_labels(self, name: str) -> None:
        """Refuse to replace a finished video's labels by others that leave most of it without one.

        Raises:
            InputError: the labels that are there cover more of the video, and the new ones look like another rate's.
        """
        found, path = self._read_labels(name), self._label_path(name)
        if found is None or not path.exists():
            return
        old, new = (sum(line != UNLABELLED for line in lines) for lines in (read_lines(path), found[0]))
        if new < FEW * len(found[0]) and new < old:
            share = 100 * (1 - new / len(found[0]))
            raise InputError(
                f"{path}: labels {old:,} slots; the new labels would leave {share:.0f} % of the video without one "
                f"and were not taken: are they of another frame rate (--label-rate)? If they are right, delete {path}"
            )

    def _read_labels(self, name: str) -> tuple[list[str], list[str]] | None:
        """Labels and notes of a finished video, as `FrameLabels.of`."""
        assert self.labels is not None
        times = self._times(name)
        shown = self._shown(name, len(times))
        return self.labels.of(name, times, shown, SourceFrames.read(self._record(name)))

    def _label_path(self, name: str) -> Path:
        return self.store.root / "groundTruth" / f"{name}.txt"

    def lengths(self, name: str) -> Lengths | None:
        """How long a finished video's labels are and should be; None where some frames were lost.

        Raises:
            InputError: its labels cannot be read.
        """
        assert self.labels is not None
        source = SourceFrames.read(self._record(name))
        return None if source.damaged else self.labels.lengths(name, source.count, source.seconds)

    def _times(self, name: str) -> np.ndarray:
        path, slots = self.store.root / "times" / f"{name}.npy", len(open_array(self._array(name)))
        if path.exists():
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
        """Features in the type that is stored."""
        if not self.half:
            return replace(part, features=part.features.astype(np.float32, copy=False))
        largest = float(np.abs(part.features).max())
        if largest > float(np.finfo(np.float16).max):
            raise InputError(f"{name}: features of up to {largest:.3g} are too large for float16; drop --half")
        return replace(part, features=part.features.astype(np.float16))

    def _array(self, name: str) -> Path:
        return self.store.root / "features" / f"{name}.npy"

    def _record(self, name: str) -> Path:
        return self.store.root / "features" / f"{name}.json"


@dataclass(frozen=True)
class Outcome:
    """One finished video: how many slots it has, and what deserves a look."""

    name: str
    slots: int
    notes: list[str] = field(default_factory=list)


def _reported(frames: Iterable[Frame], advance: Advance) -> Iterator[Frame]:
    """The same frames; says from time to time how far they are."""
    said, count, last, moment = 0.0, 0, time.monotonic(), 0.0
    for frame in frames:
        yield frame
        count, moment = count + 1, float(frame.time)
        if time.monotonic() - last > REPORT_SECONDS:
            advance(moment - said, count)
            said, count, last = moment, 0, time.monotonic()
    advance(moment - said, count)


def _origin(path: Path) -> dict[str, Any]:
    """Which file the features are of."""
    if not path.is_file():
        return {}  # what is wrong with it is told where it is opened
    stat = path.stat()
    sample = hashlib.sha256(sample_bytes(path)).hexdigest()
    return {
        "source": str(path.resolve()),
        "source_bytes": stat.st_size,
        "source_modified": stat.st_mtime_ns,
        "source_sample": sample,
    }


def _is_source(record: dict[str, Any], path: Path) -> bool:
    """Whether a ``<video>.json`` is of this file as it is now.

    A copy of a whole video is the same by its size and a sample of its bytes; a damaged one may have been mended
    anywhere, so that its time of change counts, too.
    """
    stat = path.stat()
    if record.get("source_bytes") != stat.st_size:
        return False
    if record.get("source_modified") == stat.st_mtime_ns:
        return True
    return record.get("status") == "complete" and record.get("source_sample") == _origin(path).get("source_sample")


def _left_out(slots: np.ndarray) -> list[str]:
    """A note on slots that are missing between others."""
    missing = int(slots[-1] - slots[0]) + 1 - len(slots)
    if not missing:
        return []
    return [f"{missing} slots left out, because one picture was shown for too long (--set longest_hold=SECONDS)"]


def _of_video(info: VideoInfo) -> dict[str, Any]:
    return {"source_size": [info.width, info.height], "codec": info.codec}
