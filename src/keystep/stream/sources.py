"""Where a stream's features come from: a file, standard input, a folder that grows. Chunks come as they are there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np

from keystep.data.folder import open_array
from keystep.data.slots import pool_mean, pool_times
from keystep.errors import InputError

Format = Literal["jsonl", "float32"]
END = "END"
"""A file of this name in a growing folder says that nothing more will come."""
POLL_SECONDS = 0.1


@dataclass(frozen=True, eq=False)
class Chunk:
    """features: (n, D) float32. times: seconds of each frame, or None where the source does not know them."""

    features: np.ndarray
    times: list[float] | None = None


def from_array(path: Path, width: int, size: int) -> Iterator[Chunk]:
    """A feature file, (T, D) or (D, T), memory-mapped, ``size`` frames at a time."""
    rows = _by_frames(open_array(path), path, width)
    for start in range(0, len(rows), size):
        yield Chunk(np.array(rows[start : start + size], dtype=np.float32))


def from_lines(lines: IO[str], width: int) -> Iterator[Chunk]:
    """JSON, one frame a line: a list of numbers, or an object with ``features`` and perhaps ``time`` in seconds."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _frame(line, number, width)


def from_bytes(stream: IO[bytes], width: int) -> Iterator[Chunk]:
    """Little-endian float32, frame after frame; as many at once as have arrived."""
    size, left = 4 * width, b""
    while piece := stream.read1(1 << 16) if hasattr(stream, "read1") else stream.read(size):
        left += piece
        whole = len(left) // size * size
        if whole:
            yield Chunk(np.frombuffer(left[:whole], dtype="<f4").reshape(-1, width))
        left = left[whole:]
    if left:
        raise InputError(f"standard input ended inside a frame: {len(left)} of its {size} bytes")


def from_growing(folder: Path, width: int, idle: float) -> Iterator[Chunk]:
    """The .npy files of a folder by name, (n, D) each, and those that come; ends with a file ``END``, or after ``idle``
    seconds without a new one.

    Write them elsewhere and rename them into place: a file that cannot be read is waited for, then an error.
    """
    done = ""
    waiting_since = time.monotonic()
    while True:
        over = (folder / END).exists()  # looked at first: what came before it will still be read
        fresh = sorted(path for path in folder.glob("*.npy") if not path.name.startswith("."))
        fresh = [path for path in fresh if path.name > done]
        expired = time.monotonic() - waiting_since > idle
        for path in fresh:
            try:
                rows = np.array(_by_frames(open_array(path), path, width), dtype=np.float32)
            except InputError:
                if over or expired:
                    raise
                break  # perhaps it is still being written
            yield Chunk(rows)
            done, waiting_since = path.name, time.monotonic()
        else:
            if over or (expired and not fresh):
                return
        time.sleep(POLL_SECONDS)


def skipping(chunks: Iterator[Chunk], frames: int) -> Iterator[Chunk]:
    """Without the first ``frames`` frames, which an earlier run has seen."""
    for chunk in chunks:
        left = chunk.features[frames:]
        if len(left):
            yield Chunk(left, None if chunk.times is None else chunk.times[frames:])
        frames = max(0, frames - len(chunk.features))


def pooled(chunks: Iterator[Chunk], factor: int) -> Iterator[Chunk]:
    """Means over groups of ``factor`` frames, a group's time being its mean too; the last one may be shorter."""
    if factor == 1:
        yield from chunks
        return
    rows: list[np.ndarray] = []
    times: list[float] = []
    timed = False
    for chunk in chunks:
        rows += list(chunk.features)
        times += chunk.times or []
        timed = chunk.times is not None
        whole = len(rows) // factor * factor
        if whole:
            yield _pooled(rows[:whole], times[:whole] if timed else None, factor)
            rows, times = rows[whole:], times[whole:]
    if rows:
        yield _pooled(rows, times if timed else None, factor)


def _pooled(rows: list[np.ndarray], times: list[float] | None, factor: int) -> Chunk:
    moments = None if times is None else pool_times(np.array(times), factor, "center").tolist()
    return Chunk(pool_mean(np.stack(rows), factor), moments)


def _by_frames(array: np.ndarray, path: Path, width: int) -> np.ndarray:
    """(T, D) of an array that is that or (D, T)."""
    if array.shape[1] == width:
        if array.shape[0] == width:
            raise InputError(f"{path}: shape {array.shape} may be (T, D) or (D, T); cut it to another length")
        return array
    if array.shape[0] == width:
        return array.T
    raise InputError(f"{path}: shape {array.shape}; the model reads {width} numbers a frame")


def _frame(line: str, number: int, width: int) -> Chunk:
    try:
        record = json.loads(line)
        values = record["features"] if isinstance(record, dict) else record
        moment = record.get("time") if isinstance(record, dict) else None
        features = np.array(values, dtype=np.float32)
        times = None if moment is None else [float(moment)]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"standard input, line {number}: not a list of numbers or an object with features: {line.strip()[:60]!r}"
        ) from error
    if features.shape != (width,):
        raise InputError(
            f"standard input, line {number}: {features.size} numbers in shape {features.shape}; the model reads {width}"
        )
    return Chunk(features[None], times)
