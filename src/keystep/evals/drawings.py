"""The drawings of a report as numbers and text for its templates: ribbons, similarity maps, bars and intervals.

Lengths are in percent of the available width, so that drawings adapt to phones, dark mode and print.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib import colormaps
from matplotlib.image import imsave

from keystep.evals.headline import interval, main_rows
from keystep.evals.palette import Palette, ink_on
from keystep.evals.pictures import Arrays, arrays_at, headline_lines, legend, predictions, share_right
from keystep.evals.table import MODES, Result, is_oracle, sections
from keystep.terminal import clock

MOST_SEGMENTS = 240
"""Ribbons with more segments are drawn as bitmaps of at most `MOST_COLUMNS` columns."""
MOST_COLUMNS = 1200
ROOM = 1.9
"""Percent of a ribbon's length that one digit needs on a phone."""


@dataclass(frozen=True)
class Piece:
    """A segment in one colour. number: its class id, if there is space for it."""

    left: float
    width: float
    colour: str
    number: str = ""
    ink: str = ""


@dataclass(frozen=True)
class Ribbon:
    """A video from start to end, as pieces, or as a bitmap (a data URI) if there are too many."""

    name: str
    value: str
    pieces: tuple[Piece, ...] = ()
    image: str = ""


@dataclass(frozen=True)
class Ribbons:
    """The ribbons of one video. length: as a clock shows it. legend: (colour, text) of the classes that occur."""

    ribbons: tuple[Ribbon, ...]
    length: str
    legend: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Bar:
    """A bar of the chart. Lengths are in percent of the axis. text: value and interval."""

    role: str
    name: str
    family: str
    length: float
    low: float
    high: float
    text: str


def headline_ribbons(result: Result, arrays: Arrays, palette: Palette, index: int) -> Ribbons:
    """Ribbons of the true steps, raw features, the best control and the main row."""
    return _ribbons(arrays[f"{index}/truth"], headline_lines(result, arrays, index), palette, _rate(result))


def all_ribbons(result: Result, arrays: Arrays, palette: Palette, index: int) -> Ribbons:
    """Ribbons of the true steps, raw features, the best controls of each mode, and every learned row."""
    return _ribbons(arrays[f"{index}/truth"], predictions(result, arrays, index), palette, _rate(result))


def colour_ribbons(result: Result, arrays: Arrays, palette: Palette, index: int) -> Ribbons | None:
    """The first three principal components of each representation as RGB below the true steps, or None if not there."""
    stored = arrays_at(arrays, f"{index}/colours/")
    if not stored:
        return None
    truth = arrays[f"{index}/truth"]
    lines = [Ribbon(name, "", image=_image(_subsample(_three(strip))[None])) for name, strip in stored.items()]
    return Ribbons((_ribbon("true steps", "", truth, palette), *lines), clock(len(truth) / _rate(result)))


def similarity_maps(arrays: Arrays, index: int) -> list[tuple[str, str]]:
    """(name, data URI) of each representation's self-similarity matrix."""
    stored, colours = arrays_at(arrays, f"{index}/similarity/"), colormaps["RdBu_r"]
    with np.errstate(invalid="ignore"):  # NaN of a damaged file is drawn as nothing
        shown = {name: colours((values.astype(np.float32) + 1) / 2, bytes=True) for name, values in stored.items()}
    return [(name, _image(picture[..., :3])) for name, picture in shown.items()]


def _rate(result: Result) -> float:
    return float(result["data"]["rate_hz"])


def _ribbons(truth: np.ndarray, lines: Mapping[str, np.ndarray], palette: Palette, rate: float) -> Ribbons:
    shares = {name: share_right(ids, truth) for name, ids in lines.items()}
    texts = {name: "" if share is None else f"{share:.0f} %" for name, share in shares.items()}
    ribbons = [_ribbon(name, texts[name], ids, palette) for name, ids in lines.items()]
    entries = legend(palette, [truth, *lines.values()])
    return Ribbons((_ribbon("true steps", "right", truth, palette), *ribbons), clock(len(truth) / rate), tuple(entries))


