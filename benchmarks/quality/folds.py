"""One table and one gate over all folds: each video is a test video once, so the folds' videos stand side by side."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keystep.evals.bootstrap import Difference, paired_bootstrap
from keystep.evals.protocol import SEEDS_FOR_A_CLAIM
from keystep.evals.table import find_row

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """One line of the gate, over all folds. ``rivals``: the strongest row on each fold's test videos. ``later``: in
    some fold it answers later than its rival, which is no fair win."""

    claim: str
    mode: str
    first: str
    rivals: tuple[str, ...]
    difference: Difference
    later: bool = False

    @property
    def holds(self) -> bool:
        return self.difference.low > 0 and self.difference.seeds[0] >= SEEDS_FOR_A_CLAIM and not self.later


@dataclass(frozen=True)
class Score:
    """A row's frame accuracy, edit and F1@50 on test videos: mean over folds and seeds, deviation over the seeds."""

    name: str
    mode: str
    family: str
    mean: dict[str, float]
    spread: dict[str, float]


def pooled_gate(results: Sequence[Result], without: Collection[str] = ()) -> list[Line]:
    """What every fold compares, with the folds' videos together, paired by video: one test video a fold is enough.

    without: videos to leave out, such as those by which the variant was chosen.
    """
    kept = [np.array([name not in without for name in result["data"]["test_videos"]]) for result in results]
    frames = np.concatenate(
        [np.array(result["data"]["test_frames"])[keep] for result, keep in zip(results, kept, strict=True)]
    )
    if len(frames) < 2:
        return []  # no interval
    lines = []
    for key in dict.fromkeys(_key(line) for line in results[0]["pairs"]):
        same = [next((line for line in result["pairs"] if _key(line) == key), None) for result in results]
        found = [line for line in same if line is not None]
        if len(found) < len(results):
            continue
        claim, mode, first = key
        ours, theirs = (
            np.concatenate(
                [
                    _correct(result, line[side], mode)[:, keep]
                    for result, line, keep in zip(results, found, kept, strict=True)
                ],
                axis=1,
            )
            for side in ("first", "second")
        )
        rivals = tuple(line["second"] for line in found)
        later = any(line["later"] for line in found)
        lines.append(Line(claim, mode, first, rivals, paired_bootstrap(ours, theirs, frames), later))
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


def _key(line: Mapping[str, Any]) -> tuple[str, str, str]:
    """What makes two folds' lines the same comparison, whatever the rivals are."""
    return line["claim"], line["mode"], line["first"]


def _correct(result: Result, name: str, mode: str) -> np.ndarray:
    """(seeds, videos) right frames."""
    row = _row(result, name, mode)
    assert row is not None
    return np.array([run["correct"] for run in row["runs"]])


def _row(result: Result, name: str, mode: str) -> Mapping[str, Any] | None:
    row: Mapping[str, Any] | None = find_row(result, name, mode)
    return row
