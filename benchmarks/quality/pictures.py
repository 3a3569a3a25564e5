"""The study in two pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from folds import Line, Score
from matplotlib.figure import Figure
from screening import MODES, Scores

from keystep.files import replacing

COLOURS = {"offline": "#33608c", "causal": "#c0792a"}


def draw_screen(path: Path, scores: dict[str, Scores], controls: Sequence[str]) -> None:
    """Validation accuracy of every variant, with the best control of each mode as a line."""
    names = [name for name in scores if name not in controls]
    names.sort(key=lambda name: sum(scores[name][mode]["alone"] for mode in scores[name]) / len(scores[name]))
    figure = Figure(figsize=(8, 1.5 + 0.28 * len(names)), layout="constrained")
    axes = figure.subplots()
    for mode in MODES:
        here = [(place, scores[name][mode]["alone"]) for place, name in enumerate(names) if mode in scores[name]]
        axes.plot([score for _, score in here], [place for place, _ in here], "o", color=COLOURS[mode], label=mode)
        best = max(controls, key=lambda name: scores[name][mode]["alone"])
        axes.axvline(scores[best][mode]["alone"], color=COLOURS[mode], linestyle=":", label=f"{mode}: {best}")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="frame accuracy on validation videos, % (one seed)", title=f"{len(names)} variants")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8)
    _save(figure, path)


def draw_gate(path: Path, lines: Sequence[Line]) -> None:
    """Differences with their intervals, against zero."""
    figure = Figure(figsize=(9, 1.2 + 0.42 * len(lines)), layout="constrained")
    axes = figure.subplots()
    for place, line in enumerate(reversed(lines)):
        d = line.difference
        axes.plot([d.low, d.high], [place, place], color=COLOURS[line.mode], linewidth=2)
        axes.plot(d.mean, place, "o", color=COLOURS[line.mode])
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(lines)), [f"{line.mode}: {line.claim}" for line in reversed(lines)], fontsize=8)
    axes.set(xlabel="points of frame accuracy on test videos, 95 % interval over videos and seeds")
    axes.grid(axis="x", alpha=0.3)
    _save(figure, path)


def draw_shares(path: Path, by_share: Mapping[float, Sequence[Score]]) -> None:
    """Test accuracy of every row against the share of videos with labels, a panel for each mode."""
    shares, colours = sorted(by_share), matplotlib.colormaps["tab20"]
    figure = Figure(figsize=(11, 5), layout="constrained")
    panels = figure.subplots(1, len(MODES), sharey=True)
    for axes, mode in zip(panels, MODES, strict=True):
        names = [score.name for score in by_share[shares[-1]] if score.mode == mode and score.family != "oracle"]
        for number, name in enumerate(names):
            found = {s: next((x for x in by_share[s] if (x.name, x.mode) == (name, mode)), None) for s in shares}
            points = [(100 * share, x.mean["accuracy"]) for share, x in found.items() if x is not None]
            learned = any(x is not None and x.family == "learned" for x in found.values())
            style = {"linewidth": 2.5 if learned else 1, "linestyle": "-" if learned else "--"}
            axes.plot(*zip(*points, strict=True), "o", markersize=3, color=colours(number), label=name, **style)
        axes.set(title=mode, xlabel="videos with labels, %")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=6)
    panels[0].set_ylabel("frame accuracy on test videos, %")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
