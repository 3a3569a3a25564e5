"""One table and one gate over all folds: each video is a test video once, so the folds' videos stand side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keystep.evals.bootstrap import Difference, paired_bootstrap

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """One line of the gate, over all folds. ``rivals``: the row that each fold's validation videos chose."""

    claim: str
    mode: str
    first: str
    rivals: tuple[str, ...]
    difference: Difference

    @property
    def holds(self) -> bool:
        return self.difference.low > 0 and self.difference.seeds[0] >= 3


@dataclass(frozen=True)
class Score:
    """A row's frame accuracy, edit and F1@50 on test videos: mean over folds and seeds, deviation over the seeds."""

    name: str
    mode: str
    family: str
    mean: dict[str, float]
    spread: dict[str, float]


def pooled_gate(results: Sequence[Result]) -> list[Line]:
    """The folds' gates with their videos together, paired by video."""
    frames = np.concatenate([result["data"]["test_frames"] for result in results])
    claims = {(line["claim"].partition(" (")[0], line["mode"], line["first"]): None for line in results[0]["gate"]}
    lines = []
    for claim, mode, first in claims:
        rivals = [_rival(result, claim, mode, first) for result in results]
        ours, theirs = (
            np.concatenate([_correct(result, name, mode) for result, name in zip(results, names, strict=True)], axis=1)
            for names in ([first] * len(results), rivals)
        )
        lines.append(Line(claim, mode, first, tuple(rivals), paired_bootstrap(ours, theirs, frames)))
    return lines


def mean_scores(results: Sequence[Result], metrics: Sequence[str] = ("accuracy", "edit", "f1@50")) -> list[Score]:
    """Rows that every fold has, in the first fold's order."""
    scores = []
    for row in results[0]["rows"]:
        same = [_row(result, row["name"], row["mode"]) for result in results]
        if any(other is None for other in same):
            continue
        by_seed = {
            metric: np.array([[run["scores"][metric] for run in other["runs"]] for other in same if other is not None])
            for metric in metrics
        }  # (folds, seeds)
        mean = {metric: float(values.mean()) for metric, values in by_seed.items()}
        spread = {metric: _deviation(values.mean(0)) for metric, values in by_seed.items()}
        scores.append(Score(row["name"], row["mode"], row["family"], mean, spread))
    return scores


def _deviation(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _rival(result: Result, claim: str, mode: str, first: str) -> str:
    line = next(
        line
        for line in result["gate"]
        if line["claim"].partition(" (")[0] == claim and line["mode"] == mode and line["first"] == first
    )
    return str(line["second"])


def _correct(result: Result, name: str, mode: str) -> np.ndarray:
    """(seeds, videos) right frames."""
    row = _row(result, name, mode)
    assert row is not None
    return np.array([run["correct"] for run in row["runs"]])


def _row(result: Result, name: str, mode: str) -> Mapping[str, Any] | None:
    return next((row for row in result["rows"] if row["name"] == name and row["mode"] == mode), None)
