"""Evaluation tasks: a custom score for raw features, the best control and latents, with its own table.

A task follows `EvaluationTask`. Three things are optional: scores by video (`VideoScores`), which give the table
intervals; controls of the task's own (`Answers`, ``controls``); and ``modes``, for tasks on the past only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, get_args, runtime_checkable

import numpy as np

from keystep.data.annotation import Split
from keystep.data.folder import FeatureFolder
from keystep.errors import InputError, named, quoted
from keystep.evals.bootstrap import Array, RatioSums, paired_ratios
from keystep.evals.head_sources import HeadInput, sources
from keystep.evals.judge import Judge
from keystep.evals.modes import answers_later, mark_oracle, slot_delay
from keystep.evals.protocol import Comparison, Entrant, Evaluation
from keystep.evals.representation import Representation
from keystep.evals.results import head_name
from keystep.evals.rows import Mode
from keystep.foresight import Forecaster
from keystep.plugins import TASKS
from keystep.progress import SILENT, Progress

SEGMENTATION = "segmentation"
"""Name of the built-in task, whose table every evaluation has."""


@dataclass(frozen=True, eq=False)
class VideoScores:
    """A measure as a ratio of sums over the test videos, which gives it an interval.

    Attributes:
        parts, wholes: (videos,) in the order of ``split.test``. With several kinds, (kinds, videos), the measure is the
            mean over the kinds that occur (recall averaged over classes).
        scale: factor of the ratio, such as 100 for percent.
        higher: whether higher is better.
    """

    parts: Array
    wholes: Array
    scale: float = 1.0
    higher: bool = False

    @property
    def value(self) -> float:
        """The measure."""
        return self.scale * float(RatioSums(self.parts[..., None, :], self.wholes[..., None, :]).overall().mean())


Scores = Mapping[str, float | VideoScores]
"""Measure -> value."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What a task says of one representation.

    Attributes:
        own: its scores.
        controls: name -> scores of other methods on the same representation.
        forecaster: what was fitted, which is saved with the result.
    """

    own: Scores
    controls: Mapping[str, Scores] = field(default_factory=dict)
    forecaster: Forecaster | None = None


class EvaluationTask(Protocol):
    """An evaluation of a representation.

    Attributes:
        title: of the table.
        note: explanation of the table: the measures, and what was fitted on which videos.

    A task may also have ``modes``, the modes that it is judged in (both by default), and a method ``controls(folder,
    split)`` with the scores of methods that need no representation, by name.
    """

    title: str
    note: str

    def score(self, representation: Representation, folder: FeatureFolder, split: Split) -> Scores | Answers:
        """Score a representation on the test videos.

        Args:
            representation: video -> (T, D) float32 at the folder's rate, for all videos of the split, read or computed
                on access.
            folder: the data: labels, rate, times.
            split: names of the videos for training (``train``), selection (``valid``) and scoring (``test``).

        Returns:
            Measure -> value; or `Answers`, if the task has controls of its own.
        """
        ...


@runtime_checkable
class TableTask(Protocol):
    """A task that makes its own tables, because representations are not all that it needs; in place of ``score``.

    title, note: as in `EvaluationTask`.
    """

    title: str
    note: str

    def tables(
        self, name: str, evaluation: Evaluation, entrants: Sequence[Entrant], progress: Progress = SILENT
    ) -> Sequence[TaskTable]:
        """Score what there is to score; arguments as in `judge_task`."""
        ...


@dataclass(eq=False)
class TaskRow:
    """A representation, or a control of the task, in one mode.

    control: whether nothing was learned without labels. delay: as in `AnyRow`. seeds, scores: of each run.
    """

    name: str
    mode: Mode
    delay: float | None
    control: bool
    seeds: list[int] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)

    def values(self, measure: str) -> list[float]:
        """A measure of each run."""
        return [_value(scores[measure]) for scores in self.scores]

    def sums(self, measure: str, judge: Judge) -> RatioSums:
        """A measure of each run by test video (or group)."""
        runs = [scores[measure] for scores in self.scores]
        parts, wholes = ([getattr(run, what) for run in runs] for what in ("parts", "wholes"))
        return RatioSums(judge.by_group(np.stack(parts, axis=-2)), judge.by_group(np.stack(wholes, axis=-2)))

    def to_json(self) -> dict[str, Any]:
        """The row as in the result file."""
        runs = [
            {"seed": seed, "scores": {measure: _value(score) for measure, score in scores.items()}}
            for seed, scores in zip(self.seeds, self.scores, strict=True)
        ]
        return {"name": self.name, "mode": self.mode, "delay": self.delay, "control": self.control, "runs": runs}


@dataclass(frozen=True, eq=False)
class TaskTable:
    """The results of a task.

    name: as given by the user. gains: of each model over the strongest control; positive is better.
    """

    name: str
    title: str
    note: str
    rows: tuple[TaskRow, ...]
    gains: tuple[Comparison, ...] = ()
    forecasters: Mapping[str, Forecaster] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The table as in the result file, without the forecasters."""
        facts = {fact: getattr(self, fact) for fact in ("name", "title", "note")}
        rows, gains = ([one.to_json() for one in each] for each in (self.rows, self.gains))
        return {**facts, "rows": rows, "gains": gains}


