"""`keystep discover`: unsupervised key-step discovery on raw features, the controls and every model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keystep.data.annotation import PARTS
from keystep.data.folder import FeatureFolder
from keystep.data.tasks import find_tasks
from keystep.data.time_scale import decorrelation_time
from keystep.encoding import encode_videos
from keystep.errors import InputError
from keystep.evals.candidates import Candidates
from keystep.evals.discovery import (
    Discovery,
    DiscoveryConfig,
    cluster_frames,
    random_frames,
    score_clusters,
    spread,
    uniform_segments,
)
from keystep.evals.entrants import CONTROLS, Group, Models, check_groups, check_models, load_groups, model_records
from keystep.evals.pictures import ribbons_png
from keystep.evals.representation import Representation
from keystep.evals.results import provenance
from keystep.files import check_new, check_ours, replacing, write_json
from keystep.loading import check_features
from keystep.locking import owning
from keystep.progress import SILENT, Progress

RESULT, PICTURE = "discovery.json", "discovery.png"
SEEDS = (0, 1, 2)
"""Seeds of k-means and of the random control."""
SCORES = ("f1", "iou", "precision", "recall")


@dataclass
class DiscoveryRow:
    """A table row: a representation or control, with a discovery for each seed."""

    name: str
    detail: str = ""
    runs: list[Discovery] = field(default_factory=list)

    def mean(self, score: str) -> float:
        """Mean of a score over the runs."""
        return float(np.mean([getattr(run, score) for run in self.runs]))

    def spread(self, score: str) -> float | None:
        """Standard deviation of a score over the runs; None for a single run."""
        return spread([getattr(run, score) for run in self.runs])

    def to_json(self) -> dict[str, Any]:
        """The row as in the result file."""
        return {
            "name": self.name,
            "detail": self.detail,
            "mean": {score: self.mean(score) for score in SCORES},
            "spread": {score: self.spread(score) for score in SCORES},
            "runs": [run.to_json() for run in self.runs],
        }


def discover(
    folder: FeatureFolder,
    models: Models,
    config: DiscoveryConfig,
    *,
    split: str | None = None,
    part: str = "test",
    background: Sequence[str] = (),
    task_pattern: str | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> DiscoveryStudy:
    """Cluster, match and score. With ``out``, write ``discovery.json`` and the ribbons of the first video.

    Args:
        folder: the data.
        models: as in `keystep.evaluate`.
        config: settings.
        split, part: the videos to score; without a split, all labelled videos.
        background: names of background classes, which are not key-steps.
        task_pattern: extracts a video's task from its name. Each task is clustered separately.
        out: result folder.
        overwrite: replace an existing result.
        progress: receives one update for each row.

    Raises:
        InputError: invalid data, models or settings, or an existing result.
    """
    with owning(out):
        if out is not None:
            check_output(out, overwrite=overwrite)
        groups = load_groups(models)
        check_groups(groups, (*CONTROLS, "uniform segments", "random frames"))
        study = DiscoveryStudy(folder, config, _background(folder, background), split, part, task_pattern)
        study.warnings = (
            check_models(groups, folder, split)
            if split is not None
            else [line for _, group in groups for found in group for line in check_features(found, folder)]
        )
        folder.problems.notes.extend(study.warnings)
        with progress.task("discovering", total=4 + len(groups), unit="rows", even=False) as task:
            for row in study.run(groups):
                task.advance(note=row.name)
        if out is not None:
            record = study.record() | {"models": model_records(groups), "command": provenance()["command"]}
            write_json(out / RESULT, record)
            with replacing(out / PICTURE) as temporary:
                temporary.write_bytes(study.picture())
    return study


def check_output(out: Path, *, overwrite: bool) -> None:
    """Check early that results can be written to a folder.

    Raises:
        InputError: it cannot be used.
    """
    check_ours(out, (RESULT, PICTURE))
    check_new(out / RESULT, overwrite)


class DiscoveryStudy:
    """Rows on the same videos with the same settings."""

    def __init__(
        self,
        folder: FeatureFolder,
        config: DiscoveryConfig,
        background: tuple[int, ...],
        split: str | None,
        part: str,
        task_pattern: str | None,
    ) -> None:
        if not folder.classes:
            raise InputError(f"{folder.root}: no mapping.txt and groundTruth/; scoring needs labels")
        self.folder, self.config, self.background = folder, config, background
        self.videos, self.choosing, self.part = _parts(folder, split, part)
        read = {
            video: folder.problems.attempt(video, lambda video=video: (folder.features(video), folder.labels(video)))  # type: ignore[misc]
            for video in dict.fromkeys((*self.videos, *self.choosing))
        }
        self.raw = {video: found[0] for video, found in read.items() if found is not None}
        self.truths = {video: found[1] for video, found in read.items() if found is not None}
        self.videos = tuple(video for video in self.videos if video in self.raw)
        self.choosing = tuple(video for video in self.choosing if video in self.raw) or self.videos
        if not self.videos:
            raise InputError(f"{folder.root}: no usable video in {part}")
        self.tasks = find_tasks(folder, list(self.raw), task_pattern)
        self.rows: list[DiscoveryRow] = []
        self.warnings: list[str] = []

    def run(self, groups: Sequence[Group]) -> Iterator[DiscoveryRow]:
        """Add and yield the rows: controls, raw features, smoothing, then the models."""
        lengths = {video: len(self.raw[video]) for video in self.videos}
        clusters = self.config.clusters
        yield self._add(DiscoveryRow("uniform segments", runs=[self._score(uniform_segments(lengths, clusters))]))
        random = [self._score(random_frames(lengths, clusters, seed)) for seed in SEEDS]
        yield self._add(DiscoveryRow("random frames", runs=random))
        yield self._add(self._clustered("raw features", [self.raw]))
        yield self._add(self._smoothing())
        for name, group in groups:
            oracle = self.folder.oracle or any(found.config.oracle for found in group)
            latents = [dict(encode_videos(found, self.folder, self.videos)) for found in group]
            detail = str(group[0].config.attention)
            yield self._add(self._clustered(f"{name} (ORACLE)" if oracle else name, latents, detail))

    def _add(self, row: DiscoveryRow) -> DiscoveryRow:
        self.rows.append(row)
        return row

    def _clustered(self, name: str, representations: Sequence[Representation], detail: str = "") -> DiscoveryRow:
        """A row with a run for each representation (the seeds of a model) and each seed of k-means."""
        runs = [self._discover(found, self.videos, seed) for found in representations for seed in SEEDS]
        return DiscoveryRow(name, detail, runs)

    def _discover(self, representation: Representation, videos: Sequence[str], seed: int) -> Discovery:
        tasks = {video: self.tasks[video] for video in videos}
        return self._score(cluster_frames(representation, tasks, self.config, seed))

    def _score(self, clusters: Mapping[str, np.ndarray]) -> Discovery:
        return score_clusters(clusters, self.truths, self.tasks, self.config, self.background)

    def _smoothing(self) -> DiscoveryRow:
        """The moving average with the best F1 on the validation videos. Only this control benefits from labels."""
        rate, raw = float(self.folder.timeline.rate), [self.raw[video] for video in self.videos]
        candidates = Candidates(raw, rate, decorrelation_time(raw, rate).tau).smoothing(causal=False)
        scored = [
            self._discover({video: control.transform(self.raw[video]) for video in self.choosing}, self.choosing, 0).f1
            for control in candidates
        ]
        best = candidates[int(np.argmax(scored))]
        smooth = {video: best.transform(self.raw[video]) for video in self.videos}
        by = "the same videos" if self.choosing == self.videos else "the validation videos"
        return self._clustered("moving average", [smooth], f"{best.name}, best of {len(candidates)} by F1 on {by}")

    def record(self) -> dict[str, Any]:
        """The content of the result file."""
        folder = self.folder
        return {
            "format": "keystep-discovery",
            "version": 1,
            "choices": self.config.describe(),
            "data": {
                "name": folder.root.resolve().name,
                "fingerprint": folder.fingerprint(),
                "oracle": folder.oracle,
                "rate_hz": float(folder.timeline.rate),
                "part": self.part,
                "videos": list(self.videos),
                "tasks": sorted({self.tasks[video] for video in self.videos}),
                "background": [folder.classes[label] for label in self.background],
                "notes": folder.problems.notes,
                "left_out": folder.problems.skipped,
            },
            "rows": [row.to_json() for row in self.rows],
        }

    def picture(self) -> bytes:
        """The true steps and matched clusters of the first video and seed."""
        video = self.videos[0]
        lines = {
            row.name: task.labels[video] for row in self.rows for task in row.runs[0].tasks if video in task.labels
        }
        background = [self.folder.classes[label] for label in self.background]
        rate = float(self.folder.timeline.rate)
        return ribbons_png(self.truths[video], lines, self.folder.classes, background, rate, video)


def _parts(folder: FeatureFolder, split: str | None, part: str) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """(videos to score, videos for selection, description of the former)."""
    if part not in (*PARTS, "all"):
        raise InputError(f"unknown --part {part!r}; expected one of {', '.join((*PARTS, 'all'))}")
    if split is None:
        labelled = tuple(name for name, video in folder.videos.items() if video.labels is not None)
        folder.problems.notes.append(
            "no --split: all videos are scored, including those that models were pretrained on (without labels)"
        )
        return labelled, (), "all videos"
    chosen = folder.split(split)
    videos = chosen.train + chosen.valid + chosen.test if part == "all" else chosen.part(part)
    return videos, chosen.valid, f"split {split}, {part}"


def _background(folder: FeatureFolder, names: Sequence[str]) -> tuple[int, ...]:
    unknown = sorted(set(names) - set(folder.classes))
    if unknown:
        raise InputError(f"--background {unknown[0]!r} is not a class in {folder.root / 'mapping.txt'}")
    return tuple(folder.classes.index(name) for name in names)
