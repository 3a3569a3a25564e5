"""The pictures of a report as PNG bytes, drawn from a result folder without a display or global state."""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from keystep.evals import plots
from keystep.evals.headline import gains, main_rows
from keystep.evals.palette import UNLABELLED, Palette, ink_on
from keystep.evals.plots import WIDTH, clock_axis, plain
from keystep.evals.results import Curves
from keystep.evals.table import Result, best_control, sections, strongest_control

Arrays = Mapping[str, np.ndarray]

DPI = 130
LEFT, RIGHT = 2.3, 0.75  # inches left and right of the ribbons, for their names and scores
STRIP, GAP = 0.36, 0.1  # inches
LEGEND_ENTRIES = 40


@dataclass(frozen=True)
class ReportPicture:
    """A PNG and its file name; title and caption are for pictures that the page embeds."""

    file: str
    png: bytes
    title: str = ""
    caption: str = ""


def draw_all(result: Result, arrays: Arrays, curves: Curves) -> list[ReportPicture]:
    """All pictures that a result has data for."""
    return [*_table_pictures(result), *draw_videos(result, arrays), *draw_training(curves)]


def ribbons_png(
    truth: np.ndarray | None,
    lines: Mapping[str, np.ndarray],
    classes: Sequence[str],
    background: Sequence[str],
    rate: float,
    title: str = "",
) -> bytes:
    """Draw the ribbons of one video.

    Args:
        truth: (T,) true class ids, drawn at the top; None if unknown.
        lines: name -> (T,) predicted class ids.
        classes: class names by id. Other ids are white.
        background: names of background classes.
        rate: slots per second.
        title: written above them.

    Returns:
        PNG bytes.
    """
    return _png(_ribbons(truth, lines, Palette(classes, background), rate, title))


def safe_names(videos: Sequence[str]) -> list[str]:
    """File name parts for videos, unique and without characters that file systems reject."""
    names: list[str] = []
    for index, video in enumerate(videos):
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", video).strip(".")[:80] or "video"
        names.append(f"{name}_{index}" if name.lower() in map(str.lower, names) else name)
    return names


def result_palette(result: Result) -> Palette:
    """The class colours of a result."""
    return Palette(result["data"]["classes"], result["protocol"]["background"])


def legend(palette: Palette, lines: Sequence[np.ndarray]) -> list[tuple[str, str]]:
    """(colour, text) of the classes that occur, by id; if there are too many, those that come first in ``lines``."""
    present = palette.present(lines)
    known = [label for label in present if label in palette.colours]
    shown = sorted(known[:LEGEND_ENTRIES])
    entries = [(palette.colour(label), f"{label} {palette.classes[label]}") for label in shown]
    entries += [("", f"and {len(known) - len(shown)} more")] if len(known) > len(shown) else []
    return entries + ([(UNLABELLED, "no label")] if len(known) < len(present) else [])


def legend_patches(palette: Palette, lines: Sequence[np.ndarray]) -> list[Patch]:
    """`legend` for matplotlib."""
    edge = {UNLABELLED: "#999999"}
    return [
        Patch(facecolor=colour or "none", edgecolor=edge.get(colour), label=plain(text, 44))
        for colour, text in legend(palette, lines)
    ]


def draw_videos(result: Result, arrays: Arrays) -> Iterator[ReportPicture]:
    """The ribbons of each video, preceded by the headline picture if there is one."""
    palette, rate, videos = result_palette(result), result["data"]["rate_hz"], stored_videos(arrays)
    chosen = headline_video(result, videos)
    if chosen is not None:
        truth, lines = arrays[f"{chosen}/truth"], headline_lines(result, arrays, chosen)
        yield ReportPicture("headline.png", _png(_ribbons(truth, lines, palette, rate)))
    for index, safe in enumerate(safe_names(videos)):
        truth, lines = arrays[f"{index}/truth"], predictions(result, arrays, index)
        yield ReportPicture(f"ribbons_{safe}.png", _png(_ribbons(truth, lines, palette, rate)))


