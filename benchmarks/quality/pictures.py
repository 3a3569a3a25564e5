"""The study in two pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from folds import Line
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


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
