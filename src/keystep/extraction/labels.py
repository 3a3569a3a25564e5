"""Labels given frame by frame, for the slots of features extracted from the same video."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field

from keystep.data.annotation import UNLABELLED, read_labels, read_mapping
from keystep.errors import InputError
from keystep.extraction.video.files import VideoInfo
from keystep.extraction.video.frames import Frame
from keystep.files import write_json, write_lines
from keystep.reading import Record, read_json, read_lines, read_record
from keystep.types import parse_rate

SPARE, SPARE_SHARE = 16, Fraction(1, 10)
"""Lines, and share of the video, that labels may have behind the end of their video; more are those of another frame
rate or another video."""
ALIKE, ALIKE_LINES = 0.01, 1.5
"""How far lengths may be from one rate, as a share and in lines, to be taken for it."""
FEW = 0.7
"""Share of a video below which its labels look like those of another frame rate."""
RECORD = "labels.json"


@dataclass(frozen=True, kw_only=True)
class SourceFrames:
    """The frames of a video that could be decoded, as far as labels need to know them.

    count: how many. seconds: when the last one ends. rate: frames a second on average. damaged: whether any were lost.
    holes: (index, missing) where so many frames are missing before that one, all told; None where the frames' times are
    too irregular to tell.
    """

    count: int
    seconds: float
    rate: Fraction | None = None
    damaged: bool = False
    holes: tuple[tuple[int, int], ...] | None = ()

    @property
    def missing(self) -> int:
        """Frames that are missing before the last one that is there."""
        return self.holes[-1][1] if self.holes else 0

    def numbers(self, indices: np.ndarray) -> np.ndarray:
        """(T,) places among all frames, of indices among those that could be decoded."""
        holes = np.array(self.holes or (), dtype=np.int64).reshape(-1, 2)
        missing = np.concatenate([np.zeros(1, np.int64), holes[:, 1]])
        numbers: np.ndarray = indices + missing[np.searchsorted(holes[:, 0], indices, side="right")]
        return numbers

    def to_json(self) -> dict[str, Any]:
        """Plain values under names of their own in ``<video>.json``."""
        return {
            "source_frames": self.count,
            "source_seconds": self.seconds,
            "source_rate": None if self.rate is None else str(self.rate),
            "source_holes": self.holes,
        }

    @classmethod
    def read(cls, path: Path) -> SourceFrames:
        """Inverse of `to_json`, of the file ``<video>.json``.

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


class _SourceRecord(Record):
    """What `SourceFrames` are read from."""

    status: str
    source_frames: Annotated[int, Field(ge=0)]
    source_seconds: Annotated[float, Field(ge=0)]
    source_rate: str | None
    source_holes: list[Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)]] | None


