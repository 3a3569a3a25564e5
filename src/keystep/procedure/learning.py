"""Learn the graph of a procedure from runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise

import networkx as nx
import numpy as np
from pydantic import Field

from keystep.config import Config
from keystep.data.spans import Span
from keystep.errors import InputError
from keystep.procedure.graph import Precedence, ProcedureGraph, Step, Transition

Run = Sequence[Span]
"""The segments of a run, in temporal order."""
QUANTILES = (0.1, 0.5, 0.9)


class GraphConfig(Config):
    """What counts as an order, as optional, and as repeated."""

    confidence: float = Field(default=0.98, gt=0.5, le=1)
    """Share of the runs with both steps that have to show the same order."""
    support: int = Field(default=10, ge=1)
    """Number of runs with both steps that an order needs."""
    required: float = Field(default=0.9, gt=0, le=1)
    """A step in a smaller share of the runs is optional."""
    repeatable: float = Field(default=0.05, gt=0, le=1)
    """A step that is done again in at least this share of its runs may be repeated."""


def runs_of(
    segments: Iterable[Run], background: Collection[str] = (), *, start: str | None = None, shortest: int = 1
) -> list[list[Span]]:
    """Turn the segments of videos into runs.

    Args:
        segments: of each video, in temporal order.
        background: names of segments that are no steps.
        start: the step with which a run begins, where a video shows several. What comes before the first one is left
            out, and so is the last run, which may be cut off, unless it is the only one. None: a video is one run.
        shortest: shorter segments, in slots, are left out.

    Returns:
        Runs without empty ones. Neighbouring segments of one step are merged, across what was left out between them.
    """
    runs = []
    for video in segments:
        kept = _merge([span for span in video if span.label not in background and span.stop - span.start >= shortest])
        if start is None:
            runs.append(kept)
            continue
        places = [place for place, span in enumerate(kept) if span.label == start]
        ends = places[1:] if len(places) > 1 else [len(kept)]
        runs += [kept[begin:end] for begin, end in zip(places, ends, strict=False)]
    return [run for run in runs if run]


def _merge(spans: Sequence[Span]) -> list[Span]:
    merged: list[Span] = []
    for span in spans:
        if merged and merged[-1].label == span.label:
            merged[-1] = Span(merged[-1].start, span.stop, span.label)
        else:
            merged.append(span)
    return merged


def learn_graph(
    runs: Sequence[Run], rate: float, config: GraphConfig | None = None, *, source: str = ""
) -> ProcedureGraph:
    """Learn steps, partial order and transitions.

    ``before`` precedes ``after`` if its *first* segment comes earlier in almost all runs that have both. Of orders that
    contradict each other in a cycle, the least certain are dropped; orders that follow from others are left out.

    Args:
        runs: of the procedure (`runs_of`).
        rate: slots per second.
        config: settings.
        source: where the runs come from.

    Raises:
        InputError: no run, or an empty one.
    """
    config = config or GraphConfig()
    if not runs or not all(runs):
        raise InputError(f"{source or 'graph'}: {len(runs)} runs, of which {sum(not run for run in runs)} are empty")
    names = sorted({span.label for run in runs for span in run})
    support, confidence = _count_orders(runs, names)
    order = _partial_order(names, support, confidence, config)
    place = {name: number for number, name in enumerate(names)}
    positions = _typical_positions(runs)
    ranked = nx.lexicographical_topological_sort(order, key=lambda name: (positions[name], name))
    return ProcedureGraph(
        runs=len(runs),
        source=source,
        settings={name: float(value) for name, value in config.model_dump().items()},
        steps=[_step(name, runs, rate, config) for name in ranked],
        precedence=[
            Precedence(
                before=before,
                after=after,
                support=int(support[place[before], place[after]]),
                confidence=float(confidence[place[before], place[after]]),
            )
            for before, after in sorted(order.edges)
        ],
        transitions=_transitions(runs),
    )


def _count_orders(runs: Sequence[Run], names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(S, S) number of runs with both steps, and (S, S) share of them in which the row's step comes first."""
    place = {name: number for number, name in enumerate(names)}
    both, earlier = np.zeros((2, len(names), len(names)))
    for run in runs:
        first = np.full(len(names), np.inf)
        for number, span in reversed(list(enumerate(run))):
            first[place[span.label]] = number
        present = np.isfinite(first)
        both += present[:, None] & present
        earlier += (first[:, None] < first) & present  # absent steps come at infinity
    return both.astype(int), np.divide(earlier, both, out=np.zeros_like(both), where=both > 0)


def _partial_order(
    names: Sequence[str], support: np.ndarray, confidence: np.ndarray, config: GraphConfig
) -> nx.DiGraph:
    """The transitive reduction of all sufficiently certain orders."""
    order = nx.DiGraph()
    order.add_nodes_from(names)
    certain = (support >= config.support) & (confidence >= config.confidence)
    for row, column in np.argwhere(certain).tolist():
        order.add_edge(names[row], names[column], certainty=(confidence[row, column], support[row, column]))
    while not nx.is_directed_acyclic_graph(order):
        cycle = nx.find_cycle(order)
        order.remove_edge(*min(cycle, key=lambda edge: (*order.edges[edge]["certainty"], edge)))
    return nx.transitive_reduction(order)


def _typical_positions(runs: Sequence[Run]) -> dict[str, float]:
    """Name -> mean position of its first segment, as a share of the run."""
    found: dict[str, list[float]] = {}
    for run in runs:
        for name in {span.label for span in run}:
            first = next(number for number, span in enumerate(run) if span.label == name)
            found.setdefault(name, []).append(first / len(run))
    return {name: float(np.mean(shares)) for name, shares in found.items()}


def _step(name: str, runs: Sequence[Run], rate: float, config: GraphConfig) -> Step:
    own = [[span for span in run if span.label == name] for run in runs]
    own = [spans for spans in own if spans]
    seconds = [(span.stop - span.start) / rate for spans in own for span in spans]
    share, repeated = len(own) / len(runs), sum(len(spans) > 1 for spans in own) / len(own)
    return Step(
        name=name,
        runs=len(own),
        segments=len(seconds),
        share=share,
        repeated=repeated,
        seconds=[float(value) for value in np.quantile(seconds, QUANTILES)],
        optional=share < config.required,
        repeatable=repeated >= config.repeatable,
    )


def _transitions(runs: Sequence[Run]) -> list[Transition]:
    counts: Counter[tuple[str | None, str | None]] = Counter()
    for run in runs:
        counts.update(pairwise([None, *(span.label for span in run), None]))
    ordered = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    return [Transition(before=before, after=after, count=count) for (before, after), count in ordered]


def edge_scores(found: Iterable[tuple[str, str]], true: Iterable[tuple[str, str]]) -> tuple[float, float]:
    """Precision and recall of precedence edges, 0-100, compared as transitive reductions.

    Raises:
        InputError: no true edge.
    """
    ours, theirs = set(found), set(true)
    if not theirs:
        raise InputError(f"the true graph has no edges to compare {len(ours)} with")
    common = 100 * len(ours & theirs)
    return (common / len(ours) if ours else 0.0), common / len(theirs)