def find_task(name: str) -> EvaluationTask | None:
    """The task with a name; None for segmentation, whose table every evaluation has.

    Raises:
        InputError: an unknown name, or an incomplete task (see `keystep.plugins.Registry.find`).
    """
    if name == SEGMENTATION:
        return None
    found = TASKS.find(name)
    task: EvaluationTask = found() if isinstance(found, type) else found
    for text in ("title", "note"):
        if not isinstance(getattr(task, text), str):
            raise InputError(f"task {name}: its {text} is {quoted(getattr(task, text))}, not a text")
    return task


def judged_modes(name: str, task: EvaluationTask, modes: Sequence[Mode]) -> tuple[Mode, ...]:
    """Those of the modes that a task is judged in.

    Raises:
        InputError: it is judged in none of them.
    """
    own: Sequence[Mode] = getattr(task, "modes", get_args(Mode))
    found = tuple(mode for mode in modes if mode in own)
    if not found:
        raise InputError(f"task {name} is judged {' and '.join(own)}, not {' and '.join(modes)}; add that mode")
    return found


def judge_task(
    name: str,
    task: EvaluationTask,
    evaluation: Evaluation,
    entrants: Sequence[Entrant],
    modes: Sequence[Mode],
    progress: Progress = SILENT,
) -> TaskTable:
    """Score raw features, the best control and every model in each mode, and compare them if scores are by video.

    Raises:
        InputError: scores that are not numbers by name, or whose names differ between representations.
    """
    study = TaskStudy(name, task, evaluation)
    best = {mode: simple.control for mode, simple in evaluation.best_control.items()}
    asked = [
        source
        for mode in judged_modes(name, task, modes)
        for source in sources(evaluation.judge, entrants, mode, 1, best.get(mode))
    ]
    with progress.task(f"judging {name}", total=len(asked), unit="representations") as meter:
        for source in asked:
            study.judge(source, source.made())
            meter.advance(note=f"{source.name} ({source.mode})")
    return study.table()


