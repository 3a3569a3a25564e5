"""Labels of the frames of a video, transferred to the slots of its features."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field

from keystep.data.annotation import UNLABELLED, read_labels, read_mapping
from keystep.data.layout import LEAST_FACTOR, length_tolerance, rate_factor
from keystep.errors import InputError
from keystep.extraction.video.files import VideoInfo, count_frames
from keystep.extraction.video.frames import Frame
from keystep.files import write_json, write_lines
from keystep.reading import Record, check_regular, read_json, read_lines, read_record
from keystep.types import parse_rate

ESTIMATE_ERROR, LEAST_ESTIMATED_FACTOR = 0.01, 0.1
"""Relative error of frame counts estimated from durations, and the difference from 1 from which a factor between such
counts and labels is another rate."""
UNSTEADY = 0.25
"""Frames by which times may differ from a regular grid of the stated rate."""
FEW = 0.7
"""Share of a video's length below which its labels are probably at another rate."""
RECORD = "labels.json"


@dataclass(frozen=True, kw_only=True)
class SourceFrames:
    """Decoded frames of a video, as needed to assign labels.

    Attributes:
        count: number of decoded frames.
        seconds: end of the last frame.
        rate: average frame rate in Hz.
        damaged: whether frames were lost.
        holes: (index, missing) at each loss: the total number of frames missing before frame ``index``. None: the
            times of the frames are too irregular to tell.
    """

    count: int
    seconds: float
    rate: Fraction | None = None
    damaged: bool = False
    holes: tuple[tuple[int, int], ...] | None = ()

    @property
    def missing(self) -> int:
        """Number of frames missing before the last decoded one."""
        return self.holes[-1][1] if self.holes else 0

    def numbers(self, indices: np.ndarray) -> np.ndarray:
        """Convert (T,) indices of decoded frames to indices among all frames, including lost ones."""
        holes = np.array(self.holes or (), dtype=np.int64).reshape(-1, 2)
        missing = np.concatenate([np.zeros(1, np.int64), holes[:, 1]])
        numbers: np.ndarray = indices + missing[np.searchsorted(holes[:, 0], indices, side="right")]
        return numbers

    def to_json(self) -> dict[str, Any]:
        """Entries for ``<video>.json``."""
        return {
            "source_frames": self.count,
            "source_seconds": self.seconds,
            "source_rate": None if self.rate is None else str(self.rate),
            "source_holes": self.holes,
        }

    @classmethod
    def read(cls, path: Path) -> SourceFrames:
        """Read the entries of `to_json` from the file ``<video>.json`` of a complete extraction.

        Raises:
            InputError: it is damaged, or was not written by an extraction.
        """
        found = read_record(path, _SourceRecord)
        return cls(
            count=found.source_frames,
            seconds=found.source_seconds,
            rate=None if found.source_rate is None else parse_rate(found.source_rate),
            damaged=found.status != "complete",
            holes=None if found.source_holes is None else tuple((at, missing) for at, missing in found.source_holes),
        )


_Count = Annotated[int, Field(ge=0, le=1 << 40)]
"""Of frames, far more than any video has, and few enough to be added."""


class _SourceRecord(Record):
    """What `SourceFrames` are read from."""

    status: str
    source_frames: _Count
    source_seconds: Annotated[float, Field(ge=0)]
    source_rate: str | None
    source_holes: list[Annotated[list[_Count], Field(min_length=2, max_length=2)]] | None