def _ribbon(name: str, value: str, ids: np.ndarray, palette: Palette) -> Ribbon:
    starts = np.flatnonzero(np.diff(ids, prepend=ids[:1] - 1))
    if len(starts) > MOST_SEGMENTS:
        return Ribbon(name, value, image=_image(palette.paint(_subsample(ids))))
    bounds, pieces = [*starts.tolist(), len(ids)], []
    for start, stop in pairwise(bounds):
        label, width = int(ids[start]), 100 * (stop - start) / len(ids)
        colour = palette.colour(label)
        named = label in palette.colours and width > ROOM * len(str(label)) + 0.6
        number = (str(label), ink_on(colour)) if named else ("", "")
        pieces.append(Piece(round(100 * start / len(ids), 2), round(width, 2), colour, *number))
    return Ribbon(name, value, tuple(pieces))


def _subsample(frames: np.ndarray) -> np.ndarray:
    chosen: np.ndarray = frames[np.linspace(0, len(frames) - 1, min(MOST_COLUMNS, len(frames))).astype(int)]
    return chosen


def _three(strip: np.ndarray) -> np.ndarray:
    """(T, 1 to 3) as (T, 3); a single component is repeated, which gives grey."""
    return np.repeat(strip, 3, axis=1) if strip.shape[1] == 1 else np.pad(strip, ((0, 0), (0, 2)))[:, :3]


def _image(pixels: np.ndarray) -> str:
    """(H, W, 3) uint8 as a data URI."""
    return data_uri(_png_bytes(pixels.astype(np.uint8)))


def _png_bytes(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    imsave(buffer, np.ascontiguousarray(pixels), format="png")
    return buffer.getvalue()


def data_uri(png: bytes) -> str:
    """A PNG as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def bars(result: Result) -> dict[str, list[Bar]]:
    """Mode -> bars of frame accuracy from 0 on a common axis, each with its own 95 % interval."""
    rows = [(mode, role, row) for mode in sections(result) for role, row in main_rows(result, mode).items()]
    measured = [_mean_interval(result, row) for _, _, row in rows]
    highest = max((high for _, _, high in measured), default=100.0)
    scale = 100 / min(100.0, 10 * np.ceil(max(highest, 1) / 10))
    charts: dict[str, list[Bar]] = {}
    for (mode, role, row), ends in zip(rows, measured, strict=True):
        mean, low, high = ends
        text = f"{mean:.1f} %" + (f" ({low:.1f} to {high:.1f})" if low < high else "")
        name = "" if row["name"] == role else str(row["name"])
        length, left, right = (round(float(scale * value), 2) for value in ends)
        charts.setdefault(MODES[mode], []).append(Bar(role, name, row["family"], length, left, right, text))
    return charts


def _mean_interval(result: Result, row: Result) -> tuple[float, float, float]:
    """(mean, low, high) of a row; all three are the mean if there is no interval."""
    found, mean = interval(result, row), float(row["mean"]["accuracy"])
    return (found.mean, found.low, found.high) if found else (mean, mean, mean)


@dataclass(frozen=True)
class Whisker:
    """An interval in percent of the axis that all lines of a table share."""

    zero: float
    low: float
    mean: float
    high: float


def whiskers(lines: Sequence[Result]) -> list[Whisker]:
    """The intervals of differences (mean, low, high in points) on a common axis that includes 0."""
    ends = [0.0, *(float(line[end]) for line in lines for end in ("low", "high"))]
    low, high = min(ends), max(ends)
    margin = 0.06 * (high - low) or 1.0

    def place(value: float) -> float:
        return round(100 * (value - low + margin) / (high - low + 2 * margin), 2)

    return [Whisker(place(0.0), *(place(float(line[end])) for end in ("low", "mean", "high"))) for line in lines]


def accuracy_bar(row: Result) -> tuple[float, str]:
    """(percent, family) of the small bar below a row's accuracy."""
    return round(float(row["mean"]["accuracy"]), 1), "oracle" if is_oracle(row) else str(row["family"])
