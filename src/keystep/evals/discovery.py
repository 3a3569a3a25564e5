"""Key-steps without labels: cluster the frames of one task's videos, match clusters to true key-steps, score.

What the field's scores hang on is named, because it moves them by many points: the number of clusters, what is
clustered together, what is matched together, how the background counts, and which convention averages. The convention
``cnc`` is that of EgoProceL's authors (Bansal et al., ECCV 2022; read from their ``evaluate/metrics.py``): clusters and
key-steps are matched one to one by the Hungarian method (most frames in common), and precision, recall and
intersection over union are averaged over the *matched* key-steps. A key-step that no cluster was left for costs
nothing there; in ``all-steps`` it counts 0. Three details are ours: only key-steps that occur in what is matched take
part (theirs has columns for all of the task's, which only matters for ties), F1 is that of the averaged precision and
recall (they print no F1), and frames without a label are left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from keystep.config import Config
from keystep.data.annotation import IGNORED
from keystep.errors import InputError

Ids = npt.NDArray[np.int64]
Scope = Literal["video", "task"]

NOTHING = -1
"""The class of frames whose cluster was matched to no key-step."""

CONVENTIONS = {
    "cnc": "mean over matched key-steps (EgoProceL's authors')",
    "frames": "frames of all matched key-steps added up (EgoProceL's authors', their other setting)",
    "all-steps": "mean over all key-steps, 0 where no cluster was left",
}


class DiscoveryConfig(Config):
    """What is clustered, matched and counted."""

    clusters: int = Field(ge=2)
    """K, the number of clusters. EgoProceL's authors give 7 to every task."""
    clustering: Scope = "task"
    """``task``: all videos of a task at once; ``video``: each alone, as EgoProceL's authors do for their scores by
    video."""
    matching: Scope = "video"
    """Whether clusters are matched to key-steps anew in every ``video``, or once for a ``task``. By video is the easier
    of the two."""
    convention: Literal["cnc", "frames", "all-steps"] = "cnc"
    """How matched frames become scores, see `CONVENTIONS`."""
    background: Literal["step", "unmatched"] = "step"
    """``step``: the background is one more key-step to be found, as in the authors' code; ``unmatched``: no cluster can
    be it, and its frames count against the precision of the clusters they fall into."""
    starts: int = Field(default=3, ge=1)
    """k-means runs of which the tightest is kept; no label chooses."""

    def describe(self) -> str:
        """The choices in a line, for tables."""
        kind = "a key-step to be found" if self.background == "step" else "matched to nothing"
        return (
            f"K = {self.clusters}, clustered by {self.clustering}, matched by {self.matching}, background {kind}, "
            f"{self.convention}: {CONVENTIONS[self.convention]}"
        )


@dataclass(frozen=True)
class DiscoveryScores:
    """Precision, recall and intersection over union, 0-100."""

    precision: float
    recall: float
    iou: float

    @property
    def f1(self) -> float:
        """Of precision and recall; 0 where both are."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


@dataclass(frozen=True)
class TaskDiscovery:
    """One task. steps: key-steps that occur in its videos. labels: video -> (T,) class ids, `NOTHING` unmatched."""

    task: str
    scores: DiscoveryScores
    steps: int
    labels: Mapping[str, Ids]


@dataclass(frozen=True)
class Discovery:
    """Clusters of all tasks, scored under one set of choices."""

    config: DiscoveryConfig
    tasks: tuple[TaskDiscovery, ...]

    @property
    def precision(self) -> float:
        """Mean over tasks, 0-100, as all four."""
        return float(np.mean([task.scores.precision for task in self.tasks]))

    @property
    def recall(self) -> float:
        """Mean over tasks."""
        return float(np.mean([task.scores.recall for task in self.tasks]))

    @property
    def iou(self) -> float:
        """Mean over tasks."""
        return float(np.mean([task.scores.iou for task in self.tasks]))

    @property
    def f1(self) -> float:
        """Mean over tasks of each task's F1."""
        return float(np.mean([task.scores.f1 for task in self.tasks]))

    def to_json(self) -> dict[str, Any]:
        """Scores with all choices."""
        return {
            **self.config.model_dump(mode="json"),
            **{name: getattr(self, name) for name in ("f1", "iou", "precision", "recall")},
            "tasks": {
                task.task: {
                    **{name: getattr(task.scores, name) for name in ("f1", "iou", "precision", "recall")},
                    "videos": len(task.labels),
                    "steps": task.steps,
                }
                for task in self.tasks
            },
        }


def cluster_frames(
    representation: Mapping[str, np.ndarray], tasks: Mapping[str, str], config: DiscoveryConfig, seed: int = 0
) -> dict[str, Ids]:
    """k-means (k-means++ starts) on the frames as they are: video -> (T,) cluster ids. tasks: video -> its task.

    Raises:
        InputError: fewer frames than clusters in what is clustered together.
    """
    found: dict[str, Ids] = {}
    for name, videos in _groups(tasks, config.clustering).items():
        frames = np.concatenate([representation[video] for video in videos])
        if len(frames) < config.clusters:
            where = name or f"{len(videos)} videos together"  # videos of one task, which need not have a name
            raise InputError(f"{where}: {len(frames)} frames cannot make {config.clusters} clusters; set fewer")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # equal frames: some clusters stay empty, and score so
            fitted = KMeans(config.clusters, n_init=config.starts, random_state=seed).fit(frames)
        ends = np.cumsum([len(representation[video]) for video in videos])[:-1]
        found |= dict(zip(videos, np.split(fitted.labels_.astype(np.int64), ends), strict=True))
    return found