@dataclass
class FrameCount:
    """Collect the times of frames of an iterator (eight bytes each), and detect where frames are missing."""

    info: VideoInfo
    times: array[float] = field(default_factory=lambda: array("d"))

    def over(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Yield the same frames."""
        for frame in frames:
            self.times.append(float(frame.time))
            yield frame

    def seen(self, damaged: bool) -> SourceFrames:
        """Summary of the counted frames. Without damage no frame is missing, even if the times are irregular."""
        rate = self._rate()
        seconds = (self.times[-1] if self.times else 0.0) + (0.0 if rate is None else float(1 / rate))
        holes = self._holes(rate) if damaged else ()
        return SourceFrames(count=len(self.times), seconds=seconds, rate=rate, damaged=damaged, holes=holes)

    def _rate(self) -> Fraction | None:
        """Frame rate in Hz that the header states, if the times do not contradict it."""
        step = float(np.median(np.diff(self.times))) if len(self.times) > 1 else None
        stated = [rate for rate in (self.info.rate, self.info.usual_rate) if rate is not None]
        near = [rate for rate in stated if step is None or abs(step * rate - 1) < UNSTEADY]
        return near[0] if near else None

    def _holes(self, rate: Fraction | None) -> tuple[tuple[int, int], ...] | None:
        """(index, missing) at each loss, see `SourceFrames`; None: the times are too irregular to tell."""
        places = (np.array(self.times) - float(self.info.begins)) * float(rate or 0)
        missing = np.round(places).astype(np.int64) - np.arange(len(places))
        changes = np.diff(missing, prepend=0)
        if rate is None or (np.abs(places - np.round(places)) > UNSTEADY).any() or (changes < 0).any():
            return None
        return tuple((int(index), int(missing[index])) for index in np.flatnonzero(changes))


class Lengths(NamedTuple):
    """Number of label lines of a video, and the expected number."""

    lines: int
    expected: float


@dataclass(frozen=True)
class FrameLabels:
    """A folder with ``groundTruth/<video>.txt``, ``mapping.txt`` and optionally ``splits/``.

    Attributes:
        root: the folder.
        rate: label lines per second; None: one line per video frame, in presentation order.

    Raises:
        InputError: no ``groundTruth/`` or ``mapping.txt``.
    """

    root: Path
    rate: Fraction | None = None

    def __post_init__(self) -> None:
        if not (self.root / "groundTruth").is_dir() or not (self.root / "mapping.txt").is_file():
            raise InputError(f"{self.root}: no groundTruth/ and mapping.txt, which --labels needs")

    def missing(self, videos: Collection[str]) -> list[str]:
        """List the videos without labels.

        Raises:
            InputError: no video has labels.
        """
        without = [name for name in videos if not self.has(name)]
        if len(without) == len(videos):
            raise InputError(f"{self.root / 'groundTruth'}: no labels for any of the videos, such as {without[0]}.txt")
        return without

    def has(self, video: str) -> bool:
        """Whether the video has labels."""
        return self._path(video).exists()

    def check(self, video: str, info: VideoInfo) -> Lengths | None:
        """Check the labels of a video before it is decoded.

        Args:
            video: its name.
            info: its properties.

        Returns:
            `lengths` according to the header of the video.

        Raises:
            InputError: a class that is not in mapping.txt, an unreadable file, or too many labels for the frames.
        """
        lines = len(self._lines(video))
        if self.rate is None and info.frames is not None and lines > _longest(info.frames):
            raise InputError(self._too_many(video, lines, info.frames))
        frames = Fraction(info.frames or (info.duration or 0) * (info.rate or 0))
        if self.rate is None and info.frames is None and abs(lines - frames) > ESTIMATE_ERROR * float(frames):
            frames = Fraction(count_frames(info.path))  # headers may state a wrong rate
        return self.lengths(video, frames, float(info.duration or 0))

    def lengths(self, video: str, frames: Fraction | int, seconds: float) -> Lengths | None:
        """Compare the number of label lines with the length of a video.

        Args:
            video: its name.
            frames: number of frames.
            seconds: duration.

        Returns:
            both numbers; None if the length of the video is unknown.
        """
        expected = float(frames) if self.rate is None else seconds * float(self.rate)
        return Lengths(len(read_lines(self._path(video))), expected) if expected >= 1 else None

    def check_rate(self, lengths: Collection[Lengths]) -> None:
        """Refuse labels at another rate, by the rule for feature folders (`keystep.data.layout.rate_factor`).

        Args:
            lengths: of several videos.

        Raises:
            InputError: the labels of all videos are too long or too short by the same factor.
        """
        counts = [(one.expected, one.lines) for one in lengths]
        factor = rate_factor(counts, ESTIMATE_ERROR)
        least = LEAST_ESTIMATED_FACTOR if rate_factor(counts) is None else LEAST_FACTOR
        if factor is not None and abs(factor - 1) > least:
            unit = "frame" if self.rate is None else f"1/{float(self.rate):g} s"
            other = "" if self.rate is None else f", such as {factor * float(self.rate):.4g}"
            raise InputError(
                f"{self.root / 'groundTruth'}: {factor:.3g} lines per {unit} in all {len(lengths)} videos, so the "
                f"labels are at another rate; give {'--label-rate' if self.rate is None else 'another --label-rate'}"
                f"{other}"
            )

    def slot_labels(
        self, video: str, times: np.ndarray, shown: np.ndarray, source: SourceFrames
    ) -> tuple[list[str], list[str]] | None:
        """Label each slot with the class of the frame shown at its time, or `UNLABELLED` after the last line.

        Args:
            video: its name.
            times: (T,) seconds of the slots.
            shown: (T,) index of the frame shown at each.
            source: the decoded frames.

        Returns:
            T class names, and notes on how labels and video differ; None if the video has no labels.

        Raises:
            InputError: a class that is not in mapping.txt, an unreadable file, or too many labels for the frames.
        """
        if not self.has(video):
            return None
        lines = self._lines(video)
        if self.rate is None:
            places, fitting = source.numbers(shown), source.count + source.missing
        else:  # 1e-6, as floats such as 1/3 are rounded down
            places = np.floor(times * float(self.rate) + 1e-6).astype(np.int64)
            fitting = ceil(source.seconds * float(self.rate) - 1e-6)
        if not source.damaged and len(lines) > _longest(fitting):
            raise InputError(self._too_many(video, len(lines), fitting))
        labels = [lines[place] if place < len(lines) else UNLABELLED for place in places]
        return labels, self._notes(video, len(lines), fitting, source)

    def _notes(self, video: str, lines: int, fitting: int, source: SourceFrames) -> list[str]:
        notes = []
        if abs(lines - fitting) > (0 if self.rate is None else 1):
            rest = (
                f"the last {fitting - lines} are unlabelled" if lines < fitting else f"{lines - fitting} are not used"
            )
            doubt = "; are they at another rate (--label-rate)?" if lines < FEW * fitting else ""
            notes.append(f"{video}: {self._apart(lines, fitting)}; {rest}{doubt}")
        if source.damaged and self.rate is None and source.missing:
            notes.append(
                f"{video}: {source.missing} frames are missing in between; later labels follow the frames' times"
            )
        if source.holes is None and self.rate is None:
            notes.append(
                f"{video}: frames were lost, and their times do not tell how many; later labels may be shifted; "
                "--label-rate assigns them by time"
            )
        return notes

    def _apart(self, lines: int, fitting: int) -> str:
        if self.rate is None:
            return f"labels for {lines} frames, the video has {fitting}"
        return f"{lines} labels at {float(self.rate):g} Hz, the video has time for {fitting}"

    def _too_many(self, video: str, lines: int, fitting: int) -> str:
        rate = "--label-rate" if self.rate is None else "another --label-rate"
        return f"{self._path(video)}: {self._apart(lines, fitting)}; give {rate}, or the labels of this video"

    def _path(self, video: str) -> Path:
        return self.root / "groundTruth" / f"{video}.txt"

    def _lines(self, video: str) -> list[str]:
        """Read the labels of a video, and check that all classes are known."""
        read_labels(self._path(video), read_mapping(self.root / "mapping.txt"))
        return read_lines(self._path(video))

    def copy_to(self, folder: Path) -> list[str]:
        """Copy classes, splits and groups to a folder, and record which labels were used.

        Returns:
            a note if they differ from those of an earlier run.
        """
        splits = [path for kind in ("*.bundle", "groups.csv") for path in sorted((self.root / "splits").glob(kind))]
        for source in [self.root / "mapping.txt", *splits]:
            write_lines(folder / source.relative_to(self.root), read_lines(source))
        path, record = folder / RECORD, self._record()
        before = read_json(path) if path.exists() else record
        write_json(path, record)
        return [f"{folder}: the labels have changed; finished videos get the new ones"] * (before != record)

    def _record(self) -> dict[str, Any]:
        """The rate, and a SHA-256 of all label files."""
        digest = hashlib.sha256()
        for path in [self.root / "mapping.txt", *sorted((self.root / "groundTruth").glob("*.txt"))]:
            digest.update(f"{path.name}\n{check_regular(path)}\n".encode() + path.read_bytes())
        return {"rate": None if self.rate is None else str(self.rate), "sha256": digest.hexdigest()}


def _longest(frames: int) -> int:
    """Largest accepted number of labels for a number of frames."""
    return frames + length_tolerance(frames)