@dataclass
class FrameCount:
    """Counts frames that pass by and finds where some are missing; memory does not grow but by holes."""

    info: VideoInfo
    count: int = 0
    last: float = 0.0
    _holes: list[tuple[int, int]] | None = field(default_factory=list)

    def over(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """The same frames."""
        begins, rate = float(self.info.begins), float(self.info.rate or 0)
        for frame in frames:
            self.count, self.last = self.count + 1, float(frame.time)
            if self._holes is not None:
                place = (self.last - begins) * rate
                missing, before = round(place) - frame.index, self._holes[-1][1] if self._holes else 0
                if abs(place - round(place)) > 0.25 or missing < before:
                    self._holes = None
                elif missing > before:
                    self._holes.append((frame.index, missing))
            yield frame

    def seen(self, damaged: bool) -> SourceFrames:
        """What has passed by; without damage, every frame is there, whatever the times look like."""
        holes = () if not damaged else None if self._holes is None else tuple(self._holes)
        rate = self.info.rate
        seconds = self.last + (0.0 if rate is None else float(1 / rate))
        return SourceFrames(count=self.count, seconds=seconds, rate=rate, damaged=damaged, holes=holes)


class Lengths(NamedTuple):
    """Lines of a video's labels, and how many are expected."""

    lines: int
    expected: float


@dataclass(frozen=True)
class FrameLabels:
    """A folder with ``groundTruth/<video>.txt``, ``mapping.txt`` and perhaps ``splits/``.

    root: the folder. rate: lines a second; None: one line a frame of the video, in the order of presentation.
    """

    root: Path
    rate: Fraction | None = None

    def __post_init__(self) -> None:
        if not (self.root / "groundTruth").is_dir() or not (self.root / "mapping.txt").is_file():
            raise InputError(f"{self.root}: no groundTruth/ with a mapping.txt beside it; these are needed as labels")

    def missing(self, videos: Collection[str]) -> list[str]:
        """Videos without labels.

        Raises:
            InputError: no video has any.
        """
        without = [name for name in videos if not self.has(name)]
        if len(without) == len(videos):
            raise InputError(f"{self.root / 'groundTruth'}: no labels for any of the videos, such as {without[0]}.txt")
        return without

    def has(self, video: str) -> bool:
        """Whether there are any for that video."""
        return self._path(video).exists()

    def check(self, video: str, info: VideoInfo) -> Lengths | None:
        """Refuse labels that cannot be used, as far as that can be told without decoding the video.

        Returns:
            as `lengths`, by what the file states.

        Raises:
            InputError: a class that is not in mapping.txt, an unreadable file, many more labels than frames.
        """
        lines = len(self._lines(video))
        if self.rate is None and info.frames is not None and lines > _most(info.frames):
            raise InputError(self._too_many(video, lines, info.frames))
        frames = info.frames or (info.duration or 0) * (info.rate or 0)
        return self.lengths(video, frames, float(info.duration or 0))

    def lengths(self, video: str, frames: Fraction | int, seconds: float) -> Lengths | None:
        """How long a video's labels are and should be; None where it is not known how long the video is."""
        expected = float(frames) if self.rate is None else seconds * float(self.rate)
        return Lengths(len(read_lines(self._path(video))), expected) if expected >= 1 else None

    def check_rate(self, lengths: Collection[Lengths]) -> None:
        """Refuse labels whose lengths say that their rate is another one: too long or too short by one factor.

        lengths: those of several videos.

        Raises:
            InputError: the factors are alike, and are not 1.
        """
        if len(lengths) < 2:
            return
        factor = sum(one.lines for one in lengths) / sum(one.expected for one in lengths)
        apart = [abs(one.lines - factor * one.expected) for one in lengths]
        alike = all(far <= ALIKE_LINES + ALIKE * one.lines for far, one in zip(apart, lengths, strict=True))
        if alike and abs(factor - 1) > SPARE_SHARE:
            unit = "frame" if self.rate is None else f"1/{float(self.rate):g} s"
            other = "" if self.rate is None else f", such as {factor * float(self.rate):.4g}"
            raise InputError(
                f"{self.root / 'groundTruth'}: {factor:.3g} lines for each {unit} in {len(lengths)} videos, so they "
                f"are of another rate; give {'--label-rate' if self.rate is None else 'another --label-rate'}{other}"
            )

    def of(
        self, video: str, times: np.ndarray, shown: np.ndarray, source: SourceFrames
    ) -> tuple[list[str], list[str]] | None:
        """Each slot's class name, and notes on how labels and video differ; None where the video has no labels.

        A slot gets the label of the frame that is shown at its moment, `UNLABELLED` behind the last line.

        Args:
            times: (T,) seconds of the slots. shown: (T,) the frames shown then.

        Raises:
            InputError: a class that is not in mapping.txt, an unreadable file, more labels than the video can have.
        """
        if not self.has(video):
            return None
        lines = self._lines(video)
        if self.rate is None:
            places, fitting = source.numbers(shown), source.count + source.missing
        else:  # a little more, because a third of a second in binary is less than a third
            places = np.floor(times * float(self.rate) + 1e-6).astype(np.int64)
            fitting = ceil(source.seconds * float(self.rate) - 1e-6)
        if not source.damaged and len(lines) > _most(fitting):
            raise InputError(self._too_many(video, len(lines), fitting))
        labels = [lines[place] if place < len(lines) else UNLABELLED for place in places]
        return labels, self._notes(video, len(lines), fitting, source)

    def _notes(self, video: str, lines: int, fitting: int, source: SourceFrames) -> list[str]:
        notes = []
        if abs(lines - fitting) > (0 if self.rate is None else 1):
            rest = (
                f"the last {fitting - lines} are unlabelled" if lines < fitting else f"{lines - fitting} are not used"
            )
            doubt = "; are they of another frame rate (--label-rate)?" if lines < FEW * fitting else ""
            notes.append(f"{video}: {self._apart(lines, fitting)}; {rest}{doubt}")
        if source.damaged and self.rate is None and source.missing:
            notes.append(
                f"{video}: {source.missing} frames are missing in between; labels behind them go by the frames' times"
            )
        if source.holes is None and self.rate is None:
            notes.append(
                f"{video}: frames were lost, and their times do not say how many: labels behind the loss may be off; "
                "--label-rate takes them by time"
            )
        return notes

    def _apart(self, lines: int, fitting: int) -> str:
        if self.rate is None:
            return f"labels for {lines} frames, the video has {fitting}"
        return f"{lines} labels at {float(self.rate):g} a second, the video takes {fitting}"

    def _too_many(self, video: str, lines: int, fitting: int) -> str:
        rate = "--label-rate" if self.rate is None else "another --label-rate"
        return f"{self._path(video)}: {self._apart(lines, fitting)}; give {rate}, or the labels of this video"

    def _path(self, video: str) -> Path:
        return self.root / "groundTruth" / f"{video}.txt"

    def _lines(self, video: str) -> list[str]:
        """The lines of a video that has labels, all of known classes."""
        read_labels(self._path(video), read_mapping(self.root / "mapping.txt"))
        return read_lines(self._path(video))

    def take_along(self, folder: Path) -> list[str]:
        """Copy classes, splits and groups, and write down which labels these are; a note where they are new."""
        splits = [path for kind in ("*.bundle", "groups.csv") for path in sorted((self.root / "splits").glob(kind))]
        for source in [self.root / "mapping.txt", *splits]:
            write_lines(folder / source.relative_to(self.root), read_lines(source))
        path, record = folder / RECORD, self._record()
        before = read_json(path) if path.exists() else record
        write_json(path, record)
        return [f"{folder}: labels are not those of before; finished videos get the new ones"] * (before != record)

    def _record(self) -> dict[str, Any]:
        """The rate, and a SHA-256 of all that labels are made of."""
        digest = hashlib.sha256()
        for path in [self.root / "mapping.txt", *sorted((self.root / "groundTruth").glob("*.txt"))]:
            digest.update(f"{path.name}\n{path.stat().st_size}\n".encode() + path.read_bytes())
        return {"rate": None if self.rate is None else str(self.rate), "sha256": digest.hexdigest()}


def _most(frames: int) -> int:
    """Lines that labels of so many frames may have."""
    return frames + min(SPARE, max(1, floor(frames * SPARE_SHARE)))