class TaskStudy:
    """Judges representations one by one, and collects the rows of a task.

    Args:
        name: of the task, as given by the user.
        task: the task.
        evaluation: data and split.
    """

    def __init__(self, name: str, task: EvaluationTask, evaluation: Evaluation) -> None:
        self.name, self.task, self.evaluation = name, task, evaluation
        self.rows: list[TaskRow] = []
        self.forecasters: dict[str, Forecaster] = {}

    def judge(self, source: HeadInput, representation: Representation) -> None:
        """Add the scores of a representation to its row, and those of the task's controls on it to theirs.

        Raises:
            InputError: as for `judge_task`.
        """
        folder, split = self.evaluation.judge.folder, self.evaluation.judge.split
        said = self.task.score(representation, folder, split)
        answers = said if isinstance(said, Answers) else Answers(said)
        wait = (source.block - 1) / float(folder.timeline.rate) if source.block else 0.0
        delay = None if source.delay is None else source.delay + wait
        self._add(source.name, source.mode, delay, source.family != "learned", source.seed, answers.own)
        for control, scores in answers.controls.items():
            self._add(f"{control}, {source.name}", source.mode, delay, True, source.seed, scores)
        if answers.forecaster is not None and source.origin:
            made = replace(answers.forecaster, origin=dict(source.origin))
            self.forecasters[head_name(source.name, source.mode, source.seed)] = made

    def table(self) -> TaskTable:
        """The finished table, with the controls that need no representation, and the gains."""
        judge, task = self.evaluation.judge, self.task
        controls = getattr(task, "controls", None)
        for control, scores in controls(judge.folder, judge.split).items() if controls else ():
            for mode in dict.fromkeys(row.mode for row in self.rows):
                self._add(control, mode, slot_delay(judge.folder), True, 0, scores)
        gains = tuple(gains_of(self.rows, judge, quick=self.evaluation.quick))
        return TaskTable(self.name, task.title, task.note, tuple(self.rows), gains, self.forecasters)

    def _add(self, name: str, mode: Mode, delay: float | None, control: bool, seed: int, scores: Scores) -> None:
        """Add a run to the row of a name and mode, which is created for its first seed."""
        name = mark_oracle(name) if self.evaluation.judge.folder.oracle else name
        _check(self.name, scores, self.rows[0].scores[0] if self.rows else None)
        row = next((row for row in self.rows if (row.name, row.mode) == (name, mode)), None)
        if row is None:
            row = TaskRow(name, mode, delay, control)
            self.rows.append(row)
        row.seeds.append(seed)
        row.scores.append(scores)


def gains_of(rows: Sequence[TaskRow], judge: Judge, *, quick: bool = False) -> Iterator[Comparison]:
    """Compare each model with the strongest control on the test videos, in every measure that is known by video."""
    if not rows or len(judge.by_group(judge.frames)) < 2:
        return
    for row in (row for row in rows if not row.control):
        rivals = [rival for rival in rows if rival.control and rival.mode == row.mode]
        for measure, score in row.scores[0].items() if rivals else ():
            if isinstance(score, VideoScores):
                sign = 1 if score.higher else -1
                rival = max(rivals, key=lambda rival: sign * float(np.mean(rival.values(measure))))
                yield task_gain(row, rival, measure, judge, quick=quick)


def task_gain(row: TaskRow, rival: TaskRow, measure: str, judge: Judge, *, quick: bool = False) -> Comparison:
    """How much better one row is than another in a measure; positive is better, also where lower values are."""
    score = row.scores[0][measure]
    assert isinstance(score, VideoScores)
    sides = (one.sums(measure, judge) for one in (row, rival))
    difference = paired_ratios(*sides, scale=score.scale if score.higher else -score.scale)
    return Comparison(
        "task",
        measure,
        row.mode,
        row.name,
        rival.name,
        difference,
        later=answers_later(row, rival),
        quick=quick,
        drawn_rival=len(rival.seeds) > 1,
        metric=measure,
    )


def _value(score: float | VideoScores) -> float:
    return score.value if isinstance(score, VideoScores) else float(score)


def _check(name: str, scores: object, known: Scores | None) -> None:
    if not isinstance(scores, Mapping) or not scores:
        raise InputError(f"task {name}: score gave {quoted(scores)}; expected numbers by the names of the measures")
    for measure, score in scores.items():
        value = score.value if isinstance(score, VideoScores) else score
        if not isinstance(measure, str) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"task {name}: measure {quoted(measure)} is {quoted(value)}, which is no number")
    if known is not None and list(scores) != list(known):
        raise InputError(f"task {name}: measures {', '.join(map(named, scores))} after {', '.join(map(named, known))}")
