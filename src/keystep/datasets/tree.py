"""Common functions of the data sets: arrays of either orientation, and labels of slots from timed segments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from keystep.data.annotation import UNLABELLED
from keystep.data.problems import Problems
from keystep.datasets.survey import SurveyProblems
from keystep.errors import InputError, quoted
from keystep.files import write_lines
from keystep.reading import open_npy

Array = npt.NDArray[Any]
Axis = Literal[0, 1]

MOST_BEYOND = 0.25
"""Maximum share of a video's segments after the end of its features; with more, the rate is considered wrong."""
ROUNDING = 1e-6
"""Tolerance in seconds for decimal rounding of annotations and times."""


class TimedSegment(NamedTuple):
    """An interval of a video with one class name, in seconds from the start of the video."""

    start: float
    end: float
    name: str


def open_features(path: Path) -> Array:
    """Open a 2-D ``.npy`` array, memory-mapped, or the only tensor of a ``.pt`` file, without running code.

    Raises:
        InputError: damaged, another number of axes, another type, or empty.
    """
    if path.suffix == ".pt":
        from keystep.interop.official.reading import read_tensor

        tensor = read_tensor(path)
        array = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    else:
        array = open_npy(path)
    if array.ndim == 3 and 1 in array.shape[:2]:  # some extractors keep the camera or batch axis
        array = array.squeeze(0 if array.shape[0] == 1 else 1)
    if array.ndim != 2 or array.dtype.kind != "f" or not array.size:
        raise InputError(
            f"{path}: shape {array.shape}, type {array.dtype}; expected floats with two axes, (T, D) or (D, T)"
        )
    return array


def measure(paths: Mapping[str, Path], problems: Problems) -> dict[Path, tuple[int, ...]]:
    """Read the shapes of arrays.

    Args:
        paths: video -> its array.
        problems: collects damaged arrays, by the name of the video.

    Returns:
        Array -> shape, without damaged ones.

    Raises:
        InputError: a damaged array (unless skipped).
    """
    quiet = without_progress(problems)
    found = {path: quiet.attempt(name, lambda path=path: open_features(path).shape) for name, path in paths.items()}  # type: ignore[misc]
    return {path: shape for path, shape in found.items() if shape is not None}


def without_progress(problems: Problems) -> Problems:
    """The same collection without progress reports, for checks before the conversion."""
    return (
        problems
        if isinstance(problems, SurveyProblems)
        else Problems(problems.on_error, problems.skipped, problems.notes)
    )


def time_axis(shapes: Mapping[Path, tuple[int, ...]]) -> Axis:
    """Determine the time axis from shapes: widths are equal over videos, lengths are not.

    Args:
        shapes: array -> shape.

    Raises:
        InputError: both axes vary equally often.
    """
    first, shape = next(iter(shapes.items()))

    def agreeing(axis: int) -> int:
        return Counter(shape[axis] for shape in shapes.values()).most_common(1)[0][1]

    agree = agreeing(0), agreeing(1)
    if agree[0] == agree[1]:
        raise InputError(
            f"{first}: cannot distinguish time from width in shape {tuple(shape)} (of {len(shapes)} arrays); set "
            "time_axis to 0 for (T, D) arrays, to 1 for (D, T)"
        )
    return 0 if agree[1] > agree[0] else 1


def slot_range(times: Array, start: float, end: float) -> tuple[int, int]:
    """(first slot, last slot + 1) with start <= time < end, possibly empty. times: (T,) seconds, ascending."""
    first, stop = np.searchsorted(times + ROUNDING, [start, end], side="left").tolist()
    return first, max(first, stop)


class SlotLabels(NamedTuple):
    """Labels of slots.

    Attributes:
        labels: T class names.
        claimed: number of slots in several segments.
        lost: number of segments without a slot.
        beyond: number of these that start after the last slot.
    """

    labels: list[str]
    claimed: int
    lost: int
    beyond: int


def label_slots(times: Array, segments: Sequence[TimedSegment], between: str = UNLABELLED) -> SlotLabels:
    """Label slots by timed segments; of several segments, the one that starts later is used.

    Args:
        times: (T,) seconds of the slots, ascending.
        segments: of the video.
        between: label of slots outside of all segments.
    """
    labels, claims = np.full(len(times), between, dtype=object), np.zeros(len(times), dtype=np.int64)
    owners, beyond = np.full(len(times), -1), 0
    for number, segment in enumerate(sorted(segments, key=lambda segment: (segment.start, segment.end))):
        first, stop = slot_range(times, segment.start, segment.end)
        labels[first:stop] = segment.name
        claims[first:stop] += 1
        owners[first:stop] = number
        beyond += first == len(times)
    lost = len(segments) - len(np.unique(owners[owners >= 0]))
    return SlotLabels(labels.tolist(), int((claims > 1).sum()), lost, beyond)


def check_covered(name: str, found: SlotLabels, total: int, times: Array, setting: str) -> list[str]:
    """Warning about segments without a slot.

    Args:
        name: of the video.
        found: its labels.
        total: number of its segments.
        times: (T,) seconds of its slots.
        setting: name of the setting of the rate.

    Returns:
        At most one line.

    Raises:
        InputError: more than `MOST_BEYOND` of the segments start after the last slot, so that the rate must be wrong.
    """
    if not found.lost:
        return []
    line = f"{name}: {found.lost} of {total} segments get no slot"
    if found.beyond:
        line += f", {found.beyond} of them start after the last one at {times[-1]:.1f} s"
    if found.beyond > MOST_BEYOND * total:
        raise InputError(f"{line}; check {setting}")
    return [line]


def thin_slots(slots: int, step: float) -> npt.NDArray[np.int64]:
    """Indices of every ``step``-th slot, rounded down.

    From 10 Hz to 4 Hz (a step of 2.5), it keeps 0, 2, 5, 7, 10, ..., alternately 0.2 and 0.3 s apart, as in the archive
    of P-JEPA's authors.

    Args:
        slots: number of slots.
        step: slots per kept slot, at least 1.
    """
    index = np.floor(np.arange(int(slots / step) + 1) * step + ROUNDING).astype(np.int64)
    kept: npt.NDArray[np.int64] = index[index < slots]
    return kept


def positive_seconds(path: Path, where: str, start: object, end: object) -> tuple[float, float]:
    """Parse the bounds of a segment in seconds.

    Args:
        path, where: file and place, for messages.
        start, end: the bounds.

    Raises:
        InputError: not finite, negative, or an end before the start.
    """
    try:
        bounds = float(start), float(end)  # type: ignore[arg-type]  # what is no number raises
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}, {where}: {quoted(start)} to {quoted(end)} are not seconds") from error
    if not np.isfinite(bounds).all() or bounds[0] < 0 or bounds[1] < bounds[0]:
        raise InputError(f"{path}, {where}: a segment from {bounds[0]:g} to {bounds[1]:g} s; correct the file")
    return bounds


def write_splits(out: Path, splits: Mapping[str, Mapping[str, Sequence[str]]], problems: Problems) -> None:
    """Write bundles of the written videos; a split without training or test videos gives a note instead."""
    for name, parts in splits.items():
        usable = {
            part: [video for video in videos if (out / "features" / f"{video}.npy").exists()]
            for part, videos in parts.items()
        }
        if not (usable.get("train") and usable.get("test")):
            problems.notes.append(f"split {name} is not written: it lacks videos to train on or to test on")
            continue
        for part, videos in usable.items():
            write_lines(out / "splits" / f"{part}.split{name}.bundle", videos)
