"""Key-steps without labels: raw features, the controls and every model, clustered and scored alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keystep.data.annotation import PARTS
from keystep.data.clock import decorrelation_time
from keystep.data.folder import FeatureFolder
from keystep.data.tasks import tasks_of
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
from keystep.evals.entrants import CONTROLS, Group, Models, check_groups, check_models, loaded_groups, model_records
from keystep.evals.judge import Representation
from keystep.evals.pictures import ribbons_png
from keystep.evals.results import making
from keystep.files import check_new, check_ours, replacing, write_json
from keystep.loading import check_features
from keystep.locking import owning
from keystep.progress import SILENT, Progress

RESULT, PICTURE = "discovery.json", "discovery.png"
SEEDS = (0, 1, 2)
"""Starts of k-means (and of the random control)."""
SCORES = ("f1", "iou", "precision", "recall")


@dataclass
class Row:
    """One line of the table: a representation or control, and a discovery for each seed."""

    name: str
    detail: str = ""
    runs: list[Discovery] = field(default_factory=list)

    def mean(self, score: str) -> float:
        """Over the runs."""
        return float(np.mean([getattr(run, score) for run in self.runs]))

    def spread(self, score: str) -> float | None:
        """Over the runs; None for a single one."""
        return spread([getattr(run, score) for run in self.runs])

    def to_json(self) -> dict[str, Any]:
        """For the file."""
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
    """Cluster, match, score; with ``out``, write ``discovery.json`` and ribbons of the first video.

    Args:
        models: as for `keystep.evaluate`.
        split, part: which videos; without a split all that have labels.
        background: classes that are no key-steps.
        task_pattern: finds a video's task in its name; each task is its own study.

    Raises:
        InputError: unusable data, models or settings, or a result that is there already.
    """
    with owning(out):
        if out is not None:
            check_output(out, overwrite=overwrite)
        groups = loaded_groups(models)
        check_groups(groups, (*CONTROLS, "uniform segments", "random frames"))
        study = DiscoveryStudy(folder, config, _background(folder, background), split, part, task_pattern)
        study.warnings = (
            check_models(groups, folder, split)
            if split is not None
            else [line for _, group in groups for found in group for line in check_features(found, folder)]
        )
        folder.problems.notes.extend(study.warnings)
        with progress.task("discovering", total=4 + len(groups), unit="rows") as task:
            for row in study.run(groups):
                task.advance(note=row.name)
        if out is not None:
            record = study.record() | {"models": model_records(groups), "command": making()["command"]}
            write_json(out / RESULT, record)
            with replacing(out / PICTURE) as temporary:
                temporary.write_bytes(study.picture())
    return study


def check_output(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder for results before any work is done for it."""
    check_ours(out, (RESULT, PICTURE))
    check_new(out / RESULT, overwrite)


class DiscoveryStudy:
    """Rows on the same videos, under the same choices."""

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
            raise InputError(f"{folder.root}: none of the {part} videos can be used")
        self.tasks = tasks_of(folder, list(self.raw), task_pattern)
        self.rows: list[Row] = []
        self.warnings: list[str] = []

    def run(self, groups: Sequence[Group]) -> Iterator[Row]:
        """Controls, raw features, smoothing, then the models."""
        lengths = {video: len(self.raw[video]) for video in self.videos}
        clusters = self.config.clusters
        yield self._add(Row("uniform segments", runs=[self._score(uniform_segments(lengths, clusters))]))
        random = [self._score(random_frames(lengths, clusters, seed)) for seed in SEEDS]
        yield self._add(Row("random frames", runs=random))
        yield self._add(self._clustered("raw features", [self.raw]))
        yield self._add(self._smoothing())
        for name, group in groups:
            oracle = self.folder.oracle or any(found.config.oracle for found in group)
            latents = [dict(encode_videos(found, self.folder, self.videos)) for found in group]
            detail = str(group[0].config.attention)
            yield self._add(self._clustered(f"{name} (ORACLE)" if oracle else name, latents, detail))

    def _add(self, row: Row) -> Row:
        self.rows.append(row)
        return row

    def _clustered(self, name: str, representations: Sequence[Representation], detail: str = "") -> Row:
        """A row with a run for each representation (the seeds of a model) and each start of k-means."""
        runs = [self._discover(found, self.videos, seed) for found in representations for seed in SEEDS]
        return Row(name, detail, runs)

    def _discover(self, representation: Representation, videos: Sequence[str], seed: int) -> Discovery:
        tasks = {video: self.tasks[video] for video in videos}
        return self._score(cluster_frames(representation, tasks, self.config, seed))

    def _score(self, clusters: Mapping[str, np.ndarray]) -> Discovery:
        return score_clusters(clusters, self.truths, self.tasks, self.config, self.background)

    def _smoothing(self) -> Row:
        """The moving average whose F1 is best on the videos to choose by: its labels help this control alone."""
        rate, raw = float(self.folder.timeline.rate), [self.raw[video] for video in self.videos]
        candidates = Candidates(raw, rate, decorrelation_time(raw, rate).tau).smoothing(causal=False)
        scored = [
            self._discover({video: control.transform(self.raw[video]) for video in self.choosing}, self.choosing, 0).f1
            for control in candidates
        ]
        best = candidates[int(np.argmax(scored))]
        smooth = {video: best.transform(self.raw[video]) for video in self.videos}
        by = "these very videos" if self.choosing == self.videos else "the validation videos"
        return self._clustered("moving average", [smooth], f"{best.name}, best of {len(candidates)} by F1 on {by}")

    def record(self) -> dict[str, Any]:
        """What goes into the file."""
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
        """True steps and matched clusters of the first video, first seed."""
        video = self.videos[0]
        lines = {
            row.name: task.labels[video] for row in self.rows for task in row.runs[0].tasks if video in task.labels
        }
        background = [self.folder.classes[label] for label in self.background]
        return ribbons_png(self.truths[video], lines, self.folder.classes, background, float(self.folder.timeline.rate))


def _parts(folder: FeatureFolder, split: str | None, part: str) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """(videos to score, videos to choose by, what they are in words)."""
    if part not in (*PARTS, "all"):
        raise InputError(f"--part {part!r} is none of {', '.join((*PARTS, 'all'))}")
    if split is None:
        labelled = tuple(name for name, video in folder.videos.items() if video.labels is not None)
        folder.problems.notes.append(
            "no --split: all videos are scored, those that models were pretrained on (without labels) among them"
        )
        return labelled, (), "all videos"
    chosen = folder.split(split)
    videos = chosen.train + chosen.valid + chosen.test if part == "all" else chosen.part(part)
    return videos, chosen.valid, f"split {split}, {part}"


def _background(folder: FeatureFolder, names: Sequence[str]) -> tuple[int, ...]:
    unknown = sorted(set(names) - set(folder.classes))
    if unknown:
        raise InputError(f"--background {unknown[0]!r} is no class of {folder.root / 'mapping.txt'}")
    return tuple(folder.classes.index(name) for name in names)
