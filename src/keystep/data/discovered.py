"""Segments that were found without labels, as `keystep segment` writes them.

::

    segmenter.json    how they were found: settings, fitted numbers, rate, look-ahead, the data they were fitted on
    <video>.txt       one segment length a line, in slots at that rate
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from keystep.data.annotation import read_segments, segment_lengths
from keystep.data.timeline import parse_rate
from keystep.errors import InputError
from keystep.files import check_ours, read_json, replacing, write_json, write_lines

Boundaries = Literal["true", "discovered"]
"""Whose segments: those of the annotation (ORACLE), or those found without labels."""
SEGMENTER = "segmenter.json"
FORMAT, FORMAT_VERSION = "keystep-segmenter", 1


@dataclass(frozen=True)
class Discovered:
    """The segments of a folder's videos.

    rate: slots a second. look_ahead: slots after a segment's first one that were seen before it began.
    fitted_on: the videos that the segmenter was fitted on, without labels.
    """

    root: Path
    rate: Fraction
    look_ahead: int
    fitted_on: tuple[str, ...]
    videos: Mapping[str, tuple[int, ...]]
    signature: str
    """SHA-256 over the segments and how they were found."""

    def lengths(self, video: str, start: int = 0, stop: int | None = None) -> list[int]:
        """Lengths of the segments in slots ``start`` to ``stop`` of a video."""
        if video not in self.videos:
            raise InputError(f"{self.root}: no {video}.txt; run 'keystep segment' on all videos that are used")
        lengths = self.videos[video]
        return segment_lengths(np.repeat(np.arange(len(lengths)), lengths)[start:stop])

    def delay(self, videos: Sequence[str]) -> float:
        """Seconds until a frame of these videos is final, at most: the longest segment, and what is seen beyond it."""
        longest = max(max(self.lengths(video)) for video in videos)
        return float((longest + self.look_ahead) / self.rate)


def check_free(root: Path, videos: Sequence[str]) -> None:
    """Refuse a folder that holds anything but boundaries of these videos, which would be lost."""
    check_ours(root, _names(videos))


def write_boundaries(
    root: Path, videos: Mapping[str, Sequence[int]], record: Mapping[str, Any], known: Sequence[str] = ()
) -> None:
    """Write a whole folder, or nothing; one of these videos, or of others that are ``known``, is replaced."""
    with replacing(root, _names([*videos, *known])) as temporary:
        temporary.mkdir()
        for video, lengths in videos.items():
            write_lines(temporary / f"{video}.txt", lengths)
        write_json(temporary / SEGMENTER, {"format": FORMAT, "version": FORMAT_VERSION, **record})


def read_record(path: Path) -> dict[str, Any]:
    """How boundaries were found, from a ``segmenter.json``.

    Raises:
        InputError: no such file, another format or version.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file; 'keystep segment' writes folders of discovered boundaries")
    record = read_json(path)
    if record.get("format") != FORMAT or record.get("version") != FORMAT_VERSION:
        raise InputError(f"{path}: not a segmenter of format {FORMAT} {FORMAT_VERSION}")
    return record


def read_boundaries(root: Path, rate: Fraction, slots: Mapping[str, int]) -> Discovered:
    """The segments of those of the videos (name -> slots at ``rate``) that the folder has.

    Raises:
        InputError: no such folder, another rate, or lengths that do not sum to a video's slots.
    """
    record = read_record(root / SEGMENTER)
    try:
        own, look_ahead = parse_rate(record["rate"]), int(record["look_ahead_slots"])
        fitted_on = tuple(record["fitted_on"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{root / SEGMENTER}: damaged: {error!r}; run 'keystep segment' again") from error
    if own != rate:
        raise InputError(f"{root}: boundaries at {own} Hz do not fit features at {rate} Hz; give --rate {own}")
    videos = {name: _lengths(root / f"{name}.txt", count) for name, count in slots.items() if _has(root, name)}
    digest = hashlib.sha256(repr([sorted(record.items(), key=str), sorted(videos.items())]).encode())
    return Discovered(root, own, look_ahead, fitted_on, videos, digest.hexdigest())


def _names(videos: Sequence[str]) -> set[str]:
    return {SEGMENTER, *(f"{video}.txt" for video in videos)}


def _has(root: Path, video: str) -> bool:
    return (root / f"{video}.txt").exists()


def _lengths(path: Path, slots: int) -> tuple[int, ...]:
    return tuple(int(length) for length in np.bincount(read_segments(path, slots)))
