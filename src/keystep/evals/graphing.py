"""`keystep graph`: the graph of a procedure from labelled, predicted or discovered segments of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keystep.data.annotation import read_labels
from keystep.data.folder import FeatureFolder
from keystep.data.spans import Span, spans_of
from keystep.data.tasks import find_tasks
from keystep.encoding import frame_vectors
from keystep.errors import InputError, named
from keystep.evals.discovery import DiscoveryConfig, cluster_frames
from keystep.evals.graph_picture import graph_picture
from keystep.evals.palette import BACKGROUND_NAMES
from keystep.files import replacing
from keystep.pjepa import PJEPA
from keystep.procedure import GraphConfig, ProcedureGraph, learn_graph, write_graph
from keystep.procedure.learning import runs_of
from keystep.procedure.text import to_dot, to_mermaid

ENDINGS = (".json", ".dot", ".mmd", ".png", ".svg")


def labelled_segments(folder: FeatureFolder, videos: Sequence[str]) -> list[list[Span]]:
    """The true segments of videos, in slots at the pooled rate."""
    return [spans_of(folder.labels(video), folder.classes) for video in videos]


def predicted_segments(folder: FeatureFolder, videos: Sequence[str], labels: Path) -> list[list[Span]]:
    """Segments of predictions, ``<video>.txt`` with a class name per slot, as ``keystep predict`` writes them.

    Raises:
        InputError: a missing file, an unknown class, or another number of lines than the video has slots.
    """
    found = []
    for video in videos:
        ids = read_labels(labels / f"{video}.txt", folder.classes)
        if len(ids) != folder.length(video):
            raise InputError(f"{labels / video}.txt: {len(ids)} lines for {folder.length(video)} slots of the video")
        found.append(spans_of(ids, folder.classes))
    return found


def discovered_segments(
    folder: FeatureFolder, videos: Sequence[str], clusters: int, model: PJEPA | None = None, seed: int = 0
) -> list[list[Span]]:
    """Segments of one cluster each, ``cluster_0`` and so on in the order of their mean position in the videos.

    Args:
        folder: the data; labels are not used.
        videos: names; they show one task and are clustered together, by k-means.
        clusters: number of clusters.
        model: clusters its latents. None: raw features.
        seed: of k-means.
    """
    vectors = frame_vectors(folder, videos, model)
    found = cluster_frames(vectors, dict.fromkeys(videos, ""), DiscoveryConfig(clusters=clusters), seed)
    positions = np.concatenate([np.linspace(0, 1, len(ids)) for ids in found.values()])
    ids = np.concatenate(list(found.values()))
    means = [positions[ids == cluster].mean() if (ids == cluster).any() else np.inf for cluster in range(clusters)]
    rank = np.argsort(np.argsort(means))
    names = [f"cluster_{number}" for number in range(clusters)]
    return [spans_of(rank[found[video]], names) for video in videos]


def chosen_videos(
    folder: FeatureFolder,
    *,
    split: str | None = None,
    part: str = "train",
    task: str | None = None,
    task_pattern: str | None = None,
    labelled: bool = True,
) -> list[str]:
    """The videos of one task in a part of a split, or in the whole folder without a split.

    Raises:
        InputError: no such split or part, no usable video, or videos of several tasks of which none is chosen.
    """
    own = folder.videos if split is None else folder.split(split).part(part)
    videos = [video for video in own if not labelled or folder.video(video).labels is not None]
    tasks = find_tasks(folder, videos, task_pattern)
    different = sorted(set(tasks.values()))
    if task is None and len(different) > 1:
        raise InputError(
            f"{folder.root}: videos of {len(different)} tasks, such as {named(different[0])}; choose one with --task"
        )
    if task is not None and task not in different:
        raise InputError(f"{folder.root}: no task {task!r}; there are {', '.join(map(named, different)) or 'none'}")
    videos = [video for video in videos if task in (None, tasks[video])]
    if not videos:
        raise InputError(f"{folder.root}: no labelled video to learn a graph from")
    return videos


def graph_of_segments(
    segments: Sequence[Sequence[Span]],
    rate: float,
    config: GraphConfig,
    *,
    background: Sequence[str] = (),
    start: str | None = None,
    min_seconds: float = 0.0,
    source: str = "",
) -> ProcedureGraph:
    """Learn a graph from the segments of videos.

    Args:
        segments: of each video.
        rate: slots per second.
        config: settings.
        background: names that are no steps, in addition to the usual ones (`BACKGROUND_NAMES`).
        start: first step of a run, where a video shows several runs (`runs_of`).
        min_seconds: shorter segments are left out.
        source: where the segments come from.

    Raises:
        InputError: ``start`` never occurs, or nothing remains.
    """
    names = {span.label for video in segments for span in video}
    if start is not None and start not in names:
        raise InputError(f"--start {start!r}: never done in these {len(segments)} videos")
    others = {name for name in names if name.lower() in BACKGROUND_NAMES}
    shortest = max(1, int(np.ceil(min_seconds * rate - 1e-9)))
    runs = runs_of(segments, {*background, *others}, start=start, shortest=shortest)
    if not runs:
        raise InputError(f"{source or 'graph'}: no segment of at least {min_seconds:g} s that is a step")
    return learn_graph(runs, rate, config, source=source)


def write_as(path: Path, graph: ProcedureGraph, classes: Sequence[str] = (), done: Sequence[str] = ()) -> None:
    """Write a graph as the ending of the path says: one of `ENDINGS`.

    Raises:
        InputError: another ending.
    """
    check_ending(path)
    if path.suffix == ".json":
        write_graph(path, graph)
        return
    match path.suffix:
        case ".dot":
            content = to_dot(graph).encode()
        case ".mmd":
            content = to_mermaid(graph).encode()
        case _:
            content = graph_picture(graph, classes, done=done, file_format="svg" if path.suffix == ".svg" else "png")
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def check_ending(path: Path) -> None:
    """Refuse a path that `write_as` cannot write.

    Raises:
        InputError: lists the endings.
    """
    if path.suffix not in ENDINGS:
        raise InputError(f"{path}: unknown ending {path.suffix!r}; expected one of {', '.join(ENDINGS)}")
