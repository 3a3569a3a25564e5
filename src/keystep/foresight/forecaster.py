"""The forecaster: linear read-outs of frozen representations for what comes next and how long it takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from scipy.special import softmax

from keystep.config.model import MOST_INPUTS
from keystep.errors import InputError
from keystep.foresight.clock import Clock
from keystep.foresight.targets import Floats
from keystep.heads.config import MOST_CLASSES
from keystep.persistence import check_fit, check_format, load_tensors, read_metadata, save_tensors, shapes_of
from keystep.reading import Record, checked, parse_json, read_header

FORMAT = "keystep-forecaster"
FORMAT_VERSION = "1"
TIMES = ("start", "remaining", "progress")
"""Read-outs with a number instead of a step: seconds until the next step, seconds left, share that is over."""
INTERVAL = 0.9
"""Nominal coverage of the intervals."""

Weights = npt.NDArray[np.float32]
Positive = Annotated[float, Field(gt=0)]


class Interval(NamedTuple):
    """Forecasts of a number with their interval, (T,) each."""

    expected: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True, eq=False)
class Forecast:
    """What is foreseen at T consecutive slots.

    Attributes:
        now: (T, C) probability of the current step.
        later: (H, T, C + 1) of the step at each horizon; the last column says that the video is over by then.
        following: (T, C + 1) of the next step; the last column says that there is none.
        start: seconds until the next step, or until the end.
        remaining: seconds left.
        progress: share of the video that is over, 0 to 1.
    """

    now: Floats
    later: Floats
    following: Floats
    start: Interval
    remaining: Interval
    progress: Interval

    def __len__(self) -> int:
        return len(self.now)

    def at(self, index: int) -> Forecast:
        """What is foreseen at one of the slots."""
        one = slice(index, index + 1)
        times = (Interval(*(values[one] for values in each)) for each in (self.start, self.remaining, self.progress))
        return Forecast(self.now[one], self.later[:, one], self.following[one], *times)


class _ForecasterRecord(Record):
    """Schema of the header of a forecaster's file."""

    width: Annotated[int, Field(ge=1, le=MOST_INPUTS)]
    names: Annotated[list[str], Field(min_length=1, max_length=MOST_CLASSES)]
    horizons: Annotated[list[Positive], Field(min_length=1, max_length=100)]
    rate: Positive
    scales: Annotated[list[Positive], Field(min_length=2, max_length=2)]
    origin: dict[str, str]


@dataclass(frozen=True, eq=False)
class Forecaster:
    """Reads the future off a frozen representation (T, D) and the elapsed time.

    Steps at a horizon are a mixture of a linear read-out and of what training videos do after the current step. The
    read-outs of times correct what the clock (remaining, progress) or the current step (start) says alone. `keystep
    eval --task anticipate` fits and saves it.

    Attributes:
        names: class names by id.
        horizons: seconds.
        rate: slots per second.
        clock: durations of the training videos.
        weight, bias: of all read-outs, (D + 3, K) and (K,): the current step, C; the step at each horizon and the next
            step, C + 1 each; `TIMES`, 1 each.
        usual: (H + 1, C, C + 1) distribution at each horizon, and of the next step, after each current step.
        trust: (H + 1,) share of the read-outs in the mixtures.
        waits: (C,) mean of the transformed time until the next step, by current step.
        scales: seconds; times x are read out as log(1 + x / scale), for start and remaining.
        margins: (3, 2) residuals of `TIMES` between which `INTERVAL` of the validation slots are.
        origin: the model and data that it has to be used with, as `keystep.heads.Head.origin`.
    """

    names: tuple[str, ...]
    horizons: tuple[float, ...]
    rate: float
    clock: Clock
    weight: Weights
    bias: Weights
    usual: Floats
    trust: Floats
    waits: Floats
    scales: tuple[float, float]
    margins: Floats
    origin: Mapping[str, str] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """Width D of the representation."""
        return len(self.weight) - Clock.width

    def forecast(self, frames: npt.NDArray[np.float32], first: int = 0) -> Forecast:
        """Forecast at consecutive slots.

        Args:
            frames: (T, D).
            first: number of slots of the video before them.

        Raises:
            InputError: another shape.
        """
        if frames.ndim != 2 or frames.shape[1] != self.width:
            raise InputError(f"latents have shape {frames.shape}; this forecaster reads (T, {self.width})")
        elapsed = (first + np.arange(len(frames))) / self.rate
        inputs = with_clock(frames, self.clock, elapsed)
        raw = np.asarray(inputs @ self.weight + self.bias, np.float64)
        steps, times = raw[:, : -len(TIMES)], raw[:, -len(TIMES) :]
        classes = len(self.names)
        now = softmax(steps[:, :classes], axis=1)
        outcomes = steps[:, classes:].reshape(len(frames), len(self.horizons) + 1, classes + 1)
        read = softmax(outcomes, axis=2).transpose(1, 0, 2)
        trust = self.trust[:, None, None]
        mixed = trust * read + (1 - trust) * (now @ self.usual)
        usual = usual_times(now, elapsed, self.clock, self.waits, self.scales)
        expected, low, high = (
            plain_times(times + usual + shift, self.scales, self.rate) for shift in (0, *self.margins.T)
        )
        intervals = (Interval(expected[:, place], low[:, place], high[:, place]) for place in range(len(TIMES)))
        return Forecast(now, mixed[:-1], mixed[-1], *intervals)

    def records(self, forecast: Forecast) -> list[dict[str, Any]]:
        """One dict for each slot of a forecast, of plain values with names of steps; None where the video is over."""
        names = [*self.names, None]
        return [
            {
                "next": names[int(one.following.argmax())],
                "probability": round(float(one.following.max()), 4),
                "starts_in": round(float(one.start.expected[0]), 2),
                "later": {
                    f"{horizon:g}": names[int(scores.argmax())]
                    for horizon, scores in zip(self.horizons, one.later, strict=True)
                },
                "remaining": round(float(one.remaining.expected[0]), 2),
                "remaining_interval": [round(float(end[0]), 2) for end in one.remaining[1:]],
                "progress": round(float(one.progress.expected[0]), 4),
            }
            for one in map(forecast.at, range(len(forecast)))
        ]

    def save(self, path: Path | str) -> None:
        """Write one safetensors file, atomically; `load_forecaster` reads it.

        Raises:
            InputError: the file cannot be written.
        """
        record = {
            "width": self.width,
            "names": self.names,
            "horizons": self.horizons,
            "rate": self.rate,
            "scales": self.scales,
            "origin": dict(self.origin),
        }
        arrays = {"durations": self.clock.durations, **{name: getattr(self, name) for name in _ARRAYS}}
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        header = {"format": FORMAT, "version": FORMAT_VERSION, "forecaster": json.dumps(record)}
        save_tensors(Path(path), tensors, header)


