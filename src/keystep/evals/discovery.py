"""Unsupervised key-step discovery: cluster the frames of a task's videos, match clusters to key-steps, and score.

Scores depend by many points on the number of clusters, on what is clustered and matched together, on the background,
and on how scores are averaged, so all of these are explicit settings. The convention ``cnc`` is that of the authors of
EgoProceL (Bansal et al., ECCV 2022; from their ``evaluate/metrics.py``): clusters are matched to key-steps one to one
by the Hungarian algorithm (maximum overlap), and precision, recall and intersection over union are averaged over the
*matched* key-steps. An unmatched key-step is ignored there; in ``all-steps`` it counts as 0. We differ in three
details: only key-steps that occur in the matched videos take part (which matters for ties only), F1 is computed from
the averaged precision and recall (they report no F1), and unlabelled frames are ignored.
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

UNMATCHED = -1
"""Class id of frames whose cluster is not matched to a key-step."""

CONVENTIONS = {
    "cnc": "mean over matched key-steps (EgoProceL's authors')",
    "frames": "pooled over the frames of all matched key-steps (EgoProceL's authors', their other setting)",
    "all-steps": "mean over all key-steps, 0 if unmatched",
}


class DiscoveryConfig(Config):
    """Settings of clustering, matching and scoring."""

    clusters: int = Field(ge=2)
    """K, the number of clusters. EgoProceL's authors use 7 for every task."""
    clustering: Scope = "task"
    """``task``: all videos of a task together; ``video``: each video separately, as EgoProceL's authors do for their
    video-level scores.
    """
    matching: Scope = "video"
    """Whether clusters are matched to key-steps for every ``video``, or once for a ``task``, which is harder."""
    convention: Literal["cnc", "frames", "all-steps"] = "cnc"
    """How matched frames are scored, see `CONVENTIONS`."""
    background: Literal["step", "unmatched"] = "step"
    """``step``: the background is one more key-step, as in the authors' code; ``unmatched``: no cluster can be matched
    to it, and its frames count against the precision of their clusters.
    """
    starts: int = Field(default=3, ge=1)
    """Number of k-means initialisations; the one with the lowest inertia is used."""

    def describe(self) -> str:
        """The settings in one line, for tables."""
        kind = "a key-step" if self.background == "step" else "unmatched"
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
        """Harmonic mean of precision and recall; 0 if both are 0."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


@dataclass(frozen=True)
class TaskDiscovery:
    """The result for one task.

    steps: number of key-steps that occur in its videos. labels: video -> (T,) class ids, `UNMATCHED` if unmatched.
    """

    task: str
    scores: DiscoveryScores
    steps: int
    labels: Mapping[str, Ids]


@dataclass(frozen=True)
class Discovery:
    """The results for all tasks."""

    config: DiscoveryConfig
    tasks: tuple[TaskDiscovery, ...]

    @property
    def precision(self) -> float:
        """Mean over tasks, 0-100."""
        return float(np.mean([task.scores.precision for task in self.tasks]))

    @property
    def recall(self) -> float:
        """Mean over tasks, 0-100."""
        return float(np.mean([task.scores.recall for task in self.tasks]))

    @property
    def iou(self) -> float:
        """Mean over tasks, 0-100."""
        return float(np.mean([task.scores.iou for task in self.tasks]))

    @property
    def f1(self) -> float:
        """Mean of the tasks' F1, 0-100."""
        return float(np.mean([task.scores.f1 for task in self.tasks]))

    def to_json(self) -> dict[str, Any]:
        """Scores and settings."""
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
    """Cluster frames by k-means (k-means++ initialisation).

    Args:
        representation: video -> (T, D).
        tasks: video -> its task.
        config: settings.
        seed: of k-means.

    Returns:
        Video -> (T,) cluster ids.

    Raises:
        InputError: fewer frames than clusters.
    """
    found: dict[str, Ids] = {}
    for name, videos in _groups(tasks, config.clustering).items():
        frames = np.concatenate([representation[video] for video in videos])
        if len(frames) < config.clusters:
            where = name or f"{len(videos)} videos"  # the only task may have no name
            raise InputError(f"{where}: {len(frames)} frames are too few for {config.clusters} clusters")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # duplicate frames may leave clusters empty
            fitted = KMeans(config.clusters, n_init=config.starts, random_state=seed).fit(frames)
        ends = np.cumsum([len(representation[video]) for video in videos])[:-1]
        found |= dict(zip(videos, np.split(fitted.labels_.astype(np.int64), ends), strict=True))
    return found


