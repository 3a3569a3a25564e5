"""Draw the graph of a procedure: steps in the colours of their classes, from left to right in the order of the runs."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Outline

from keystep.errors import plain
from keystep.evals.palette import Palette, ink_on
from keystep.procedure import ProcedureGraph
from keystep.procedure.text import facts

Node = str | tuple[str, str, int]
"""A step, or the place where an edge (before, after) passes a column."""
Places = Mapping[Node, tuple[float, float]]

WIDTH, HEIGHT = 1.35, 0.62  # of a box, in inches
ACROSS, DOWN = 2.0, 0.95  # distance of columns and rows, in inches
SWEEPS = 12
OUTER = 0.06  # inches from the outline of a box to the second one
INK = "#333333"


def graph_picture(
    graph: ProcedureGraph,
    classes: Sequence[str] = (),
    *,
    done: Collection[str] = (),
    file_format: Literal["png", "svg"] = "png",
) -> bytes:
    """Draw a graph.

    Args:
        graph: of a procedure.
        classes: all class names of the data set, so that colours agree with other pictures of it.
        done: steps to mark as done.
        file_format: of the picture.

    Returns:
        The bytes of the file. Optional steps have a dashed outline, repeatable ones a second outline.
    """
    places = _places(graph.order)
    across = [x for x, _ in places.values()]
    down = [y for _, y in places.values()]
    size = (max(across) + WIDTH + 0.4, max(down) - min(down) + HEIGHT + 0.75)
    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(-WIDTH / 2 - 0.2, max(across) + WIDTH / 2 + 0.2)
    axes.set_ylim(max(down) + HEIGHT / 2 + 0.2, min(down) - HEIGHT / 2 - 0.55)
    axes.axis("off")
    for edge in graph.precedence:
        _draw_edge(axes, places, edge.before, edge.after, OUTER if graph.by_name[edge.after].repeatable else 0.0)
    palette = Palette(classes or [step.name for step in graph.steps])
    ids = {name: number for number, name in enumerate(palette.classes)}
    for step in graph.steps:
        text = "\n".join([*textwrap.wrap(plain(step.name), 18)[:2], facts(step)])
        colour = palette.colour(ids.get(step.name, -1))
        _draw_box(axes, places[step.name], text, colour, step.optional, step.repeatable, step.name in done)
    title = f"{graph.runs} runs; share of runs and median duration; dashed: optional, double: may be repeated"
    axes.text(-WIDTH / 2, min(down) - HEIGHT / 2 - 0.3, title, fontsize=8, color=INK, va="center")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=file_format, dpi=110)
    return buffer.getvalue()


def _places(order: nx.DiGraph) -> dict[Node, tuple[float, float]]:
    """Node -> (x, y) in inches. Columns are the lengths of the longest paths; few edges cross."""
    columns = [sorted(column) for column in nx.topological_generations(order)]
    at = {name: number for number, column in enumerate(columns) for name in column}
    layers: list[list[Node]] = [list(column) for column in columns]
    links = nx.Graph()
    links.add_nodes_from(order)
    for before, after in sorted(order.edges):
        passed: list[Node] = [(before, after, number) for number in range(at[before] + 1, at[after])]
        for number, node in enumerate(passed, start=at[before] + 1):
            layers[number].append(node)
        nx.add_path(links, [before, *passed, after])
    rows = {node: float(row) - len(layer) / 2 for layer in layers for row, node in enumerate(layer)}
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 0
        numbers = range(1, len(layers)) if forward else range(len(layers) - 2, -1, -1)
        for number in numbers:
            beside = set(layers[number - 1 if forward else number + 1])
            wanted = {node: _mean_row(links, node, beside, rows) for node in layers[number]}
            layers[number].sort(key=lambda node: wanted[node])
            rows |= _spread([wanted[node] for node in layers[number]], layers[number])
    return {node: (ACROSS * number, DOWN * rows[node]) for number, layer in enumerate(layers) for node in layer}


def _mean_row(links: nx.Graph, node: Node, beside: Collection[Node], rows: Mapping[Node, float]) -> float:
    near = [rows[other] for other in links[node] if other in beside]
    return float(np.mean(near)) if near else rows[node]


def _spread(wanted: Sequence[float], nodes: Sequence[Node]) -> dict[Node, float]:
    """Rows at a distance of at least 1, near the wanted ones, which ascend."""
    rows = list(wanted)
    for number in range(1, len(rows)):
        rows[number] = max(rows[number], rows[number - 1] + 1)
    shift = float(np.mean(wanted)) - float(np.mean(rows))
    return {node: row + shift for node, row in zip(nodes, rows, strict=True)}


def _draw_edge(axes: Axes, places: Places, before: str, after: str, gap: float) -> None:
    """A smooth arrow through the places that are reserved for it, to ``gap`` inches before the box."""
    stops = [node for node in places if isinstance(node, tuple) and node[:2] == (before, after)]
    start, end = places[before], places[after]
    points = [(start[0] + WIDTH / 2, start[1]), *(places[node] for node in stops), (end[0] - WIDTH / 2 - gap, end[1])]
    vertices, codes = [points[0]], [Outline.MOVETO]
    for (x, y), (to_x, to_y) in pairwise(points):
        middle = (x + to_x) / 2
        vertices += [(middle, y), (middle, to_y), (to_x, to_y)]
        codes += [Outline.CURVE4] * 3
    outline = Outline(vertices, codes)
    axes.add_patch(FancyArrowPatch(path=outline, arrowstyle="-|>", mutation_scale=9, color=INK, linewidth=0.9))


def _draw_box(
    axes: Axes, place: tuple[float, float], text: str, colour: str, optional: bool, repeatable: bool, done: bool
) -> None:
    x, y = place
    for margin in (OUTER, 0.0) if repeatable else (0.0,):
        corner, width, height = (
            (x - WIDTH / 2 - margin, y - HEIGHT / 2 - margin),
            WIDTH + 2 * margin,
            HEIGHT + 2 * margin,
        )
        axes.add_patch(
            FancyBboxPatch(
                corner,
                width,
                height,
                boxstyle="round,pad=0,rounding_size=0.09",
                facecolor="#ffffff" if margin else colour,
                edgecolor=INK,
                linewidth=2.4 if done else 1.0,
                linestyle="--" if optional else "-",
                zorder=2,
            )
        )
    axes.text(x, y, text, ha="center", va="center", fontsize=8, color=ink_on(colour), zorder=3, linespacing=1.3)
