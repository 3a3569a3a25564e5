"""Is the true graph of a made-up procedure found? Precision and recall of its precedence edges.

    OMP_NUM_THREADS=1 python benchmarks/procedure_graph.py --out benchmarks/results/procedure_graph

Two generators, with three worlds each. *Runs*: a video is one run of a procedure with chains that are interleaved,
optional and repeated steps (`keystep.data.made_runs`). *Rounds*: a video shows several rounds of one task of
`keystep.data.synthetic`; they are cut at their first step. Edges are those of the transitive reduction. Intervals:
95 %, from bootstrap samples of the training videos. Clusters of discovered graphs get the name of the step that they
share most frames with, one to one; that is the only use of labels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import networkx as nx
import numpy as np
from scipy.optimize import linear_sum_assignment

from keystep.data.folder import FeatureFolder, open_dataset
from keystep.data.made_runs import RunsConfig, generate_runs, true_procedure
from keystep.data.spans import Span
from keystep.data.synthetic import SyntheticConfig, generate, make_world
from keystep.evals.graphing import discovered_segments, labelled_segments
from keystep.procedure import GraphConfig, learn_graph
from keystep.procedure.learning import edge_scores, runs_of
from measure import parser

Edges = frozenset[tuple[str, str]]
BACKGROUND = {"background"}
SHORTEST = 4
"""Slots (1 s) of the shortest cluster that counts as a step."""
NOISE = 0.1
"""Share of segments that get a wrong name, for the noisy rows."""


def rounds_truth(config: SyntheticConfig) -> Edges:
    """The precedence within a round of the only task (`keystep.data.procedures.rounds`)."""
    edges = [("bring", "fasten_1"), ("fasten_1", "reach"), ("reach", "fasten_2"), ("fasten_2", "fasten_3")]
    edges += [("fasten_3", "check"), *(("fasten_3", f"plain_{k}") for k in range(config.plain_steps))]
    for chain in make_world(config).tasks[0]:
        for count in (1, 2, 3):
            names = [f"fasten_{count}", *(f"work_{k}_after_{count}" for k in chain)]
            edges += list(pairwise(names))
    order = nx.DiGraph(edges)
    return frozenset(nx.transitive_reduction(order).edges)


def scored(runs: Sequence[Sequence[Span]], truth: Edges, config: GraphConfig) -> tuple[float, float]:
    """Precision and recall of the graph of runs."""
    graph = learn_graph(runs, 4.0, config)
    return edge_scores([(edge.before, edge.after) for edge in graph.precedence], truth)


def with_interval(
    videos: Sequence[Sequence[Span]], truth: Edges, config: GraphConfig, start: str | None, resamples: int
) -> str:
    """Precision and recall, with intervals over videos."""
    rng = np.random.default_rng(0)
    cut = [runs_of([video], BACKGROUND, start=start) for video in videos]
    found = scored([run for runs in cut for run in runs], truth, config)
    drawn = [
        scored([run for k in rng.integers(len(cut), size=len(cut)) for run in cut[k]], truth, config)
        for _ in range(resamples)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    return " | ".join(f"{value:.0f} ({a:.0f} to {b:.0f})" for value, a, b in zip(found, low, high, strict=True))


def noisy(videos: Sequence[Sequence[Span]], names: Sequence[str], seed: int) -> list[list[Span]]:
    """The same segments, `NOISE` of them with the name of a random step."""
    rng = np.random.default_rng(seed)
    return [
        [
            Span(span.start, span.stop, names[rng.integers(len(names))])
            if span.label not in BACKGROUND and rng.random() < NOISE
            else span
            for span in video
        ]
        for video in videos
    ]


def discovered(folder: FeatureFolder, videos: Sequence[str], clusters: int) -> list[list[Span]]:
    """Segments of clusters, with the names of the steps (background included) that they share most frames with."""
    found = discovered_segments(folder, videos, clusters)
    overlap = np.zeros((clusters, len(folder.classes)))
    for video, spans in zip(videos, found, strict=True):
        truth = folder.labels(video)
        for span in spans:
            ids = truth[span.start : span.stop]
            np.add.at(overlap, (int(span.label.rpartition("_")[2]), ids[ids >= 0]), 1)
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    names = {f"cluster_{row}": folder.classes[column] for row, column in zip(rows, columns, strict=True)}
    return [[Span(span.start, span.stop, names.get(span.label, span.label)) for span in spans] for spans in found]


def runs_lines(world: int, root: Path, resamples: int) -> list[str]:
    config = RunsConfig(seed=world)
    generate_runs(root / f"runs{world}", config)
    folder = open_dataset(root / f"runs{world}")
    videos, truth = folder.split("1").train, true_procedure(config).precedence
    labelled = labelled_segments(folder, videos)
    steps = [name for name in folder.classes if name not in BACKGROUND]
    rows = {
        f"runs, {count} labelled": (labelled[:count], GraphConfig(support=min(10, count // 2)))
        for count in (9, 18, 36, 72)
    }
    rows["runs, 72 labelled, 10 % of the names wrong"] = (noisy(labelled, steps, world), GraphConfig())
    rows["the same, confidence 0.8"] = (noisy(labelled, steps, world), GraphConfig(confidence=0.8))
    clusters = [
        [span for span in video if span.stop - span.start >= SHORTEST] for video in discovered(folder, videos, 16)
    ]
    rows["runs, 72 discovered (16 clusters), confidence 0.8"] = (clusters, GraphConfig(confidence=0.8))
    return [
        f"| {name} | {world} | {with_interval(*row[:1], truth, row[1], None, resamples)} |"
        for name, row in rows.items()
    ]


def rounds_lines(world: int, root: Path, resamples: int) -> list[str]:
    config = SyntheticConfig(seed=world, tasks=1)
    generate(root / f"rounds{world}", config)
    folder = open_dataset(root / f"rounds{world}")
    labelled = labelled_segments(folder, folder.split("1").train)
    return [
        f"| rounds, 72 labelled videos | {world} | "
        f"{with_interval(labelled, rounds_truth(config), GraphConfig(), 'bring', resamples)} |"
    ]


def main() -> None:
    found = parser(__doc__)
    found.add_argument("--worlds", type=int, default=3)
    found.add_argument("--resamples", type=int, default=1000)
    found.add_argument("--out", type=Path, required=True, help="write OUT.md")
    arguments = found.parse_args()
    lines = ["| segments | world | precision | recall |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as name:
        for make in (runs_lines, rounds_lines):
            made = [make(world, Path(name), arguments.resamples) for world in range(arguments.worlds)]
            lines += [line for same in zip(*made, strict=True) for line in same]
    command = f"python benchmarks/procedure_graph.py --worlds {arguments.worlds} --resamples {arguments.resamples}"
    text = f"# The graph of made-up procedures\n\n    {command} --out {arguments.out}\n\n"
    text += (__doc__ or "").split("\n\n", 2)[2] + "\n" + "\n".join(lines) + "\n"
    arguments.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
