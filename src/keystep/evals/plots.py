"""The charts of a report as matplotlib figures: accuracy, losses and monitors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MultipleLocator

from keystep.errors import plain as without_controls
from keystep.evals.palette import DISTINCT, FAMILY_COLOURS
from keystep.evals.results import Curves
from keystep.evals.table import FAMILIES, MODES, Result, is_oracle, label, score, sections
from keystep.terminal import clock

WIDTH = 11.0  # inches
NARROW = 7.6  # inches: panels embedded in the page
LINE_COLOURS = DISTINCT[2:4] + DISTINCT[:2] + DISTINCT[6:8] + DISTINCT[4:5]
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
PANELS = 12
TICK_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
MOST_TICKS = 9
Points = tuple[list[int], list[float]]
Style = Literal["-", "--", ":"]


def plain(text: str, limit: int = 1000) -> str:
    """Escape text for matplotlib: one line, no math mode, no leading underscore (which would hide a legend entry)."""
    text = " ".join(without_controls(text).split())
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def clock_axis(axes: Axes, seconds: float) -> None:
    """Label an x axis that shows so many seconds as a clock does."""
    step = next((step for step in TICK_SECONDS if seconds / step < MOST_TICKS), TICK_SECONDS[-1])
    axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: clock(value)))


def accuracy(result: Result) -> Figure:
    """Accuracy of every row with its standard deviation over seeds, sorted, in one panel for each mode."""
    parts = sections(result)
    shown = [family for family in FAMILIES if any(row["family"] == family for row in result["rows"])]
    head, gap, line = 0.95, 0.8, 0.27  # inches
    height = head + sum(len(rows) * line + gap for rows in parts.values())
    figure, top = Figure((WIDTH, height)), height - head
    for mode, rows in parts.items():
        size = len(rows) * line
        axes = figure.add_axes((3.4 / WIDTH, (top - size) / height, (WIDTH - 4.5) / WIDTH, size / height))
        _dots(axes, sorted(rows, key=lambda row: float(row["mean"]["accuracy"])))
        axes.set_xlim(*_accuracy_range(result))
        axes.set_title(MODES[mode], fontsize=10, loc="left")
        top -= size + gap
    axes.set_xlabel("frame accuracy on the test videos, %", fontsize=9)
    handles = [_marker(FAMILY_COLOURS[family], family == "oracle") for family in shown]
    names = [FAMILIES[family] for family in shown]
    figure.legend(handles, names, loc="upper center", ncols=3, fontsize=8.5, frameon=False)
    return figure


def _marker(colour: str, oracle: bool) -> Line2D:
    face = "white" if oracle else colour
    return Line2D([], [], color=colour, marker="D" if oracle else "o", linestyle="", markerfacecolor=face)


def _accuracy_range(result: Result) -> tuple[float, float]:
    values = [run["scores"]["accuracy"] for row in result["rows"] for run in row["runs"]]
    margin = 0.06 * (max(values) - min(values)) + 1
    return max(-1.0, min(values) - margin), min(101.0, max(values) + margin)


def _dots(axes: Axes, rows: Sequence[Any]) -> None:
    """Draw one line for each row, the last at the top."""
    for height, row in enumerate(rows):
        colour, oracle, mean = FAMILY_COLOURS[row["family"]], is_oracle(row), row["mean"]["accuracy"]
        seeds = [run["scores"]["accuracy"] for run in row["runs"]]
        if len(seeds) > 1:
            axes.plot(seeds, [height] * len(seeds), "o", color=colour, markersize=3, alpha=0.45)
        form, face = ("D", "white") if oracle else ("o", colour)
        spread = row["spread"]["accuracy"]
        axes.errorbar(mean, height, xerr=spread, color=colour, fmt=form, markerfacecolor=face, capsize=2.5)
        transform = axes.get_yaxis_transform()
        axes.text(1.015, height, score(row, "accuracy"), transform=transform, va="center", fontsize=8.5)
        if row["family"] == "raw":
            axes.axvline(mean, color=colour, linewidth=0.9, linestyle=":", zorder=0)
    axes.set_yticks(range(len(rows)), [plain(label(row), 46) for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(axis="y", color="#eeeeee", zorder=0)
    _tidy(axes)


def curves(runs: Curves) -> Figure:
    """The training loss: one panel for each model, one line for each seed."""
    groups = _groups(runs)
    names = list(groups)[:PANELS]
    columns = min(2, len(names))
    figure, panels = _grid(len(names), columns, 2.9)
    for axes, name in zip(panels, names, strict=True):
        for index, (seed, lines) in enumerate(groups[name].items()):
            colour = LINE_COLOURS[index % len(LINE_COLOURS)]
            axes.plot(*_points(lines, "loss"), color=colour, linewidth=1.4, label=plain(seed, 20))
            for part, style in (("hidden", "--"), ("visible", ":")):
                axes.plot(*_points(lines, part), color=colour, linewidth=0.9, linestyle=style, alpha=0.75)
        axes.set_title(plain(name, 40), fontsize=10)
        _tidy(axes)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=8, frameon=False, loc="upper right")
    _styles(figure, {"loss": "-", "hidden frames": "--", "visible frames": ":"}, {})
    return figure


def monitors(runs: Curves) -> Figure:
    """The training monitors that were recorded, one panel each, on axes that do not magnify noise.

    Effective rank, similarity of adjacent frames, normalised losses, and the quick probe.
    """
    groups = _groups(runs)
    looks = dict(zip(groups, cycle(zip(LINE_COLOURS, MARKERS, strict=True)), strict=False))
    shown = [panel for panel in MONITORS if any(_points(lines, panel.measured)[0] for lines in runs.values())]
    figure, panels = _grid(len(shown), min(2, len(shown)), 3.1)
    for axes, panel in zip(panels, shown, strict=True):
        for name, seeds in groups.items():
            colour, marker = looks[name]
            for lines in seeds.values():
                for style, points in panel.lines.items():
                    mark = marker if style == "-" else ""
                    axes.plot(*points(lines), style, color=colour, marker=mark, markersize=4, linewidth=1.3, alpha=0.85)
        axes.set_title(panel.title, fontsize=9.5)
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, panel.low), max(high + 0.05 * (high - panel.low), panel.high))
        _tidy(axes)
        if panel.constant is not None:
            axes.axhline(panel.constant, color="#333333", linestyle="--", linewidth=1)
    styles: dict[str, Style] = {
        "measured": "-",
        "constant; before training": "--",
        "copy of the nearest visible frame": ":",
    }
    _styles(figure, styles, looks)
    return figure


def _grid(count: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` panels of ``height`` inches and space for a legend at the top."""
    rows = -(-count // columns)
    total = rows * height + 0.25
    figure = Figure((NARROW, total))
    grid = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(
        left=0.075, right=0.985, bottom=0.5 / total, top=1 - 0.65 / total, hspace=0.75 / (height - 0.75), wspace=0.17
    )
    panels = list(grid.flat)
    for axes in panels[count:]:
        axes.set_axis_off()
    for axes in panels[:count]:
        axes.set_xlabel("step", fontsize=8.5)
    return figure, panels[:count]


def _styles(figure: Figure, styles: Mapping[str, Style], looks: Mapping[str, tuple[str, str]]) -> None:
    """A legend above all panels for (colour, marker) by name, and for line styles."""
    handles = [Line2D([], [], color=colour, marker=marker) for colour, marker in looks.values()]
    handles += [Line2D([], [], color="#555555", linestyle=style) for style in styles.values()]
    names = [plain(name, 30) for name in looks] + list(styles)
    columns = 4
    figure.legend(handles, names, loc="upper center", ncols=columns, fontsize=8.5, frameon=False)


def _groups(runs: Curves) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Model -> seed -> metric lines, from run names such as ``pjepa, seed 0``."""
    groups: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for run, lines in runs.items():
        name, comma, seed = run.rpartition(", seed ")
        groups.setdefault(name if comma else run, {})[f"seed {seed}" if comma else ""] = lines
    return groups


def _points(lines: Sequence[Mapping[str, Any]], key: str) -> Points:
    found = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
    return [step for step, _ in found], [float(value) for _, value in found]


def _share(lines: Sequence[Mapping[str, Any]], key: str) -> Points:
    """A loss divided by the loss of the best constant, which makes different targets comparable."""
    found = [line for line in lines if line.get(key) is not None and line.get("monitor/mean_loss")]
    return [line["step"] for line in found], [float(line[key] / line["monitor/mean_loss"]) for line in found]


def _flat(points: Points) -> Points:
    """The first value as a horizontal line, if it was measured before training; otherwise nothing."""
    steps, values = points
    return ([steps[0], steps[-1]], [values[0]] * 2) if steps and steps[0] == 0 else ([], [])


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5)


@dataclass(frozen=True)
class _Monitor:
    """A panel of `monitors`: its axis shows at least ``low`` to ``high``, so that small changes look small."""

    measured: str
    title: str
    lines: Mapping[Style, Callable[[Sequence[Mapping[str, Any]]], Points]]
    low: float
    high: float
    constant: float | None = None


MONITORS = (
    _Monitor(
        "monitor/effective_rank",
        "effective rank; far below the dashed line: collapse",
        {
            "-": lambda lines: _points(lines, "monitor/effective_rank"),
            "--": lambda lines: _flat(_points(lines, "monitor/effective_rank")),
        },
        0,
        1,
    ),
    _Monitor(
        "monitor/neighbour_cosine",
        "cosine similarity of adjacent latents; 1: constant",
        {"-": lambda lines: _points(lines, "monitor/neighbour_cosine")},
        0,
        1.02,
    ),
    _Monitor(
        "monitor/hidden_loss",
        "hidden loss / loss of the best constant (1: no learning)",
        {
            "-": lambda lines: _share(lines, "monitor/hidden_loss"),
            ":": lambda lines: _share(lines, "monitor/copy_loss"),
        },
        0,
        1.1,
        constant=1,
    ),
    _Monitor(
        "monitor/probe_accuracy",
        "quick probe accuracy, %; dashed: before training",
        {
            "-": lambda lines: _points(lines, "monitor/probe_accuracy"),
            "--": lambda lines: _flat(_points(lines, "monitor/probe_accuracy")),
        },
        0,
        100,
    ),
)
