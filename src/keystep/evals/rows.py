"""Rows of the tables: a kind of head on a representation, over seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from keystep.evals.controls import Position
from keystep.evals.probe import LinearProbe
from keystep.heads import Head

Family = Literal["raw", "control", "untrained", "reconstruction", "learned", "oracle"]
Mode = Literal["offline", "causal"]
Beside = Literal["", "smoothing", "control"]
"""What a model's latents are concatenated with: nothing, the best moving average, or the best control."""

PROBE = "linear"
"""Name of the linear probe, the head of the gate."""


@dataclass(frozen=True)
class Run:
    """A trained head on a representation.

    Attributes:
        seed: of the model or head.
        scores: metrics on the test videos, 0-100.
        valid_accuracy: frame accuracy on the validation videos, 0-100.
        correct: (videos,) number of correct frames of each test video, for the bootstrap.
        predictions: test video -> (T,) class ids at the pooled rate.
    """

    seed: int
    scores: dict[str, float]
    valid_accuracy: float
    correct: np.ndarray
    predictions: dict[str, np.ndarray]

    def facts(self) -> dict[str, Any]:
        """Additional fields for the result file."""
        return {}


@dataclass(frozen=True)
class ProbeRun(Run):
    """A fitted linear probe."""

    probe: LinearProbe

    def facts(self) -> dict[str, Any]:
        probe = self.probe
        return {
            "penalty": probe.penalty,
            "penalty_at_edge": probe.at_edge,
            "strengths": dict(probe.strengths),
        }


@dataclass(frozen=True)
class HeadRun(Run):
    """A trained temporal head.

    Attributes:
        record: its best epoch and validation scores.
        at_the_moment: metrics of the answers that are available at each slot's own time; only for causal rows.
        clips: context -> top-1 accuracy on trimmed clips; empty without clips.
    """

    head: Head
    record: Mapping[str, Any]
    at_the_moment: Mapping[str, float] = field(default_factory=dict)
    clips: Mapping[str, float] = field(default_factory=dict)
    submission: Mapping[str, Any] | None = None
    """Predictions for the clips with hidden labels, in the benchmark's format."""

    def facts(self) -> dict[str, Any]:
        return {**self.record, "at_the_moment": self.at_the_moment, "clips": self.clips}


AnyRun = TypeVar("AnyRun", bound=Run)


@dataclass
class AnyRow(Generic[AnyRun]):
    """A table row: a representation, and the runs of one kind of head on it."""

    name: str
    family: Family
    mode: Mode
    position: Position = "none"
    """What it can know about the position in the video: nothing, the elapsed time, or also the remaining time."""
    delay: float | None = None
    """Seconds from a frame until its answer is final; None: until the end of the video."""
    detail: str = ""
    width: int = 0
    beside: Beside = ""
    head: str = PROBE
    runs: list[AnyRun] = field(default_factory=list)

    @property
    def correct(self) -> np.ndarray:
        """(seeds, videos) number of correct frames of the test videos."""
        return np.stack([run.correct for run in self.runs])

    @property
    def valid_accuracy(self) -> float:
        """Mean over seeds; the only accuracy that may be used to select rows."""
        return float(np.mean([run.valid_accuracy for run in self.runs]))

    def mean(self, metric: str) -> float:
        """Mean of a test metric over seeds."""
        return float(np.mean([run.scores[metric] for run in self.runs]))

    def spread(self, metric: str) -> float | None:
        """Standard deviation of a test metric over seeds; None for a single run."""
        return float(np.std([run.scores[metric] for run in self.runs], ddof=1)) if len(self.runs) > 1 else None

    @property
    def oracle(self) -> bool:
        """Whether true boundaries were used."""
        return self.family == "oracle" or "ORACLE" in self.name

    def to_json(self) -> dict[str, Any]:
        """The row as in the result file."""
        metrics = list(self.runs[0].scores)
        facts = ("name", "head", "family", "mode", "position", "oracle", "delay", "detail", "width", "beside")
        return {
            **{fact: getattr(self, fact) for fact in facts},
            "mean": {metric: self.mean(metric) for metric in metrics},
            "spread": {metric: self.spread(metric) for metric in metrics},
            "runs": [
                {
                    "seed": run.seed,
                    "scores": run.scores,
                    "valid_accuracy": run.valid_accuracy,
                    "correct": [int(count) for count in run.correct],
                    **run.facts(),
                }
                for run in self.runs
            ],
        }


@dataclass
class Row(AnyRow[ProbeRun]):
    """A row of linear probes."""


@dataclass
class HeadRow(AnyRow[HeadRun]):
    """A row of temporal heads. speed: frames per second of the head, on the machine that trained it."""

    parameters: int = 0
    speed: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "parameters": self.parameters, "frames_per_second": self.speed}
