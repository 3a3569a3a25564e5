"""Sources of features for a stream: a file, standard input, or a folder that grows."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Literal

import numpy as np

from keystep.data.slots import as_float32, open_array, pool_mean, pool_times
from keystep.data.timeline import Alignment
from keystep.errors import InputError, quoted
from keystep.reading import Record, checked, parse_json

Format = Literal["jsonl", "float32"]
END = "END"
"""A file of this name in a growing folder ends the stream."""
POLL_SECONDS = 0.1
MOST_LETTERS = 64
"""Maximum number of characters per number of a line."""
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class Chunk:
    """Consecutive frames.

    Attributes:
        features: (n, D) float32.
        times: seconds of each frame. None: unknown to the source.
        place: position of the source after these frames, from which `from_growing` continues. None: other sources.
        partial: whether this is the last, incomplete group of a pooled source.
        seconds: time that extracting the features took, if they were extracted here.
    """

    features: np.ndarray
    times: list[float] | None = None
    place: str | None = None
    partial: bool = False
    seconds: float = 0.0


def from_array(path: Path, width: int, size: int) -> Iterator[Chunk]:
    """Read a feature file, memory-mapped.

    Args:
        path: a ``.npy`` array, (T, D) or (D, T).
        width: D.
        size: frames per chunk.

    Raises:
        InputError: unreadable, or another width.
    """
    rows = _frames_first(open_array(path), path, width)
    for start in range(0, len(rows), size):
        yield Chunk(as_float32(rows[start : start + size]))


def from_lines(lines: IO[str], width: int) -> Iterator[Chunk]:
    """Read JSON lines, one frame each: a list of numbers, or an object with ``features`` and optionally ``time``.

    Args:
        lines: text stream.
        width: D.

    Raises:
        InputError: an invalid or too long line, or invalid UTF-8, with the number of the line.
    """
    longest, number = 1024 + MOST_LETTERS * width, 0
    while line := _next_line(lines, longest, number + 1):
        number += 1
        text = line.removeprefix("\ufeff") if number == 1 else line
        if text.strip():
            yield _parse_frame(text, number, width)


def _next_line(lines: IO[str], longest: int, number: int) -> str:
    try:
        line = lines.readline(longest + 1)
    except UnicodeDecodeError as error:
        raise InputError(f"standard input, line {number} or after it: not UTF-8 text") from error
    if len(line) > longest:
        raise InputError(f"standard input, line {number}: more than {longest:,} characters; write one frame per line")
    return line


def from_bytes(stream: IO[bytes], width: int) -> Iterator[Chunk]:
    """Read little-endian float32 frames, as many at once as have arrived.

    Args:
        stream: binary stream.
        width: D.

    Raises:
        InputError: the stream ends within a frame.
    """
    size, left = 4 * width, b""
    while piece := stream.read1(1 << 16) if hasattr(stream, "read1") else stream.read(size):
        left += piece
        whole = len(left) // size * size
        if whole:
            yield Chunk(np.frombuffer(left[:whole], dtype="<f4").reshape(-1, width).astype(np.float32))
        left = left[whole:]
    if left:
        raise InputError(f"standard input ended inside a frame: {len(left)} of its {size} bytes")


def from_growing(folder: Path, width: int, idle: float, after: str | None = None) -> Iterator[Chunk]:
    """Read the .npy files of a folder, (n, D) each, in natural order (2 before 10), and wait for new ones.

    Ends with a file ``END``, or after ``idle`` seconds without a new file. Files should be written elsewhere and moved
    into the folder: an unreadable file is retried until the end. Files that were read may be removed.

    Args:
        folder: to watch.
        width: D.
        idle: seconds.
        after: name of the last file that an earlier run has read.

    Raises:
        InputError: an invalid file, or one whose name sorts before a file that was already read.
    """
    last, seen = after, {name for name in _names(folder) if after is not None and _natural(name) <= _natural(after)}
    waiting_since = time.monotonic()
    while True:
        over = (folder / END).exists()  # checked first, so that all files before it are read
        expired = time.monotonic() - waiting_since > idle
        fresh = _new_files(folder, seen, last)
        for name in fresh:
            path = folder / name
            try:
                rows = _check_rows(open_array(path), path, width)
            except InputError:
                if over or expired:
                    raise
                break  # may still be written
            yield Chunk(rows, place=name)
            last, waiting_since = name, time.monotonic()
            seen.add(name)
        else:
            if over or (expired and not fresh):
                return
        time.sleep(POLL_SECONDS)


def _new_files(folder: Path, seen: set[str], last: str | None) -> list[str]:
    """Names of the files to read next, in order."""
    names = _names(folder)
    seen &= names  # forget removed files
    fresh = sorted(names - seen, key=_natural)
    if fresh and last is not None and _natural(fresh[0]) <= _natural(last):
        raise InputError(f"{folder / fresh[0]}: came after {last}, which sorts after it; file names have to ascend")
    return fresh


def _names(folder: Path) -> set[str]:
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.name.endswith(".npy") and not entry.name.startswith(".")}


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that compares numbers in names by value."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _check_rows(array: np.ndarray, path: Path, width: int) -> np.ndarray:
    if array.shape[1] != width:
        raise InputError(f"{path}: shape {array.shape}; expected (n, {width}), one row per frame")
    return as_float32(array)


def skip_frames(chunks: Iterator[Chunk], frames: int) -> Iterator[Chunk]:
    """Drop the first ``frames`` frames, which an earlier run has processed."""
    for chunk in chunks:
        left = chunk.features[frames:]
        if len(left):
            yield replace(chunk, features=left, times=None if chunk.times is None else chunk.times[frames:])
        frames = max(0, frames - len(chunk.features))


def pool_chunks(chunks: Iterator[Chunk], factor: int, alignment: Alignment = "center") -> Iterator[Chunk]:
    """Average groups of ``factor`` frames; the last group may be shorter.

    The time of a group is that of `Timeline.pooled`, also for a shorter group, as offline.

    Args:
        chunks: of the source.
        factor: frames per group.
        alignment: of the source's timeline.

    Raises:
        InputError: some frames have a time and some do not.
    """
    if factor == 1:
        yield from chunks
        return
    rest: Chunk | None = None
    first, time = 0.0, None  # of the last whole group: its first frame's time, and its own
    for chunk in chunks:
        joined = chunk if rest is None else _join(rest, chunk)
        whole = len(joined.features) // factor * factor
        if whole:
            done = _pool(joined, slice(0, whole), factor, alignment)
            if joined.times is not None and done.times is not None:
                first, time = joined.times[whole - factor], done.times[-1]
            yield done
        rest = replace(
            joined,
            features=joined.features[whole:],
            times=None if joined.times is None else joined.times[whole:],
            seconds=0.0 if whole else joined.seconds,
        )
    if rest is not None and len(rest.features):
        last = _pool(rest, slice(None), factor, alignment)
        if time is not None and rest.times is not None:
            last = replace(last, times=[time + rest.times[0] - first])
        yield replace(last, partial=True)


def _join(first: Chunk, second: Chunk) -> Chunk:
    if not len(first.features):
        return second
    if (first.times is None) != (second.times is None):
        raise InputError("some frames have a time and some do not; give times for all or none")
    times = None if first.times is None or second.times is None else first.times + second.times
    features, seconds = np.concatenate([first.features, second.features]), first.seconds + second.seconds
    return replace(second, features=features, times=times, seconds=seconds)


def _pool(chunk: Chunk, span: slice, factor: int, alignment: Alignment) -> Chunk:
    times = None if chunk.times is None else pool_times(np.array(chunk.times[span]), factor, alignment).tolist()
    return replace(chunk, features=pool_mean(chunk.features[span], factor), times=times)


def _frames_first(array: np.ndarray, path: Path, width: int) -> np.ndarray:
    """(T, D) from an array that is (T, D) or (D, T)."""
    if array.shape[1] == width:
        if array.shape[0] == width:
            raise InputError(f"{path}: shape {array.shape} may be (T, D) or (D, T); cut it to another length")
        return array
    if array.shape[0] == width:
        return array.T
    raise InputError(f"{path}: shape {array.shape}; the model expects {width} numbers per frame")


class _FrameRecord(Record):
    """Schema of a line of standard input."""

    features: list[float]
    time: float | None = None


def _parse_frame(line: str, number: int, width: int) -> Chunk:
    where = f"standard input, line {number}"
    try:
        record = parse_json(line)
        found = checked(_FrameRecord, record if isinstance(record, dict) else {"features": record}, where)
    except ValueError as error:
        reason = str(error).removeprefix(f"{where}: ")
        raise InputError(
            f"{where}: not a list of numbers or an object with features: {quoted(line.strip(), 60)}: {reason}"
        ) from error
    if len(found.features) != width:
        count = len(found.features)
        raise InputError(f"{where}: {count} numbers in shape ({count},); the model expects {width}")
    largest = max(map(abs, found.features))
    if largest > LARGEST:
        raise InputError(f"{where}: the number {largest:g} is too large for a feature; check the features")
    return Chunk(np.array([found.features], dtype=np.float32), None if found.time is None else [found.time])