def headline_video(result: Result, videos: Sequence[str]) -> int | None:
    """Index of the stored video that opens the report: the one whose gain is closest in rank to the median.

    None if no learned row was judged or no video was stored.
    """
    found = gains(result)
    if found is None or not videos:
        return None
    middle = found.ranked.index(found.median)
    return min(range(len(videos)), key=lambda index: abs(found.ranked.index(videos[index]) - middle))


def headline_lines(result: Result, arrays: Arrays, index: int) -> dict[str, np.ndarray]:
    """Name -> (T,) predicted class ids of raw features, the best control and the main row, in the mode of `gains`."""
    found = gains(result)
    rows = main_rows(result, found.mode) if found else {}
    stored, roles = arrays_at(arrays, f"{index}/prediction/"), ("raw features", "best control", "ours")
    shown = {role: rows[role] for role in roles if role in rows}
    keys = {role: f"{row['name']}, {row['mode']}" for role, row in shown.items()}
    names = {role: role if role == row["name"] else f"{role}: {row['name']}" for role, row in shown.items()}
    return {names[role]: stored[key] for role, key in keys.items() if key in stored}


def predictions(result: Result, arrays: Arrays, index: int) -> dict[str, np.ndarray]:
    """Name -> (T,) predicted class ids of raw features, the best controls, learned rows and temporal heads."""
    stored, chosen = arrays_at(arrays, f"{index}/prediction/"), dict[str, np.ndarray]()
    rows = [row for row in result["rows"] if row["family"] == "raw"]
    for mode in sections(result):
        here = [row for row in result["rows"] if row["mode"] == mode]
        rows += [row for row in (best_control(result, mode, "moving average"), strongest_control(result, mode)) if row]
        rows += [row for row in here if row["family"] == "learned"]
    for row in rows:
        key = f"{row['name']}, {row['mode']}"
        if key in stored:
            chosen[row["name"] if row["family"] == "raw" else key] = stored[key]
    heads = (f"{row['head']}: {row['name']}, {row['mode']}" for row in result["head_rows"])
    return chosen | {key: stored[key] for key in heads if key in stored}


def share_right(ids: np.ndarray, truth: np.ndarray) -> float | None:
    """Percentage of labelled frames that are correct; None if no frame is labelled."""
    labelled = truth >= 0
    return 100 * float((ids == truth)[labelled].mean()) if len(ids) == len(truth) and labelled.any() else None


def stored_videos(arrays: Arrays) -> list[str]:
    """Names of the stored videos."""
    return [str(name) for name in arrays.get("names", np.array([], dtype=str))]


