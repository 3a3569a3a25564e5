"""Rows of the tables: a head on a representation, over seeds; a linear probe is a head among heads."""

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
"""The head of the table and of the gate: a linear probe."""


@dataclass(frozen=True)
class Run:
    """One trained head on one representation.

    scores: the metrics on the test videos, 0-100.
    valid_accuracy: frame accuracy on the validation videos, 0-100.
    correct: (videos,) right frames of each test video, for the bootstrap.
    predictions: test video -> (T,) class ids at the pooled rate.
    """

    seed: int
    scores: dict[str, float]
    valid_accuracy: float
    correct: np.ndarray
    predictions: dict[str, np.ndarray]

    def facts(self) -> dict[str, Any]:
        """What else the result file tells of the run."""
        return {}


@dataclass(frozen=True)
class ProbeRun(Run):
    """A run of the linear probe that was chosen."""

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
    """A run of a temporal head.

    at_the_moment: the metrics of what was said at each slot's own time, late answers counting against it; causal rows
    only. clips: top-1 of trimmed clips, with the causal context of their takes and each alone; empty where there are
    none. record: its best epoch and the validation scores of that.
    """

    head: Head
    record: Mapping[str, Any]
    at_the_moment: Mapping[str, float] = field(default_factory=dict)
    clips: Mapping[str, float] = field(default_factory=dict)
    submission: Mapping[str, Any] | None = None
    """What it says of the clips whose labels a benchmark keeps, in the benchmark's form."""

    def facts(self) -> dict[str, Any]:
        return {**self.record, "at_the_moment": self.at_the_moment, "clips": self.clips}


AnyRun = TypeVar("AnyRun", bound=Run)


@dataclass
class AnyRow(Generic[AnyRun]):
    """One line of a table: a representation, and the runs of one kind of head on it."""

    name: str
    family: Family
    mode: Mode
    position: Position = "none"
    """What it can know of a frame's place in the video: nothing, the time since the start, or also the time left."""
    delay: float | None = None
    """Seconds after a frame before its answer is final; None: when the video is over."""
    detail: str = ""
    width: int = 0
    beside: Beside = ""
    head: str = PROBE
    runs: list[AnyRun] = field(default_factory=list)

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

    @property
    def oracle(self) -> bool:
        """Whether true boundaries were used."""
        return self.family == "oracle" or "ORACLE" in self.name

    def to_json(self) -> dict[str, Any]:
        """The row for the result file."""
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
    """A row of temporal heads. speed: frames that the head scores in a second, on the machine that made the row."""

    parameters: int = 0
    speed: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "parameters": self.parameters, "frames_per_second": self.speed}