def uniform_segments(lengths: Mapping[str, int], clusters: int) -> dict[str, Ids]:
    """Control: every video cut into K stretches of one length, the first of all videos being one cluster."""
    return {video: np.arange(length, dtype=np.int64) * clusters // length for video, length in lengths.items()}


def random_frames(lengths: Mapping[str, int], clusters: int, seed: int = 0) -> dict[str, Ids]:
    """Control: a random cluster for every frame."""
    random = np.random.default_rng(seed)
    return {video: random.integers(clusters, size=length) for video, length in lengths.items()}


def score_clusters(
    clusters: Mapping[str, Ids],
    truths: Mapping[str, Ids],
    tasks: Mapping[str, str],
    config: DiscoveryConfig,
    background: Collection[int] = (),
) -> Discovery:
    """Match and score. clusters: video -> (T,) ids from 0; truths: video -> (T,) class ids, `IGNORED` without a label.

    Precision, recall and IoU of a task are means over its videos with ``matching="video"``.

    Raises:
        InputError: a video without truth, of another length, or a task without any key-step.
    """
    for video, ids in clusters.items():
        if video not in truths or len(truths[video]) != len(ids):
            raise InputError(f"{video}: {len(ids)} clustered frames and {len(truths.get(video, ()))} true labels")
    results = []
    for task, videos in _groups({video: tasks[video] for video in clusters}, "task").items():
        scores, labels, steps = [], {}, set[int]()
        for together in [[video] for video in videos] if config.matching == "video" else [videos]:
            predicted = np.concatenate([clusters[video] for video in together])
            truth = np.concatenate([truths[video] for video in together])
            table = Table.count(predicted, truth, () if config.background == "step" else background)
            for video in together:
                labels[video] = table.rename(clusters[video])
            if len(table.steps):  # a video of background alone says nothing of key-steps
                scores.append(table.score(config.convention))
                steps |= set(table.steps.tolist())
        if not scores:
            raise InputError(f"{task or 'these videos'}: no frame of its {len(videos)} videos has a key-step")
        means = np.mean([(score.precision, score.recall, score.iou) for score in scores], axis=0)
        results.append(TaskDiscovery(task, DiscoveryScores(*means.tolist()), len(steps), labels))
    return Discovery(config, tuple(results))


@dataclass(frozen=True)
class Table:
    """Frames that key-steps and clusters have in common, and which go together.

    steps: (S,) class ids that occur and may be matched. overlap: (S, K) frames. step_frames: (S,) frames of each step;
    cluster_frames: (K,) of each cluster, those on a background that matches nothing included. pairs: (M, 2) matched
    rows and columns of ``overlap``.
    """

    steps: Ids
    overlap: Ids
    step_frames: Ids
    cluster_frames: Ids
    pairs: Ids

    @classmethod
    def count(cls, clusters: Ids, truth: Ids, unmatched: Collection[int] = ()) -> Table:
        """Count frames with a label, and match: one to one, most frames in common."""
        known = truth != IGNORED
        clusters, truth = clusters[known], truth[known]
        count = int(clusters.max(initial=-1)) + 1
        steps = np.setdiff1d(truth, np.array(list(unmatched), dtype=np.int64))
        rows = np.searchsorted(steps, truth)
        kept = np.isin(truth, steps)
        overlap = np.zeros((len(steps), count), dtype=np.int64)
        np.add.at(overlap, (rows[kept], clusters[kept]), 1)
        pairs = np.stack(linear_sum_assignment(overlap, maximize=True), axis=1).astype(np.int64)
        return cls(steps, overlap, overlap.sum(1), np.bincount(clusters, minlength=count).astype(np.int64), pairs)

    def rename(self, clusters: Ids) -> Ids:
        """(T,) cluster ids -> (T,) class ids; `NOTHING` for a cluster without a key-step."""
        names = np.full(max(int(clusters.max(initial=-1)) + 1, self.overlap.shape[1]), NOTHING, dtype=np.int64)
        names[self.pairs[:, 1]] = self.steps[self.pairs[:, 0]]
        renamed: Ids = names[clusters]
        return renamed

    def score(self, convention: str) -> DiscoveryScores:
        """Precision, recall and IoU under one of the `CONVENTIONS`."""
        rows, columns = self.pairs.T
        common = self.overlap[rows, columns].astype(np.float64)
        true, found = self.step_frames[rows], self.cluster_frames[columns]
        union = true + found - common
        if convention == "frames":
            return DiscoveryScores(*(100 * common.sum() / total.sum() for total in (found, true, union)))
        pairs = len(self.steps) if convention == "all-steps" else len(rows)
        parts = (found, true, union)  # a cluster may be empty; it has nothing in common then
        return DiscoveryScores(*(100 * float((common / np.maximum(part, 1)).sum()) / pairs for part in parts))


def _groups(tasks: Mapping[str, str], scope: Scope) -> dict[str, list[str]]:
    """What belongs together: videos by task, or each alone."""
    groups: dict[str, list[str]] = {}
    for video, task in tasks.items():
        groups.setdefault(task if scope == "task" else video, []).append(video)
    return groups


def spread(values: Sequence[float]) -> float | None:
    """Standard deviation over seeds; None for a single one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
