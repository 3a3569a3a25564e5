"""What loaders of downloaded trees share: arrays of either orientation, and timed segments as labels of slots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from keystep.data.annotation import UNLABELLED
from keystep.data.problems import Problems
from keystep.datasets.survey import Looking
from keystep.errors import InputError, quoted
from keystep.reading import open_npy

Array = npt.NDArray[Any]
Axis = Literal[0, 1]

MOST_BEYOND = 0.25
"""Share of a video's segments that may lie behind its features; with more, the rate is taken to be wrong."""
ROUNDING = 1e-6
"""Seconds: annotations and times are decimals, and a time this near to a bound is the bound."""


class TimedSegment(NamedTuple):
    """A stretch of a video with one class name, in seconds from the video's start."""

    start: float
    end: float
    name: str


def open_features(path: Path) -> Array:
    """The two axes of a ``.npy`` array or of the one tensor in a ``.pt`` file (no code is run), left on disk.

    Raises:
        InputError: damaged, another number of axes, no floats, or empty.
    """
    if path.suffix == ".pt":
        from keystep.interop.official.reading import read_tensor

        tensor = read_tensor(path)
        array = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    else:
        array = open_npy(path)
    if array.ndim == 3 and 1 in array.shape[:2]:  # some extractors leave the axis of the camera or of the batch
        array = array.squeeze(0 if array.shape[0] == 1 else 1)
    if array.ndim != 2 or array.dtype.kind != "f" or not array.size:
        raise InputError(
            f"{path}: shape {array.shape}, type {array.dtype}; expected floats with two axes, (T, D) or (D, T)"
        )
    return array


def measure(paths: Mapping[str, Path], problems: Problems) -> dict[Path, tuple[int, ...]]:
    """Array -> its shape, of videos' arrays; a damaged one goes through ``problems``."""
    quiet = without_progress(problems)
    found = {path: quiet.attempt(name, lambda path=path: open_features(path).shape) for name, path in paths.items()}  # type: ignore[misc]
    return {path: shape for path, shape in found.items() if shape is not None}


def without_progress(problems: Problems) -> Problems:
    """The same lists, for looking at all videos before the work on each begins, which alone is progress."""
    return problems if isinstance(problems, Looking) else Problems(problems.on_error, problems.skipped, problems.notes)


def time_axis(shapes: Mapping[Path, tuple[int, ...]]) -> Axis:
    """The axis that is time, without labels to go by: widths agree over videos and lengths do not.

    Raises:
        InputError: neither axis has one length in all arrays but one, or both have.
    """
    first, shape = next(iter(shapes.items()))

    def agreeing(axis: int) -> int:
        return Counter(shape[axis] for shape in shapes.values()).most_common(1)[0][1]

    agree = agreeing(0), agreeing(1)
    if agree[0] == agree[1]:
        raise InputError(
            f"{first}: cannot tell time from width in shape {tuple(shape)} (of {len(shapes)} arrays); set time_axis "
            "to 0 for (T, D) arrays, to 1 for (D, T)"
        )
    return 0 if agree[1] > agree[0] else 1


def slot_range(times: Array, start: float, end: float) -> tuple[int, int]:
    """(first slot, last slot + 1) with start <= time < end; the slots may be none. times: (T,) seconds, rising."""
    first, stop = np.searchsorted(times + ROUNDING, [start, end], side="left").tolist()
    return first, max(first, stop)


class SlotLabels(NamedTuple):
    """What segments say of slots.

    labels: T class names. claimed: slots that two segments claim. lost: segments without any slot. beyond: those of
    them that begin behind the last slot.
    """

    labels: list[str]
    claimed: int
    lost: int
    beyond: int


def label_slots(times: Array, segments: Sequence[TimedSegment], between: str = UNLABELLED) -> SlotLabels:
    """The class name of each slot; where two segments claim one, that which begins later wins.

    Args:
        times: (T,) seconds of the slots, rising.
        between: the label of slots that no segment covers.
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
    """A line for segments that get no slot.

    Args:
        total: segments of the video.
        times: of its slots.
        setting: what says the rate of the features.

    Raises:
        InputError: so many segments begin behind the last slot that the rate is probably wrong.
    """
    if not found.lost:
        return []
    line = f"{name}: {found.lost} of {total} segments get no slot"
    if found.beyond:
        line += f", {found.beyond} of them begin behind the last one at {times[-1]:.1f} s"
    if found.beyond > MOST_BEYOND * total:
        raise InputError(f"{line}; is {setting} right?")
    return [line]


def kept_slots(slots: int, step: float) -> npt.NDArray[np.int64]:
    """Indices of every ``step``-th of the slots, rounded down where a step is no whole number of them.

    10 Hz thinned to 4 Hz (a step of 2.5) keeps 0, 2, 5, 7, 10, ...: times 0.2 and 0.3 s apart in turn, as in the
    P-JEPA authors' archive of these features.
    """
    index = np.floor(np.arange(int(slots / step) + 1) * step + ROUNDING).astype(np.int64)
    kept: npt.NDArray[np.int64] = index[index < slots]
    return kept


def positive_seconds(path: Path, where: str, start: object, end: object) -> tuple[float, float]:
    """A segment's bounds as numbers.

    Raises:
        InputError: not finite numbers, or an end before its start.
    """
    try:
        bounds = float(start), float(end)  # type: ignore[arg-type]  # what is no number raises
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}, {where}: {quoted(start)} to {quoted(end)} are no seconds") from error
    if not np.isfinite(bounds).all() or bounds[0] < 0 or bounds[1] < bounds[0]:
        raise InputError(f"{path}, {where}: a segment from {bounds[0]:g} to {bounds[1]:g} s; correct the file")
    return bounds
