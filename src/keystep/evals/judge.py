"""Probe one representation of a data set: fit on training videos, choose on validation videos, score test videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from keystep.data.annotation import IGNORED, Split
from keystep.data.folder import FeatureFolder
from keystep.evals.controls import Position
from keystep.evals.probe import LinearProbe, ProbeConfig, fit_probe
from keystep.metrics import segmentation_scores

Representation = Mapping[str, np.ndarray]
"""Video name -> (T, D) float32 at the folder's pooled rate."""

Family = Literal["raw", "control", "untrained", "reconstruction", "learned", "oracle"]
Mode = Literal["offline", "causal"]
Beside = Literal["", "position", "smoothing"]
"""What a model's latents are concatenated with: nothing, the clock, or the best moving average."""


@dataclass(frozen=True)
class Run:
    """One probe on one representation.

    scores: the metrics on the test videos, 0-100.
    correct: (videos,) right frames of each test video, for the bootstrap.
    predictions: test video -> (T,) class ids at the pooled rate.
    probe: the head that was chosen.
    """

    seed: int
    scores: dict[str, float]
    valid_accuracy: float
    learning_rate: float
    weight_decay: float
    correct: np.ndarray
    predictions: dict[str, np.ndarray]
    probe: LinearProbe


@dataclass
class Row:
    """One line of the table: a representation, and its runs over seeds."""

    name: str
    family: Family
    mode: Mode
    position: Position = "none"
    """What it can know of a frame's place in the video: nothing, the time since the start, or also the time left."""
    delay: float | None = None
    """Seconds after a frame before its representation is final; None: when the video is over."""
    detail: str = ""
    width: int = 0
    beside: Beside = ""
    runs: list[Run] = field(default_factory=list)

    @property
    def correct(self) -> np.ndarray:
        """(seeds, videos) right frames of the test videos."""
        return np.stack([run.correct for run in self.runs])

    @property
    def valid_accuracy(self) -> float:
        """Mean over seeds; the only accuracy that may choose between rows."""
        return float(np.mean([run.valid_accuracy for run in self.runs]))

    def mean(self, metric: str) -> float:
        """Mean of a test metric over seeds."""
        return float(np.mean([run.scores[metric] for run in self.runs]))

    def spread(self, metric: str) -> float | None:
        """Standard deviation of a test metric over seeds; None for a single run."""
        return float(np.std([run.scores[metric] for run in self.runs], ddof=1)) if len(self.runs) > 1 else None

    def to_json(self) -> dict[str, Any]:
        """The row for the result file."""
        return {
            "name": self.name,
            "family": self.family,
            "mode": self.mode,
            "position": self.position,
            "oracle": self.family == "oracle" or "ORACLE" in self.name,
            "delay": self.delay,
            "detail": self.detail,
            "width": self.width,
            "beside": self.beside,
            "mean": {metric: self.mean(metric) for metric in self.runs[0].scores},
            "spread": {metric: self.spread(metric) for metric in self.runs[0].scores},
            "runs": [
                {
                    "seed": run.seed,
                    "scores": run.scores,
                    "valid_accuracy": run.valid_accuracy,
                    "learning_rate": run.learning_rate,
                    "weight_decay": run.weight_decay,
                    "correct": [int(count) for count in run.correct],
                }
                for run in self.runs
            ],
        }


@dataclass(frozen=True)
class Judge:
    """The fixed part of an evaluation: data, split, probe and metrics."""

    folder: FeatureFolder
    split: Split
    probe: ProbeConfig
    background: tuple[int, ...] = ()
    protocol: str = "pooled"
    label_share: float = 1.0
    """Share of the training and validation videos that the split's parts were cut down to."""
    unlabelled: tuple[str, ...] = ()
    """Training videos that were cut off: no probe sees them, but what needs no labels may."""
    label_seed: int = 0
    """Which videos the share kept."""

    @cached_property
    def videos(self) -> tuple[str, ...]:
        """All videos of the split."""
        return self.split.train + self.split.valid + self.split.test

    @property
    def pretraining(self) -> tuple[str, ...]:
        """All training videos, with or without labels."""
        return self.split.train + self.unlabelled

    @cached_property
    def labels(self) -> dict[str, np.ndarray]:
        """Class ids of the training and validation videos, at the pooled rate."""
        return {name: self.folder.labels(name) for name in self.split.train + self.split.valid}

    @cached_property
    def truths(self) -> dict[str, np.ndarray]:
        """Class ids of the test videos at the labels' own rate, at which scores are computed."""
        return {name: self.folder.frame_labels(name) for name in self.split.test}

    @cached_property
    def frames(self) -> np.ndarray:
        """(videos,) labelled frames of the test videos."""
        return np.array([(self.truths[name] != IGNORED).sum() for name in self.split.test])

    def run(self, representation: Representation, seed: int = 0) -> Run:
        """Fit, choose, score."""

        def part(names: Sequence[str]) -> tuple[list[np.ndarray], list[np.ndarray]]:
            return [representation[name] for name in names], [self.labels[name] for name in names]

        probe = fit_probe(
            *part(self.split.train),
            *part(self.split.valid),
            classes=len(self.folder.classes),
            config=self.probe,
            seed=seed,
        )
        predictions = {name: probe.predict(representation[name]) for name in self.split.test}
        scores, correct = self.score(predictions)
        return Run(
            seed=seed,
            scores=scores,
            valid_accuracy=probe.valid_accuracy,
            learning_rate=probe.learning_rate,
            weight_decay=probe.weight_decay,
            correct=correct,
            predictions=predictions,
            probe=probe,
        )

    def score(self, predictions: Mapping[str, np.ndarray]) -> tuple[dict[str, float], np.ndarray]:
        """The metrics (0-100) of class ids at the pooled rate, and the right frames of each test video, (videos,)."""
        at_frames = [self.at_frames(name, predictions[name]) for name in self.split.test]
        truths = [self.truths[name] for name in self.split.test]
        scores = segmentation_scores(at_frames, truths, background=self.background, protocol=self.protocol)
        return scores, np.array([(a == b).sum() for a, b in zip(at_frames, truths, strict=True)])

    def at_frames(self, name: str, predictions: np.ndarray) -> np.ndarray:
        """Each prediction held for the frames that its slot was pooled from."""
        return np.repeat(predictions, self.folder.pool)[: len(self.truths[name])]
