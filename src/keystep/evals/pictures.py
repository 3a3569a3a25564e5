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
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from keystep.evals import plots
from keystep.evals.plots import WIDTH, plain
from keystep.evals.results import Curves
from keystep.evals.table import Result, best_control, sections

Arrays = Mapping[str, np.ndarray]
Colour = tuple[float, float, float]

DPI = 130
LEFT, RIGHT = 2.3, 0.75  # inches beside the ribbons, for their names and scores
STRIP, GAP = 0.36, 0.1  # inches
LEGEND_ENTRIES = 40
DISTINCT = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#69001e", "#2d1e87", "#874b4b", "#a5f069"),
    *("#96c396", "#4b87ff", "#3c4b78", "#4b3cb4", "#5a4b00", "#5a0f5a", "#87d2ff", "#f05a69", "#785a87", "#2df0a5"),
)
"""Okabe and Ito's six, then each time the colour furthest (OKLab) from those before, seen with normal, protanope and
deuteranope eyes, at middling lightness. Segments carry their class number too, so nothing hangs on colour alone."""
BACKGROUND, UNLABELLED = to_rgb("#dedede"), (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Picture:
    """One PNG, its file name, and what to say under it."""

    file: str
    title: str
    caption: str
    png: bytes


def draw_all(result: Result, arrays: Arrays, curves: Curves) -> list[Picture]:
    """Every picture for which the result has something to show."""
    pictures = [*_table_pictures(result)]
    palette = Palette(result, arrays)
    for index, (video, safe) in enumerate(zip(_videos(arrays), safe_names(_videos(arrays)), strict=True)):
        pictures += _video_pictures(result, arrays, palette, index, video, safe)
    return [*pictures, *_training_pictures(curves)]


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
    result: Result = {"data": {"classes": list(classes)}, "protocol": {"background": list(background)}}
    arrays = {"0/truth": truth if truth is not None else next(iter(lines.values()))} | {
        f"0/prediction/{name}": ids for name, ids in lines.items()
    }
    return _png(_ribbons(truth, lines, Palette(result, arrays), rate))


def safe_names(videos: Sequence[str]) -> list[str]:
    """File name parts of videos: no separators or signs that a file system minds, no two alike."""
    names: list[str] = []
    for index, video in enumerate(videos):
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", video).strip(".")[:80] or "video"
        names.append(f"{name}_{index}" if name.lower() in map(str.lower, names) else name)
    return names


class Palette:
    """A colour for each class, the same in all pictures of a result.

    Up to 20 classes have their own; of more, the 20 with most frames in these videos do, the next 40 have lighter and
    darker shades of them, and after that colours repeat. Background classes are grey.
    """

    def __init__(self, result: Result, arrays: Arrays) -> None:
        self.classes: Sequence[str] = result["data"]["classes"]
        background = {self.classes.index(name) for name in result["protocol"]["background"] if name in self.classes}
        ranked = [index for index in range(len(self.classes)) if index not in background]
        if len(ranked) > len(DISTINCT):
            counts = Counter[int]()
            for key, ids in arrays.items():
                if key.endswith("/truth") or "/prediction/" in key:
                    counts.update(dict(zip(*map(np.ndarray.tolist, np.unique(ids, return_counts=True)), strict=True)))
            ranked.sort(key=lambda index: (-counts[index], index))
        self.colours = dict.fromkeys(background, BACKGROUND) | {c: _shade(rank) for rank, c in enumerate(ranked)}

    def paint(self, ids: np.ndarray) -> np.ndarray:
        """(T,) class ids -> (1, T, 3); white where there is no label."""
        return np.array([[self.colours.get(int(label), UNLABELLED) for label in ids]]).reshape(1, -1, 3)

    def entries(self, lines: Sequence[np.ndarray]) -> tuple[list[Patch], list[str]]:
        """Legend for the classes that occur, by number; of very many, those that the truth has first."""
        present = list(dict.fromkeys(int(label) for ids in lines for label in ids))
        known = [label for label in present if label in self.colours]
        shown = sorted(known[:LEGEND_ENTRIES])
        patches = [Patch(facecolor=self.colours[label]) for label in shown]
        texts = [plain(f"{label} {self.classes[label]}", 44) for label in shown]
        if len(known) > len(shown):
            patches, texts = [*patches, Patch(alpha=0)], [*texts, f"and {len(known) - len(shown)} more"]
        if len(known) < len(present):
            patches, texts = [*patches, Patch(facecolor="white", edgecolor="#999999")], [*texts, "no label"]
        return patches, texts


def _shade(rank: int) -> Colour:
    colour = np.array(to_rgb(DISTINCT[rank % len(DISTINCT)]))
    turn = rank // len(DISTINCT) % 3
    red, green, blue = (colour, 0.5 * colour + 0.5, 0.6 * colour)[turn].tolist()
    return red, green, blue


def _videos(arrays: Arrays) -> list[str]:
    return [str(name) for name in arrays.get("names", np.array([], dtype=str))]


def _video_pictures(
    result: Result, arrays: Arrays, palette: Palette, index: int, video: str, safe: str
) -> Iterator[Picture]:
    truth, rate = arrays[f"{index}/truth"], result["data"]["rate_hz"]
    lines = _predictions(result, arrays, index)
    yield Picture(
        f"ribbons_{safe}.png",
        f"{video}: steps found",
        "Time runs from left to right, colours and numbers are steps. On top the truth; below it what a linear probe "
        "(first seed) reads from each representation, and at the right the percentage of labelled time that it gets "
        "right in this video.",
        _png(_ribbons(truth, lines, palette, rate)),
    )
    colours = _part(arrays, f"{index}/colours/")
    if colours:
        yield Picture(
            f"colours_{safe}.png",
            f"{video}: what the representations look like",
            "The three strongest directions of each representation as red, green and blue. Equal colours mean similar "
            "vectors; colours that change where the true steps change are a good sign. No labels were used.",
            _png(_colours(truth, colours, palette, rate)),
        )
    similarity = _part(arrays, f"{index}/similarity/")
    if similarity:
        yield Picture(
            f"similarity_{safe}.png",
            f"{video}: which moments are alike",
            "Every moment against every other: red is alike, blue is opposite (cosine of centred vectors). Squares on "
            "the diagonal are stretches that the representation holds together; the strip above shows the true steps.",
            _png(_similarity(truth, similarity, palette, rate)),
        )


def _part(arrays: Arrays, prefix: str) -> dict[str, np.ndarray]:
    return {key[len(prefix) :]: array for key, array in arrays.items() if key.startswith(prefix)}


def _predictions(result: Result, arrays: Arrays, index: int) -> dict[str, np.ndarray]:
    """Label -> predicted ids: raw features, then for each mode the best smoothing and the learned rows, clock aside."""
    stored, chosen = _part(arrays, f"{index}/prediction/"), dict[str, np.ndarray]()
    rows = [row for row in result["rows"] if row["family"] == "raw"]
    for mode in sections(result):
        here = [row for row in result["rows"] if row["mode"] == mode]
        rows += [row for row in (best_control(result, mode, "moving average"),) if row]
        rows += [row for row in here if row["family"] == "learned" and row["beside"] != "position"]
    for row in rows:
        key = f"{row['name']}, {row['mode']}"
        if key in stored:
            chosen[row["name"] if row["family"] == "raw" else key] = stored[key]
    return chosen


def _ribbons(truth: np.ndarray | None, lines: Mapping[str, np.ndarray], palette: Palette, rate: float) -> Figure:
    shown = ({} if truth is None else {"true steps": truth}) | dict(lines)
    patches, texts = palette.entries([*shown.values()])
    columns = max(1, min(6, int((WIDTH - 0.4) / (0.5 + 0.066 * max(map(len, texts), default=1)))))
    foot = 0.168 * -(-len(texts) // columns) + 0.1
    figure, strips = _strips([*shown], foot)
    for axes, ids in zip(strips, shown.values(), strict=True):
        _paint(axes, palette.paint(ids), len(ids) / rate / 60)
        _number(axes, ids, palette, len(ids) / rate / 60)
    if truth is not None:
        labelled = truth >= 0
        for axes, ids in zip(strips[1:], lines.values(), strict=True):
            if len(ids) == len(truth) and labelled.any():
                right = 100 * float((ids == truth)[labelled].mean())
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
        colour = palette.colours.get(int(ids[start]))
        if colour is None or (stop - start) / len(ids) < 0.008 + 0.007 * len(str(ids[start])):
            continue
        ink = "black" if np.dot(colour, (0.3, 0.59, 0.11)) > 0.5 else "white"
        middle = (start + stop) / 2 / len(ids) * minutes
        axes.text(middle, 0.46, str(ids[start]), color=ink, ha="center", va="center", fontsize=7.5)


def _colours(truth: np.ndarray, colours: Mapping[str, np.ndarray], palette: Palette, rate: float) -> Figure:
    figure, strips = _strips(["true steps", *colours], 0.0)
    minutes = len(truth) / rate / 60
    _paint(strips[0], palette.paint(truth), minutes)
    _number(strips[0], truth, palette, minutes)
    for axes, strip in zip(strips[1:], colours.values(), strict=True):
        wide = np.repeat(strip, 3, axis=1) if strip.shape[1] == 1 else np.pad(strip, ((0, 0), (0, 2)))[:, :3]
        _paint(axes, wide[None].astype(np.uint8), len(strip) / rate / 60)
    return figure


def _similarity(truth: np.ndarray, maps: Mapping[str, np.ndarray], palette: Palette, rate: float) -> Figure:
    columns = min(3, max(2, len(maps)))
    side, gap, head, axis = (WIDTH - 1.9) / columns - 0.25, 0.25, 0.85, 0.65
    rows = -(-len(maps) // columns)
    height = rows * (side + head + axis)
    figure, minutes = Figure((WIDTH, height)), len(truth) / rate / 60
    for index, (label, values) in enumerate(maps.items()):
        left = 0.7 + index % columns * (side + gap)
        bottom = height - (index // columns + 1) * (side + head + axis) + axis
        axes = figure.add_axes((left / WIDTH, bottom / height, side / WIDTH, side / height))
        image = axes.imshow(
            values.astype(np.float32), cmap="RdBu_r", vmin=-1, vmax=1, extent=(0, minutes, minutes, 0), aspect="auto"
        )
        strip = figure.add_axes((left / WIDTH, (bottom + side + 0.05) / height, side / WIDTH, 0.2 / height))
        _paint(strip, palette.paint(truth), minutes)
        strip.set_axis_off()
        strip.set_title("\n".join(textwrap.wrap(plain(label, 90), 44)), fontsize=10)
        axes.set_xlabel("minutes", fontsize=9)
        axes.tick_params(labelsize=8.5, labelleft=index % columns == 0)
        if index % columns == 0:
            axes.set_ylabel("minutes", fontsize=9)
    bar = figure.add_axes(
        ((0.75 + min(columns, len(maps)) * (side + gap)) / WIDTH, axis / height, 0.15 / WIDTH, side / height)
    )
    figure.colorbar(image, cax=bar).set_label("cosine", fontsize=9)
    bar.tick_params(labelsize=8.5)
    return figure


def _table_pictures(result: Result) -> Iterator[Picture]:
    if result["rows"]:
        yield Picture(
            "accuracy.png",
            "Accuracy at a glance",
            "Large dots are means over seeds with their standard deviation, small ones single seeds. Hollow diamonds "
            "are ORACLE rows, which no real system could have. The axis does not start at 0.",
            _png(plots.accuracy(result)),
        )


def _training_pictures(curves: Curves) -> Iterator[Picture]:
    runs = {name: lines for name, lines in curves.items() if lines}
    if any("loss" in line for lines in runs.values() for line in lines):
        yield Picture(
            "curves.png",
            "Training: the loss",
            "A falling loss alone says little: it also falls when representations collapse. Losses of different models "
            "measure different things and do not compare.",
            _png(plots.curves(runs)),
        )
    if any(key.startswith("monitor/") for lines in runs.values() for line in lines for key in line):
        yield Picture(
            "monitors.png",
            "Training: is the representation healthy?",
            "Measured now and then on a few fixed videos, with fixed hidden frames; never used to choose anything.",
            _png(plots.monitors(runs)),
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
