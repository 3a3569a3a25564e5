"""The pictures of a report, drawn from a result folder alone; PNG bytes, without a display or any global state."""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections import Counter
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
from keystep.evals.plots import WIDTH, plain
from keystep.evals.results import Curves
from keystep.evals.table import Result, best_control, sections, strongest_control

Arrays = Mapping[str, np.ndarray]

DPI = 130
LEFT, RIGHT = 2.3, 0.75  # inches beside the ribbons, for their names and scores
STRIP, GAP = 0.36, 0.1  # inches
LEGEND_ENTRIES = 40


@dataclass(frozen=True)
class Picture:
    """One PNG and its file name; title and caption where the page shows it."""

    file: str
    png: bytes
    title: str = ""
    caption: str = ""


def draw_all(result: Result, arrays: Arrays, curves: Curves) -> list[Picture]:
    """Every picture for which the result has something to show."""
    return [*_table_pictures(result), *draw_videos(result, arrays), *draw_training(curves)]


def ribbons_png(
    truth: np.ndarray | None,
    lines: Mapping[str, np.ndarray],
    classes: Sequence[str],
    background: Sequence[str],
    rate: float,
) -> bytes:
    """Ribbons of one video alone: (T,) class ids, true ones on top where they are known. rate: in Hz.

    Ids that are no class are white.
    """
    shown = [*([] if truth is None else [truth]), *lines.values()]
    return _png(_ribbons(truth, lines, Palette(classes, background, _frames(shown)), rate))


def safe_names(videos: Sequence[str]) -> list[str]:
    """File name parts of videos: no separators or signs that a file system minds, no two alike."""
    names: list[str] = []
    for index, video in enumerate(videos):
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", video).strip(".")[:80] or "video"
        names.append(f"{name}_{index}" if name.lower() in map(str.lower, names) else name)
    return names


def palette_of(result: Result, arrays: Arrays) -> Palette:
    """The colours of a result's classes, the same in all its pictures."""
    lines = [ids for key, ids in arrays.items() if key.endswith("/truth") or "/prediction/" in key]
    return Palette(result["data"]["classes"], result["protocol"]["background"], _frames(lines))


def _frames(lines: Sequence[np.ndarray]) -> Counter[int]:
    """How many frames each class has."""
    counts = Counter[int]()
    for ids in lines:
        counts.update(dict(zip(*map(np.ndarray.tolist, np.unique(ids, return_counts=True)), strict=True)))
    return counts


def legend(palette: Palette, lines: Sequence[np.ndarray]) -> list[tuple[str, str]]:
    """(colour, text) of the classes that occur, by number; of very many, those that ``lines`` have first."""
    present = palette.present(lines)
    known = [label for label in present if label in palette.colours]
    shown = sorted(known[:LEGEND_ENTRIES])
    entries = [(palette.colour(label), f"{label} {palette.classes[label]}") for label in shown]
    entries += [("", f"and {len(known) - len(shown)} more")] if len(known) > len(shown) else []
    return entries + ([(UNLABELLED, "no label")] if len(known) < len(present) else [])


def draw_videos(result: Result, arrays: Arrays) -> Iterator[Picture]:
    """Ribbons of each video; first those of the headline alone, where there are any."""
    palette, rate, videos = palette_of(result, arrays), result["data"]["rate_hz"], videos_of(arrays)
    chosen = headline_video(result, videos)
    if chosen is not None:
        truth, lines = arrays[f"{chosen}/truth"], headline_lines(result, arrays, chosen)
        yield Picture("headline.png", _png(_ribbons(truth, lines, palette, rate)))
    for index, safe in enumerate(safe_names(videos)):
        truth, lines = arrays[f"{index}/truth"], predictions(result, arrays, index)
        yield Picture(f"ribbons_{safe}.png", _png(_ribbons(truth, lines, palette, rate)))


def headline_video(result: Result, videos: Sequence[str]) -> int | None:
    """Which of the stored videos opens the report: that of the median gain, or the nearest to it by rank; else the
    first. None where nothing learned was judged, or no video was stored."""
    found = gains(result)
    if found is None or not videos:
        return None
    middle = found.ranked.index(found.median)
    return min(range(len(videos)), key=lambda index: abs(found.ranked.index(videos[index]) - middle))


def headline_lines(result: Result, arrays: Arrays, index: int) -> dict[str, np.ndarray]:
    """Raw features, the best control, ours: name -> predicted ids (T,), in the mode of `gains`."""
    found = gains(result)
    rows = main_rows(result, found.mode) if found else {}
    stored, roles = arrays_at(arrays, f"{index}/prediction/"), ("raw features", "best control", "ours")
    shown = {role: rows[role] for role in roles if role in rows}
    keys = {role: f"{row['name']}, {row['mode']}" for role, row in shown.items()}
    names = {role: role if role == row["name"] else f"{role}: {row['name']}" for role, row in shown.items()}
    return {names[role]: stored[key] for role, key in keys.items() if key in stored}


