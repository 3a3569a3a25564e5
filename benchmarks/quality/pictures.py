"""The study's differences in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from keystep.files import replacing
from pooling import Line

COLOURS = {"offline": "#33608c", "causal": "#c0792a"}


def draw_gate(path: Path, lines: Sequence[Line]) -> None:
    """Differences with their intervals, against zero."""
    figure = Figure(figsize=(9, 1.2 + 0.42 * len(lines)), layout="constrained")
    axes = figure.subplots()
    for place, line in enumerate(reversed(lines)):
        d = line.difference
        axes.plot([d.low, d.high], [place, place], color=COLOURS[line.mode], linewidth=2)
        axes.plot(d.mean, place, "o", color=COLOURS[line.mode])
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(lines)), [f"{line.mode}: {line.words}" for line in reversed(lines)], fontsize=8)
    axes.set_xlabel("points of frame accuracy on test videos;\n95 % interval over videos and seeds")
    axes.grid(axis="x", alpha=0.3)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
