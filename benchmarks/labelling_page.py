"""The page and the picture of `benchmarks/labelling.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from keystep.evals.palette import FAMILY_COLOURS

SHARE = 0.9
"""Of the final accuracy, that has to be reached."""
SAMPLES = 2_000
SAID = "## What they say"
"""Heading of what is written by hand; it and all below are kept."""
RAW, CONTROL, LATENTS, TOOL = (
    "raw features, random",
    "best control, random",
    "latents, random",
    "latents, the tool's choice",
)
COLOURS = {
    RAW: FAMILY_COLOURS["raw"],
    CONTROL: FAMILY_COLOURS["control"],
    LATENTS: FAMILY_COLOURS["learned"],
    TOOL: FAMILY_COLOURS["reconstruction"],
}
TITLES = {"vts": "VTS", "cholec80_tools": "Cholec80 tools", "history": "synthetic history"}

Drawn = tuple[np.ndarray, np.ndarray]
"""Seeds and test videos of one bootstrap sample."""


class Rows:
    """The rows of one data set."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.record = record
        self.frames = np.array(record["test_frames"], float)
        self.minutes = {row: [_column(run, "minutes") for run in each["runs"]] for row, each in self._rows()}
        self.right = {row: [_column(run, "right") for run in each["runs"]] for row, each in self._rows()}
        self.final = {row: np.array(each["final"]["right"], float) for row, each in self._rows()}

    def _rows(self) -> list[tuple[str, Mapping[str, Any]]]:
        return list(self.record["rows"].items())

    @property
    def everything(self) -> Drawn:
        """All seeds and test videos, once each."""
        return np.arange(len(self.minutes[RAW])), np.arange(len(self.frames))

    def samples(self) -> list[Drawn]:
        """Seeds and test videos drawn anew, the same ones for all rows."""
        random, (seeds, videos) = np.random.default_rng(0), self.everything
        return [(random.choice(seeds, len(seeds)), random.choice(videos, len(videos))) for _ in range(SAMPLES)]

    def accuracy(self, row: str, drawn: Drawn) -> float:
        """0-100, with all labels of the pool."""
        return 100 * float(self.final[row][drawn[1]].sum() / self.frames[drawn[1]].sum())

    def needed(self, row: str, drawn: Drawn, bar: float) -> float:
        """Minutes until the accuracy (0-100) is first reached, median over seeds.

        A run that never reaches it counts with all of its minutes, which happens in bootstrap samples only.
        """
        seeds, videos = drawn
        found = []
        for seed in seeds:
            curve = 100 * self.right[row][seed][:, videos].sum(axis=1) / self.frames[videos].sum()
            above = np.flatnonzero(curve >= bar)
            found.append(self.minutes[row][seed][above[0] if len(above) else -1])
        return float(np.median(found))

    def shown(self, row: str) -> np.ndarray:
        """By how many points the accuracy that the tool shows exceeds that on the test videos, when the row's own bar
        is first reached; for each order in which it shows one by then."""
        bar, found = SHARE * self.accuracy(row, self.everything), []
        for right, run in zip(self.right[row], self.record["rows"][row]["runs"], strict=True):
            curve = 100 * right.sum(axis=1) / self.frames.sum()
            at = int(np.flatnonzero(curve >= bar)[0])
            if run[at]["cross_validated"] is not None:
                found.append(run[at]["cross_validated"] - curve[at])
        return np.array(found)


