"""The labelled frames of videos, in blocks, so that a probe is fitted to more of them than fit into memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from keystep.data.annotation import IGNORED
from keystep.data.statistics import ChannelMoments
from keystep.errors import InputError

Array = npt.NDArray[Any]
Block = tuple[Array, npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""(n, D) frames, which may be changed, (n,) classes, and (n,) indices of their videos."""

BLOCK = 8_192
"""Frames per block; the last block has fewer."""
_CACHED = 1_024
"""Frames that are standardised at a time, which fit in the processor's cache."""


@dataclass(frozen=True, eq=False)
class Standard:
    """Mean and factor of each column, (D,) each, of some frames.

    The factor is 0 for columns that are constant to float32 precision.
    """

    mean: npt.NDArray[np.float64]
    factors: npt.NDArray[np.float64]

    def apply(self, frames: npt.NDArray[np.float32]) -> None:
        """Standardise frames (N, D) in place."""
        for rows in _cached(frames):
            rows[:] = (rows - self.mean) * self.factors


@dataclass(frozen=True, eq=False)
class LabelledFrames:
    """The labelled frames of some videos, read again in each iteration, a video at a time.

    Args:
        videos: (T_i, D) array for each video.
        labels: (T_i,) integer array for each video, -100 for unlabelled frames.
        classes: number of classes.
        part: of the split, for messages.

    Raises:
        InputError: no labelled frame, and in an iteration inconsistent widths or lengths, a label outside of
            0..classes-1, or NaN or infinite values.
    """

    videos: Sequence[Array]
    labels: Sequence[Array]
    classes: int
    part: str

    def __post_init__(self) -> None:
        if len(self.videos) != len(self.labels):
            raise InputError(f"{len(self.videos)} {self.part} videos, but labels for {len(self.labels)}")
        if not self.count:
            raise InputError(f"no {self.part} frame has a label (of {len(self.videos)} videos)")

    @cached_property
    def count(self) -> int:
        """Number of labelled frames."""
        return sum(int((np.asarray(labels) != IGNORED).sum()) for labels in self.labels)

    def shares(self) -> npt.NDArray[np.float64]:
        """(classes,) frequencies of the classes."""
        counts = np.zeros(self.classes, np.int64)
        for labels in map(np.asarray, self.labels):
            counts += np.bincount(labels[labels != IGNORED], minlength=self.classes)
        return counts / self.count

    def survey(self, stride: int) -> tuple[Standard, Block]:
        """The standard of all frames, and every ``stride``-th of them, standardised; in one iteration."""
        moments: list[ChannelMoments] = []

        def measured() -> Iterator[Block]:
            for block in self:
                if not moments:
                    moments.append(ChannelMoments(block[0].shape[1]))
                for rows in _cached(block[0]):
                    moments[0].add(rows)
                yield block

        some = thinned(measured(), stride)
        standard = Standard(moments[0].mean, 1 / moments[0].deviation(np.inf))
        standard.apply(some[0])
        return standard, some

    def standardised(self, standard: Standard) -> Iterator[Block]:
        """The blocks, standardised.

        Raises:
            InputError: frames of another width than the standard.
        """
        for frames, targets, videos in self:
            if frames.shape[1] != len(standard.mean):
                raise InputError(f"training width {len(standard.mean)}, but {self.part} width {frames.shape[1]}")
            standard.apply(frames)
            yield frames, targets, videos

    def __iter__(self) -> Iterator[Block]:
        pieces, held = list[Block](), 0
        for index in range(len(self.videos)):
            pieces.append(self._read(index, pieces))
            held += len(pieces[-1][1])
            if held >= BLOCK:
                joined, rest = _join(pieces), held % BLOCK
                for start in range(0, held - rest, BLOCK):
                    yield _rows(joined, slice(start, start + BLOCK))
                pieces, held = [_rows(joined, slice(held - rest, None))], rest
        if held:
            yield _join(pieces)

    def _read(self, index: int, before: Sequence[Block]) -> Block:
        """The labelled frames of a video. before: blocks of the same width."""
        name = f"{self.part} video {index}"
        values, wanted = validate_frames(self.videos[index], name), np.asarray(self.labels[index])
        if wanted.shape != values.shape[:1] or not np.issubdtype(wanted.dtype, np.integer):
            raise InputError(
                f"{name}: {len(values)} frames need integer labels of shape ({len(values)},), not {wanted.dtype} "
                f"{wanted.shape}"
            )
        known = wanted != IGNORED
        wrong = known & ((wanted < 0) | (wanted >= self.classes))
        if wrong.any():
            frame = int(wrong.argmax())
            raise InputError(f"{name}, frame {frame}: label {wanted[frame]} is outside of 0..{self.classes - 1}")
        if before and before[0][0].shape[1] != values.shape[1]:
            widths = sorted({before[0][0].shape[1], values.shape[1]})
            raise InputError(f"{self.part} videos of different widths: {widths}")
        return values[known], wanted[known].astype(np.int64), np.full(known.sum(), index)


def thinned(blocks: Iterable[Block], stride: int) -> Block:
    """Copies of every ``stride``-th frame of all blocks."""
    kept, passed = list[Block](), 0
    for block in blocks:
        frames, targets, videos = _rows(block, slice(-passed % stride, None, stride))
        kept.append((frames.copy(), targets.copy(), videos.copy()))  # views would hold the whole block
        passed += len(block[1])
    return _join(kept)


def validate_frames(latents: Array, name: str) -> npt.NDArray[np.float32]:
    """Latents as (T, D) float32.

    Raises:
        InputError: another shape, or NaN or infinite values.
    """
    frames = np.asarray(latents, dtype=np.float32)
    if frames.ndim != 2:
        raise InputError(f"{name}: shape {frames.shape}; expected (T, D)")
    usable = np.isfinite(frames).all(axis=1)
    if not usable.all():
        raise InputError(f"{name}, frame {int((~usable).argmax())}: NaN or infinite; remove or repair this video")
    return frames


def _rows(block: Block, chosen: slice) -> Block:
    frames, targets, videos = block
    return frames[chosen], targets[chosen], videos[chosen]


def _join(blocks: Sequence[Block]) -> Block:
    frames, targets, videos = zip(*blocks, strict=True)
    return np.concatenate(frames), np.concatenate(targets), np.concatenate(videos)


def _cached(frames: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.float32]]:
    """Views of (N, D) that fit in the processor's cache."""
    return (frames[start : start + _CACHED] for start in range(0, len(frames), _CACHED))
