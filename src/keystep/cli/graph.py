"""``keystep graph``: the graph of a procedure, learned from a data set or read from a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from keystep.cli.data import list_problems, open_data
from keystep.config.base import assignments, build
from keystep.data.folder import FeatureFolder
from keystep.data.spans import Span
from keystep.errors import InputError, quoted
from keystep.evals.graphing import (
    check_ending,
    chosen_videos,
    discovered_segments,
    graph_of_segments,
    labelled_segments,
    predicted_segments,
    write_as,
)
from keystep.files import check_new
from keystep.loading import check_features, load
from keystep.procedure import GraphConfig, Order, ProcedureGraph, read_graph

LIKELY = 5
"""Number of next steps that are listed."""


@dataclass(frozen=True)
class GraphSource:
    """Where the segments come from, as given on the command line (see `keystep graph --help`)."""

    split: str | None = None
    part: str = "train"
    labels: Path | None = None
    clusters: int | None = None
    model: str | None = None
    task: str | None = None
    task_pattern: str | None = None
    background: list[str] = field(default_factory=list)
    start: str | None = None
    min_seconds: float = 0.0
    source_rate: str | None = None
    rate: str | None = None
    on_error: str = "raise"


def graph_command(
    data: Path,
    out: list[Path],
    source: GraphSource,
    done: list[str] | None,
    settings: list[str],
    console: Console,
    *,
    overwrite: bool = False,
) -> None:
    """Learn or read a graph, write it, and print it, or what can follow ``done``."""
    for path in out:
        check_ending(path)
        check_new(path, overwrite, "a graph")
    graph, classes = _found(data, source, settings, console)
    unknown = sorted(set(done or []) - set(graph.by_name))
    if unknown:
        raise InputError(f"--done {quoted(unknown[0])}: no such step; the steps are {', '.join(graph.by_name)}")
    for path in out:
        write_as(path, graph, classes, done or [])
    console.print(_table(graph) if done is None else _next(graph, done))
    if done is not None:
        missing = Order(graph).missing(done)
        console.print(f"missing at the end: {', '.join(missing) or 'nothing'}", soft_wrap=True, markup=False)
    if out:
        console.print(f"written: {', '.join(map(str, out))}", soft_wrap=True, markup=False)


def _found(
    data: Path, source: GraphSource, settings: list[str], console: Console
) -> tuple[ProcedureGraph, tuple[str, ...]]:
    """The graph, and the classes of the data set that it was learned from."""
    if data.is_file():
        return read_graph(data), ()
    config = build(GraphConfig, assignments(settings))
    labelled = source.labels is None and source.clusters is None
    folder = open_data(data, source.source_rate, source.rate, source.on_error, labels_needed=labelled)
    videos = chosen_videos(
        folder,
        split=source.split,
        part=source.part,
        task=source.task,
        task_pattern=source.task_pattern,
        labelled=labelled,
    )
    segments, kind = _segments(folder, videos, source)
    list_problems(folder, console)
    where = f"{folder.root.resolve().name}, {kind} of {len(videos)} videos"
    where += f" ({source.part} of split {source.split})" if source.split is not None else ""
    graph = graph_of_segments(
        segments,
        float(folder.timeline.rate),
        config,
        background=source.background,
        start=source.start,
        min_seconds=source.min_seconds,
        source=where,
    )
    return graph, folder.classes if source.clusters is None else ()


def _segments(folder: FeatureFolder, videos: list[str], source: GraphSource) -> tuple[list[list[Span]], str]:
    if source.labels is not None and source.clusters is not None:
        raise InputError("--labels and --clusters are two sources of segments; give one of them")
    if source.model is not None and source.clusters is None:
        raise InputError("--model is for --clusters, the number of clusters of its latents")
    if source.labels is not None:
        return predicted_segments(folder, videos, source.labels), "predicted segments"
    if source.clusters is None:
        return labelled_segments(folder, videos), "labelled segments"
    model = None if source.model is None else load(source.model)
    if model is not None:
        folder.problems.notes.extend(check_features(model, folder))
    return discovered_segments(folder, videos, source.clusters, model), f"{source.clusters} clusters"


def _table(graph: ProcedureGraph) -> Table:
    table = Table(title=f"{graph.source}: {len(graph.steps)} steps, {len(graph.precedence)} orders, {graph.runs} runs")
    table.add_column("step", overflow="fold")
    for column in ("runs", "again", "median", "80 % of durations"):
        table.add_column(column, justify="right")
    table.add_column("directly after", overflow="fold")
    for step in graph.steps:
        low, middle, high = step.seconds
        share = f"{100 * step.share:.0f} %" + (" optional" if step.optional else "")
        before = [edge.before for edge in graph.precedence if edge.after == step.name]
        durations = f"{low:.1f} to {high:.1f} s"
        table.add_row(step.name, share, f"{100 * step.repeated:.0f} %", f"{middle:.1f} s", durations, ", ".join(before))
    return table


def _next(graph: ProcedureGraph, done: list[str]) -> Table:
    table = Table(title=f"after {', '.join(done) or 'the start'}")
    table.add_column("next", overflow="fold")
    table.add_column("probability", justify="right")
    table.add_column("out of order", overflow="fold")
    for option in Order(graph).next_steps(done)[:LIKELY]:
        reasons = [f"lacks {name}" for name in option.lacking] + (["done already"] if option.again else [])
        table.add_row(option.step or "(end)", f"{option.probability:.2f}", ", ".join(reasons))
    return table
