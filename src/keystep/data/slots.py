"""Read arrays and times of slots, and pool features, labels and times over groups of slots."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from keystep.data.annotation import IGNORED, segment_lengths
from keystep.data.timeline import Alignment
from keystep.errors import InputError
from keystep.reading import npy_header, open_npy

LEVELS = 256
"""Values of an int8."""


def open_array(path: Path, *, quantised: bool = False) -> np.ndarray:
    """Memory-map a 2-D float array.

    Args:
        path: a ``.npy`` file.
        quantised: also allow int8, which stands for floats only with a scale (`read_scale`).

    Raises:
        InputError: a missing, truncated or foreign file, another number of axes, another type, or an empty array.
    """
    return _check_array(open_npy(path), path, quantised)


def array_header(path: Path) -> np.ndarray:
    """An array with the shape and type of the 2-D float or int8 array in a file, but without its numbers.

    Raises:
        InputError: as for `open_array`.
    """
    return _check_array(npy_header(path), path, quantised=True)


def quantise(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round the features of a video to 256 levels between the least and the greatest value of each channel.

    Args:
        features: (T, D) finite floats.

    Returns:
        (T, D) int8 levels and (2, D) float32 scale, for `dequantise`. The error is at most half a step.
    """
    low, high = (extreme(axis=0).astype(np.float64) for extreme in (features.min, features.max))
    middle = ((low + high) / 2).astype(np.float32)
    step = ((high - low) / (LEVELS - 1)).astype(np.float32)
    levels = np.divide(features - low, step, out=np.zeros(features.shape), where=step > 0).round() - LEVELS // 2
    return levels.clip(-128, 127).astype(np.int8), np.stack([middle + step / 2, step])


def dequantise(levels: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The features (T, D) float32 that levels (T, D) stand for."""
    features: np.ndarray = levels * scale[1] + scale[0]
    return features


def read_scale(path: Path, width: int) -> np.ndarray:
    """Read the scale of a video's int8 levels: (2, D) float32, the value of level 0 and the step of each channel.

    Raises:
        InputError: unreadable, another type or shape, or numbers that are not finite.
    """
    scale = open_npy(path)
    if scale.dtype != np.float32 or scale.shape != (2, width) or not np.isfinite(scale).all():
        raise InputError(
            f"{path}: type {scale.dtype}, shape {scale.shape}; expected finite float32 (2, {width}), the value of "
            "level 0 and the step of each channel"
        )
    return np.array(scale)


def _check_array(array: np.ndarray, path: Path, quantised: bool) -> np.ndarray:
    if array.ndim != 2:
        raise InputError(f"{path}: shape {array.shape}; expected two axes, (T, D) or (D, T)")
    if array.dtype.kind != "f" and not (quantised and array.dtype == np.int8):
        also = ", or int8 in a feature folder with scales/" if array.dtype == np.int8 else ""
        raise InputError(f"{path}: type {array.dtype}; expected float16, float32 or float64{also}")
    if 0 in array.shape:
        raise InputError(f"{path}: an empty video, shape {array.shape}")
    return array


def read_times(path: Path, slots: int) -> np.ndarray:
    """Read the times of slots. They need not increase, because a sequence may repeat parts of a video.

    Args:
        path: a ``.npy`` file.
        slots: number of slots.

    Returns:
        (slots,) float64 seconds.

    Raises:
        InputError: unreadable, another type, shape or length, or a time that is not finite.
    """
    times = open_npy(path)
    if times.dtype != np.float64 or times.ndim != 1:
        raise InputError(
            f"{path}: type {times.dtype}, shape {times.shape}; expected float64 (T,), seconds of each slot"
        )
    if len(times) != slots:
        raise InputError(f"{path}: {len(times)} times for {slots} slots; write one per slot, or remove the file")
    finite = np.isfinite(times)
    if not finite.all():
        slot = int(finite.argmin())
        raise InputError(f"{path}: the time of slot {slot} is {times[slot]}; write seconds, or remove the file")
    return np.array(times)


def as_float32(rows: np.ndarray) -> np.ndarray:
    """Copy as float32; numbers that overflow become infinite."""
    with np.errstate(over="ignore"):
        return np.array(rows, dtype=np.float32)


def pool_mean(rows: np.ndarray, factor: int) -> np.ndarray:
    """Average groups of rows.

    Args:
        rows: (T, D) floats.
        factor: rows per group; the last group may be shorter.

    Returns:
        (ceil(T / factor), D) float32; ``rows`` itself if the factor is 1.
    """
    if factor == 1 or len(rows) == 0:
        return rows
    starts = np.arange(0, len(rows), factor)
    sums = np.add.reduceat(rows, starts, axis=0)
    sizes = np.diff(np.append(starts, len(rows)))
    means: np.ndarray = (sums / sizes[:, None]).astype(np.float32)
    return means


def pool_labels(frames: np.ndarray, factor: int, classes: int) -> np.ndarray:
    """Pool class ids by majority, (T,) -> (ceil(T / factor),); ties give the smaller id.

    Args:
        frames: (T,) class ids, `IGNORED` if unlabelled.
        factor: frames per group; the last group may be shorter.
        classes: number of classes.

    Returns:
        Class ids, `IGNORED` if no frame of the group is labelled.
    """
    if factor == 1:
        return frames
    padded = np.full(-(-len(frames) // factor) * factor, IGNORED)
    padded[: len(frames)] = frames
    groups = padded.reshape(-1, factor)
    counts = np.stack([(groups == label).sum(axis=1) for label in range(classes)], axis=1)
    majority: np.ndarray = np.where(counts.any(axis=1), counts.argmax(axis=1), IGNORED)
    return majority


def pool_times(times: np.ndarray, factor: int, alignment: Alignment) -> np.ndarray:
    """Pool the times of slots as `Timeline.pooled` does.

    Args:
        times: (T,) seconds.
        factor: slots per group; the last group may be shorter.
        alignment: of the timeline: the mean (``center``), last (``right``) or first (``left``) time of a group is used.

    Returns:
        (ceil(T / factor),) seconds.
    """
    if factor == 1 or not len(times):
        return times
    starts = np.arange(0, len(times), factor)
    stops = np.append(starts[1:], len(times))
    if alignment == "center":
        means: np.ndarray = np.add.reduceat(times, starts) / (stops - starts)
        return means
    return times[starts if alignment == "left" else stops - 1]


def lost_segments(ids: np.ndarray, kept: np.ndarray, labels: np.ndarray) -> tuple[int, int]:
    """Count labelled segments that get no slot.

    Args:
        ids: (frames,) class ids, negative if unlabelled.
        kept: (T,) the first frame of each slot.
        labels: (T,) class ids of the slots.

    Returns:
        (lost segments, all labelled segments).
    """
    starts = np.cumsum([0, *segment_lengths(ids)[:-1]])
    slots = np.searchsorted(kept, np.arange(len(ids)), side="right") - 1
    seen = np.logical_or.reduceat(labels[slots] == ids, starts)
    labelled = ids[starts] >= 0
    return int((labelled & ~seen).sum()), int(labelled.sum())


def note_lost_segments(name: str, ids: np.ndarray, kept: np.ndarray, labels: np.ndarray) -> list[str]:
    """Warn about segments of a video that get no slot.

    Args:
        name: of the video.
        ids, kept, labels: as for `lost_segments`.

    Returns:
        At most one line.
    """
    lost, total = lost_segments(ids, kept, labels)
    return [f"{name}: {lost} of {total} segments are shorter than a slot and get none"] if lost else []
