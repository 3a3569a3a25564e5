"""External evaluation tasks: a custom score for raw features, the best control and latents, with its own table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from keystep.data.annotation import Split
from keystep.data.folder import FeatureFolder
from keystep.errors import InputError, named, quoted
from keystep.evals.head_sources import HeadInput, sources
from keystep.evals.judge import Representation
from keystep.evals.modes import mark_oracle
from keystep.evals.protocol import Entrant, Evaluation
from keystep.evals.rows import Mode
from keystep.plugins import TASKS
from keystep.progress import SILENT, Progress

SEGMENTATION = "segmentation"
"""Name of the built-in task, whose table every evaluation has."""


class EvaluationTask(Protocol):
    """An evaluation of a representation.

    Attributes:
        title: of the table.
        note: explanation of the table: the measures, and what was fitted on which videos.
    """

    title: str
    note: str

    def score(self, representation: Representation, folder: FeatureFolder, split: Split) -> Mapping[str, float]:
        """Score a representation on the test videos.

        Args:
            representation: video -> (T, D) float32 at the folder's rate, for all videos of the split.
            folder: the data: labels, rate, times.
            split: names of the videos for training (``train``), selection (``valid``) and scoring (``test``).

        Returns:
            Measure -> value.
        """
        ...


@dataclass
class TaskRow:
    """A representation in one mode. delay: as in `AnyRow`; runs: the measures of each seed."""

    name: str
    mode: Mode
    delay: float | None
    runs: list[dict[str, Any]]


@dataclass(frozen=True)
class TaskTable:
    """The results of a task. name: as given by the user."""

    name: str
    title: str
    note: str
    rows: tuple[TaskRow, ...]


def find_task(name: str) -> EvaluationTask | None:
    """The task with a name; None for segmentation, whose table every evaluation has.

    Raises:
        InputError: an unknown name, or an incomplete task (see `keystep.plugins.Registry.find`).
    """
    if name in TASKS.own:
        return None
    found = TASKS.find(name)
    task: EvaluationTask = found() if isinstance(found, type) else found
    for text in ("title", "note"):
        if not isinstance(getattr(task, text), str):
            raise InputError(f"task {name}: its {text} is {quoted(getattr(task, text))}, not a text")
    return task


def judge_task(
    name: str,
    task: EvaluationTask,
    evaluation: Evaluation,
    entrants: Sequence[Entrant],
    modes: Sequence[Mode],
    progress: Progress = SILENT,
) -> TaskTable:
    """Score raw features, the best control and every model in each mode.

    Raises:
        InputError: scores that are not numbers by name, or whose names differ between representations.
    """
    judge = evaluation.judge
    rows: list[TaskRow] = []
    best = {mode: simple.control for mode, simple in evaluation.best_control.items()}
    asked = [source for mode in modes for source in sources(judge, entrants, mode, 1, best.get(mode))]
    with progress.task(f"judging {name}", total=len(asked), unit="representations") as meter:
        for source in asked:
            scores = task.score(source.made(), judge.folder, judge.split)
            scores = _checked(name, scores, rows[0].runs[0]["scores"] if rows else None)
            _row(rows, source, judge.folder).runs.append({"seed": source.seed, "scores": scores})
            meter.advance(note=f"{source.name} ({source.mode})")
    return TaskTable(name, task.title, task.note, tuple(rows))


def _row(rows: list[TaskRow], source: HeadInput, folder: FeatureFolder) -> TaskRow:
    """The row of a representation, created for its first seed."""
    name = mark_oracle(source.name) if folder.oracle else source.name
    row = next((row for row in rows if (row.name, row.mode) == (name, source.mode)), None)
    if row is None:
        wait = (source.block - 1) / float(folder.timeline.rate) if source.block else 0.0
        row = TaskRow(name, source.mode, None if source.delay is None else source.delay + wait, [])
        rows.append(row)
    return row


def _checked(name: str, scores: object, known: Mapping[str, float] | None) -> dict[str, float]:
    if not isinstance(scores, Mapping) or not scores:
        raise InputError(f"task {name}: score gave {quoted(scores)}; expected numbers by the names of the measures")
    for measure, value in scores.items():
        if not isinstance(measure, str) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"task {name}: measure {quoted(measure)} is {quoted(value)}, which is no number")
    if known is not None and list(scores) != list(known):
        raise InputError(f"task {name}: measures {', '.join(map(named, scores))} after {', '.join(map(named, known))}")
    return {measure: float(value) for measure, value in scores.items()}