def _column(run: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    return np.array([each[key] for each in run], float)


def write_page(out: Path, record: Mapping[str, Any]) -> None:
    """Write ``out.md``, but for what was said there by hand, and ``out.png``."""
    sets = {name: Rows(record["sets"][name]) for name in TITLES if name in record["sets"]}
    parts = [part for name, rows in sets.items() for part in _section(name, rows)]
    page = out.with_suffix(".md")
    before = page.read_text(encoding="utf-8") if page.exists() else ""
    said = before[before.index(SAID) :] if SAID in before else ""
    orders = max(len(rows.minutes[RAW]) for rows in sets.values())
    facts = {"orders": orders, "samples": f"{SAMPLES:,}", "picture": f"{out.name}.png"}
    text = INTRODUCTION.format(command=record["command"], software=record["software"], **facts)
    page.write_text("\n".join([text, *parts, said]).rstrip() + "\n", encoding="utf-8")
    _picture(sets).savefig(out.with_suffix(".png"), dpi=110)


INTRODUCTION = """# How much has to be labelled?

An annotator labels stretches of about a minute in the videos of the training and validation split; after each round the
tool's `LabelLearner` fits its head, which is scored on all frames of the test videos. Fold 1 only, {orders} orders of
labelling (the first stretch is drawn at random in every row); one pretrained model for each set. All rows see
the whole video (offline), and have the same learner: ridge regression on at most 256 principal components. *Minutes to
its own 90 %*: video labelled until the row first has 90 % of the accuracy that it has with all labels of the pool,
median over orders.
*Minutes to raw's 90 %*: the same bar for all rows, 90 % of what raw features have in the end. Brackets: 95 % interval,
orders and test videos drawn anew ({samples} times); rounds are one stretch apart at first and 20 % later, so small
numbers are coarse. The best control was chosen with all labels of the pool, which nobody has who begins to label: this
favours it.

    {command}

{software}

![accuracy over minutes labelled]({picture})
"""


def _section(name: str, rows: Rows) -> list[str]:
    record, samples = rows.record, [rows.everything, *rows.samples()]
    lines = [
        f"## {TITLES[name]}",
        "",
        f"{record['pool']} videos ({record['pool_minutes']:.0f} minutes) to label, {len(rows.frames)} test videos. "
        f"Best control: {record['control']}.",
        "",
        "| | accuracy, all labelled | minutes to its own 90 % | minutes to raw's 90 % "
        "| of raw's minutes, own 90 % | of raw's minutes, raw's 90 % |",
        "|---|---|---|---|---|---|",
    ]
    base = np.array([rows.needed(RAW, drawn, SHARE * rows.accuracy(RAW, drawn)) for drawn in samples])
    own = {}
    for row in rows.final:
        own[row] = np.array([rows.needed(row, drawn, SHARE * rows.accuracy(row, drawn)) for drawn in samples])
        common = np.array([rows.needed(row, drawn, SHARE * rows.accuracy(RAW, drawn)) for drawn in samples])
        cells = [f"{rows.accuracy(row, rows.everything):.1f}", _interval(own[row]), _interval(common)]
        cells += ["1", "1"] if row == RAW else [_interval(own[row] / base, 2), _interval(common / base, 2)]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    gain = _interval(own[TOOL] / own[LATENTS], 2)
    told = [f"{row} {np.mean(rows.shown(row)):+.0f}" for row in (LATENTS, TOOL)]
    return [
        *lines,
        "",
        f"The tool's choice takes {gain} of the minutes of random choice (latents, own 90 %). The accuracy that it",
        f"shows then, by cross-validation on what is labelled, is off by (points, mean): {'; '.join(told)}.",
        "",
    ]


def _interval(values: np.ndarray, digits: int = 0) -> str:
    """The first value, and the 95 % interval of the others."""
    low, high = np.percentile(values[1:], [2.5, 97.5], method="nearest")
    return f"{values[0]:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _picture(sets: Mapping[str, Rows]) -> Figure:
    """Accuracy over minutes for each set: mean over orders, and each order."""
    figure = Figure((4.2 * len(sets), 4.4), layout="constrained")
    for axes, (name, rows) in zip(np.atleast_1d(figure.subplots(1, len(sets))), sets.items(), strict=True):
        _panel(axes, rows)
        axes.set_title(TITLES[name])
    figure.supxlabel("minutes of video labelled", fontsize=10)
    figure.supylabel("frame accuracy on test videos", fontsize=10)
    lines = [Line2D([], [], color=colour) for colour in COLOURS.values()]
    bar = Line2D([], [], color="black", linestyle=":", linewidth=0.8)
    figure.legend([*lines, bar], [*COLOURS, "90 % of final"], loc="outside upper center", ncols=3, frameon=False)
    return figure


def _panel(axes: Axes, rows: Rows) -> None:
    for row, colour in COLOURS.items():
        ends = [minutes[-1] for minutes in rows.minutes[row]]
        grid = np.geomspace(1, np.median(ends), 60)
        curves = []
        for minutes, right in zip(rows.minutes[row], rows.right[row], strict=True):
            curve = 100 * right.sum(axis=1) / rows.frames.sum()
            axes.plot(minutes, curve, color=colour, alpha=0.15, linewidth=0.7)
            curves.append(np.interp(grid, minutes, curve))
        axes.plot(grid, np.mean(curves, axis=0), color=colour, linewidth=2)
        axes.axhline(SHARE * rows.accuracy(row, rows.everything), color=colour, linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.spines[["top", "right"]].set_visible(False)