def arrays_at(arrays: Arrays, prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names start with ``prefix``, by the rest of their names."""
    return {key[len(prefix) :]: array for key, array in arrays.items() if key.startswith(prefix)}


def _ribbons(
    truth: np.ndarray | None, lines: Mapping[str, np.ndarray], palette: Palette, rate: float, title: str = ""
) -> Figure:
    shown = ({} if truth is None else {"true steps": truth}) | dict(lines)
    patches = legend_patches(palette, [*shown.values()])
    texts = [str(patch.get_label()) for patch in patches]
    columns = max(1, min(6, int((WIDTH - 0.4) / (0.5 + 0.066 * max(map(len, texts), default=1)))))
    foot = 0.168 * -(-len(texts) // columns) + 0.1
    figure, strips = _strips([*shown], foot, title)
    for axes, ids in zip(strips, shown.values(), strict=True):
        draw_steps(axes, ids, palette, 0, len(ids) / rate)
    clock_axis(strips[-1], max(len(ids) for ids in shown.values()) / rate)
    if truth is not None:
        for axes, ids in zip(strips[1:], lines.values(), strict=True):
            right = share_right(ids, truth)
            if right is not None:
                axes.text(1.01, 0.5, f"{right:.0f} %", transform=axes.transAxes, va="center", fontsize=9)
        strips[0].text(1.01, 0.5, "right", transform=strips[0].transAxes, va="center", fontsize=9)
    low = (0.5, 0.03 / figure.get_figheight())
    style = {"ncols": columns, "fontsize": 8, "frameon": False, "handlelength": 1.2, "columnspacing": 1.4}
    figure.legend(handles=patches, loc="lower center", bbox_to_anchor=low, **style)
    return figure


def _strips(labels: Sequence[str], foot: float, title: str) -> tuple[Figure, list[Axes]]:
    """Strips with names on the left, a time axis below the last one, and ``foot`` inches of space at the bottom."""
    head, axis = 0.3 if title else 0.1, 0.3
    height = head + len(labels) * (STRIP + GAP) + axis + foot
    figure = Figure((WIDTH, height))
    strips = []
    for index, label in enumerate(labels):
        bottom = height - head - (index + 1) * (STRIP + GAP) + GAP
        axes = figure.add_axes((LEFT / WIDTH, bottom / height, (WIDTH - LEFT - RIGHT) / WIDTH, STRIP / height))
        name = "\n".join(textwrap.wrap(plain(label, 62), 32))
        weight = "normal" if index else "bold"
        axes.text(-0.01, 0.5, name, transform=axes.transAxes, ha="right", va="center", fontsize=8.5, fontweight=weight)
        axes.set_yticks([])
        axes.tick_params(labelbottom=index == len(labels) - 1, bottom=index == len(labels) - 1, labelsize=8.5)
        strips.append(axes)
    if title:
        strips[0].set_title(plain(title, 100), fontsize=9, loc="left")
    return figure, strips


def draw_steps(axes: Axes, ids: np.ndarray, palette: Palette, start: float, stop: float) -> None:
    """Draw (T,) class ids as a ribbon between two times, with the class number on each segment that has space for it.

    Args:
        start, stop: seconds.
    """
    axes.imshow(palette.paint(ids), extent=(start, stop, 0, 1), aspect="auto", interpolation="nearest")
    starts = np.flatnonzero(np.diff(ids, prepend=ids[:1] - 1))
    for first, after in zip(starts, [*starts[1:], len(ids)], strict=True):
        label = int(ids[first])
        if label not in palette.colours or (after - first) / len(ids) < 0.008 + 0.007 * len(str(label)):
            continue
        ink = ink_on(palette.colour(label))
        middle = start + (first + after) / 2 / len(ids) * (stop - start)
        axes.text(middle, 0.46, str(label), color=ink, ha="center", va="center", fontsize=7.5)


def _table_pictures(result: Result) -> Iterator[ReportPicture]:
    if result["rows"]:
        yield ReportPicture("accuracy.png", _png(plots.accuracy(result)))


def draw_training(curves: Curves) -> Iterator[ReportPicture]:
    """The training curves: losses and monitors."""
    runs = {name: lines for name, lines in curves.items() if lines}
    if any("loss" in line for lines in runs.values() for line in lines):
        yield ReportPicture(
            "curves.png",
            _png(plots.curves(runs)),
            "Training: the loss",
            "A falling loss is weak evidence, because it also falls when representations collapse. Losses of models "
            "with different targets are not comparable.",
        )
    if any(key.startswith("monitor/") for lines in runs.values() for line in lines for key in line):
        yield ReportPicture(
            "monitors.png",
            _png(plots.monitors(runs)),
            "Training: is the representation healthy?",
            "Measured at intervals on a few fixed videos with fixed hidden frames, and never used for selection.",
        )


def _png(figure: Figure) -> bytes:
    """The figure as PNG bytes; equal figures give equal bytes."""
    FigureCanvasAgg(figure)  # avoids choosing a backend for the whole process
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Characters that the font lacks are drawn as boxes; the page lists all class names with their numbers.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