_ARRAYS = ("weight", "bias", "usual", "trust", "waits", "margins")
_TYPES = {"weight": torch.float32, "bias": torch.float32}


def with_clock(frames: npt.NDArray[np.float32], clock: Clock, elapsed: Floats) -> npt.NDArray[np.float32]:
    """(T, D + 3): a representation and the columns of the clock."""
    return np.concatenate([frames, clock.columns(elapsed)], axis=1, dtype=np.float32)


def transformed(times: Floats, scales: tuple[float, float]) -> Floats:
    """`TIMES` (N, 3) as they are read out: log(1 + seconds / scale), and the progress as it is."""
    return np.concatenate([np.log1p(times[:, :2] / scales), times[:, 2:]], axis=1)


def plain_times(values: Floats, scales: tuple[float, float], rate: float) -> Floats:
    """Inverse of `transformed`; the next step starts a slot later at the earliest, and progress is 0 to 1."""
    seconds = np.array(scales) * np.expm1(np.minimum(values[:, :2], 50.0))
    return np.concatenate([np.maximum(seconds, (1 / rate, 0.0)), values[:, 2:].clip(0, 1)], axis=1)


def usual_times(now: Floats, elapsed: Floats, clock: Clock, waits: Floats, scales: tuple[float, float]) -> Floats:
    """(N, 3) transformed `TIMES` that follow from the probabilities of the current step (N, C) and the elapsed time."""
    remaining = np.log1p(clock.remaining(elapsed) / scales[1])
    return np.stack([now @ waits, remaining, clock.progress(elapsed)], axis=1)


def read_out_widths(classes: int, horizons: Sequence[float]) -> list[int]:
    """Columns of each read-out of steps: now, the horizons, the next step."""
    return [classes, *[classes + 1] * (len(horizons) + 1)]


def load_forecaster(path: Path | str) -> Forecaster:
    """Load a forecaster that `Forecaster.save` wrote.

    Raises:
        InputError: a missing or damaged file, another format or version, or numbers that do not fit together.
    """
    path = Path(path)
    header = read_metadata(path)
    check_format(path, header, FORMAT, FORMAT_VERSION, "a forecaster that keystep wrote")
    try:
        record = checked(_ForecasterRecord, parse_json(header.get("forecaster", "null")), "forecaster")
    except ValueError as error:
        raise InputError(f"{path}: its record is damaged: {error}") from error
    classes, horizons, videos = len(record.names), len(record.horizons), read_header(path).shapes.get("durations", ())
    columns = sum(read_out_widths(classes, record.horizons)) + len(TIMES)
    wanted: dict[str, tuple[int, ...]] = {
        "durations": videos if len(videos) == 1 and videos[0] else (1,),
        "weight": (record.width + Clock.width, columns),
        "bias": (columns,),
        "usual": (horizons + 1, classes, classes + 1),
        "trust": (horizons + 1,),
        "waits": (classes,),
        "margins": (len(TIMES), 2),
    }
    check_fit(wanted, read_header(path).shapes, str(path))
    tensors = load_tensors(path, hashed=True)
    check_fit(wanted, shapes_of(tensors), str(path))
    arrays = {name: tensor.to(_TYPES.get(name, torch.float64)).numpy() for name, tensor in tensors.items()}
    durations = arrays["durations"]
    if (
        not all(np.isfinite(array).all() for array in arrays.values())
        or durations[0] <= 0
        or np.diff(durations).min(initial=0) < 0
    ):
        raise InputError(f"{path}: damaged: NaN or infinite numbers, or durations that are not positive and sorted")
    scales = (record.scales[0], record.scales[1])
    rest = {name: arrays[name] for name in _ARRAYS}
    clock = Clock(durations)
    return Forecaster(
        tuple(record.names), tuple(record.horizons), record.rate, clock, scales=scales, origin=record.origin, **rest
    )