def predictions(result: Result, arrays: Arrays, index: int) -> dict[str, np.ndarray]:
    """Label -> predicted ids: raw features, in each mode the best controls and the learned rows, and temporal heads."""
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
    """Percentage of labelled time that is right; None where nothing is labelled."""
    labelled = truth >= 0
    return 100 * float((ids == truth)[labelled].mean()) if len(ids) == len(truth) and labelled.any() else None


def videos_of(arrays: Arrays) -> list[str]:
    """Names of the stored videos."""
    return [str(name) for name in arrays.get("names", np.array([], dtype=str))]


def arrays_at(arrays: Arrays, prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin with ``prefix``, by the rest of their names."""
    return {key[len(prefix) :]: array for key, array in arrays.items() if key.startswith(prefix)}


def _ribbons(truth: np.ndarray | None, lines: Mapping[str, np.ndarray], palette: Palette, rate: float) -> Figure:
    shown = ({} if truth is None else {"true steps": truth}) | dict(lines)
    entries = legend(palette, [*shown.values()])
    edge = {UNLABELLED: "#999999"}
    patches = [Patch(facecolor=colour or "none", edgecolor=edge.get(colour)) for colour, _ in entries]
    texts = [plain(text, 44) for _, text in entries]
    columns = max(1, min(6, int((WIDTH - 0.4) / (0.5 + 0.066 * max(map(len, texts), default=1)))))
    foot = 0.168 * -(-len(texts) // columns) + 0.1
    figure, strips = _strips([*shown], foot)
    for axes, ids in zip(strips, shown.values(), strict=True):
        _paint(axes, palette.paint(ids), len(ids) / rate / 60)
        _number(axes, ids, palette, len(ids) / rate / 60)
    if truth is not None:
        for axes, ids in zip(strips[1:], lines.values(), strict=True):
            right = share_right(ids, truth)
            if right is not None:
                axes.text(1.01, 0.5, f"{right:.0f} %", transform=axes.transAxes, va="center", fontsize=9)
        strips[0].text(1.01, 0.5, "right", transform=strips[0].transAxes, va="center", fontsize=9)
    low = (0.5, 0.03 / figure.get_figheight())
    style = {"ncols": columns, "fontsize": 8, "frameon": False, "handlelength": 1.2, "columnspacing": 1.4}
    figure.legend(patches, texts, loc="lower center", bbox_to_anchor=low, **style)
    return figure


def _strips(labels: Sequence[str], foot: float) -> tuple[Figure, list[Axes]]:
    """Strips under each other with names at the left, a time axis under the last, and ``foot`` inches left below."""
    head, axis = 0.1, 0.5
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
    strips[-1].set_xlabel("minutes", fontsize=9)
    return figure, strips


def _paint(axes: Axes, colours: np.ndarray, minutes: float) -> None:
    axes.imshow(colours, extent=(0, minutes, 0, 1), aspect="auto", interpolation="nearest")


def _number(axes: Axes, ids: np.ndarray, palette: Palette, minutes: float) -> None:
    """Write the class number on every segment that has room for it."""
    starts = np.flatnonzero(np.diff(ids, prepend=ids[:1] - 1))
    for start, stop in zip(starts, [*starts[1:], len(ids)], strict=True):
        label = int(ids[start])
        if label not in palette.colours or (stop - start) / len(ids) < 0.008 + 0.007 * len(str(label)):
            continue
        ink = ink_on(palette.colour(label))
        middle = (start + stop) / 2 / len(ids) * minutes
        axes.text(middle, 0.46, str(label), color=ink, ha="center", va="center", fontsize=7.5)


def _table_pictures(result: Result) -> Iterator[Picture]:
    if result["rows"]:
        yield Picture("accuracy.png", _png(plots.accuracy(result)))


def draw_training(curves: Curves) -> Iterator[Picture]:
    """Losses, and what the monitors saw."""
    runs = {name: lines for name, lines in curves.items() if lines}
    if any("loss" in line for lines in runs.values() for line in lines):
        yield Picture(
            "curves.png",
            _png(plots.curves(runs)),
            "Training: the loss",
            "A falling loss alone says little: it also falls when representations collapse. Losses of different models "
            "measure different things and do not compare.",
        )
    if any(key.startswith("monitor/") for lines in runs.values() for line in lines for key in line):
        yield Picture(
            "monitors.png",
            _png(plots.monitors(runs)),
            "Training: is the representation healthy?",
            "Measured now and then on a few fixed videos, with fixed hidden frames; never used to choose anything.",
        )


def _png(figure: Figure) -> bytes:
    """The figure as PNG bytes, equal for equal figures."""
    FigureCanvasAgg(figure)  # a canvas of its own: no backend is chosen for the process
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Class names in scripts that the font lacks show as boxes; the page lists all names with their numbers.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