def uniform_segments(lengths: Mapping[str, int], clusters: int) -> dict[str, Ids]:
    """Control: split every video into K segments of equal length; the k-th segments of all videos form a cluster."""
    return {video: np.arange(length, dtype=np.int64) * clusters // length for video, length in lengths.items()}


def random_frames(lengths: Mapping[str, int], clusters: int, seed: int = 0) -> dict[str, Ids]:
    """Control: assign every frame to a random cluster."""
    random = np.random.default_rng(seed)
    return {video: random.integers(clusters, size=length) for video, length in lengths.items()}


def score_clusters(
    clusters: Mapping[str, Ids],
    truths: Mapping[str, Ids],
    tasks: Mapping[str, str],
    config: DiscoveryConfig,
    background: Collection[int] = (),
) -> Discovery:
    """Match clusters to key-steps and score them.

    Args:
        clusters: video -> (T,) cluster ids from 0.
        truths: video -> (T,) class ids, `IGNORED` for unlabelled frames.
        tasks: video -> its task.
        config: settings. With ``matching="video"``, the scores of a task are means over its videos.
        background: class ids of the background.

    Raises:
        InputError: a video without labels or with another number of them, or a task without key-steps.
    """
    for video, ids in clusters.items():
        if video not in truths or len(truths[video]) != len(ids):
            raise InputError(f"{video}: {len(ids)} clustered frames, but {len(truths.get(video, ()))} true labels")
    results = []
    for task, videos in _groups({video: tasks[video] for video in clusters}, "task").items():
        scores, labels, steps = [], {}, set[int]()
        for together in [[video] for video in videos] if config.matching == "video" else [videos]:
            predicted = np.concatenate([clusters[video] for video in together])
            truth = np.concatenate([truths[video] for video in together])
            table = Contingency.count(predicted, truth, () if config.background == "step" else background)
            for video in together:
                labels[video] = table.rename(clusters[video])
            if len(table.steps):  # skip videos that are only background
                scores.append(table.score(config.convention))
                steps |= set(table.steps.tolist())
        if not scores:
            raise InputError(f"{task or 'these videos'}: none of the {len(videos)} videos has a key-step")
        means = np.mean([(score.precision, score.recall, score.iou) for score in scores], axis=0)
        results.append(TaskDiscovery(task, DiscoveryScores(*means.tolist()), len(steps), labels))
    return Discovery(config, tuple(results))


@dataclass(frozen=True)
class Contingency:
    """Contingency table of key-steps and clusters, and their matching.

    Attributes:
        steps: (S,) class ids that occur and may be matched.
        overlap: (S, K) number of common frames.
        step_frames: (S,) number of frames of each step.
        cluster_frames: (K,) number of frames of each cluster, including background frames.
        pairs: (M, 2) matched rows and columns of ``overlap``.
    """

    steps: Ids
    overlap: Ids
    step_frames: Ids
    cluster_frames: Ids
    pairs: Ids

    @classmethod
    def count(cls, clusters: Ids, truth: Ids, unmatched: Collection[int] = ()) -> Contingency:
        """Count labelled frames, and match one to one with maximum overlap."""
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
        """(T,) cluster ids -> (T,) class ids, `UNMATCHED` for unmatched clusters."""
        names = np.full(max(int(clusters.max(initial=-1)) + 1, self.overlap.shape[1]), UNMATCHED, dtype=np.int64)
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
        parts = (found, true, union)  # an empty cluster has no overlap
        return DiscoveryScores(*(100 * float((common / np.maximum(part, 1)).sum()) / pairs for part in parts))


def _groups(tasks: Mapping[str, str], scope: Scope) -> dict[str, list[str]]:
    """Videos grouped by task, or each separately."""
    groups: dict[str, list[str]] = {}
    for video, task in tasks.items():
        groups.setdefault(task if scope == "task" else video, []).append(video)
    return groups


def spread(values: Sequence[float]) -> float | None:
    """Standard deviation over seeds; None for a single one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
