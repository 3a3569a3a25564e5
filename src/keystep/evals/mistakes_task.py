"""The tables of the task ``mistakes``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from keystep.evals.detection import MEASURES
from keystep.evals.mistakes import Intervals, MistakeRow, MistakeStudy, judge_mistakes, missed, strongest
from keystep.evals.modes import answers_later
from keystep.evals.protocol import Comparison, Entrant, Evaluation
from keystep.evals.rows import Mode
from keystep.evals.task import TaskRow, TaskTable
from keystep.progress import SILENT, Progress


class Mistakes:
    """Mistakes in runs of a procedure, found by what is known of correct runs (one class)."""

    title = "Mistakes, one class: live scores of frames and segments"
    note = (
        "All is fitted on correct runs: training videos give steps, graph and nearest frames, validation videos the "
        "quantiles at each step (calibration). AUC and average precision (AP) over frames and over segments (mean of "
        "their frames); EDA as in EgoPER, averaged over the thresholds -2 to 2."
    )

    modes: tuple[Mode, ...] = ("causal",)

    def tables(
        self, name: str, evaluation: Evaluation, entrants: Sequence[Entrant], progress: Progress = SILENT
    ) -> list[TaskTable]:
        """The table of mistakes, and that of omitted steps.

        Raises:
            InputError: as for `judge_mistakes`.
        """
        study = judge_mistakes(evaluation, entrants, progress)
        rows = tuple(_row(row) for row in study.rows.values())
        gains = tuple(_gains(study, quick=evaluation.quick))
        return [TaskTable(name, self.title, self.note, rows, gains), _omissions(name, study)]


def _row(row: MistakeRow) -> TaskRow:
    scores = [{measure: float(values[0]) for measure, values in run.measures().items()} for run in row.runs.values()]
    return TaskRow(row.name, "causal", row.delay, row.control, list(row.runs), list(scores))


def _gains(study: MistakeStudy, *, quick: bool) -> Iterator[Comparison]:
    """What the rows of each model gain over the strongest control, in every measure."""
    if len(study.judge.by_group(study.judge.frames)) < 2:  # no interval over videos
        return
    intervals = Intervals(study)
    for row in (row for row in study.rows.values() if not row.control):
        for measure in MEASURES:
            rival = strongest(study, measure)
            yield Comparison(
                "task",
                measure,
                "causal",
                row.name,
                rival.name,
                intervals.difference(row, rival, measure),
                later=answers_later(row, rival),
                quick=quick,
                drawn_rival=len(rival.runs) > 1,
                metric=measure,
            )


def _omissions(name: str, study: MistakeStudy) -> TaskTable:
    """What is missing at the end of each run, against the annotated omissions."""
    rows = []
    for row, runs in study.missing.items():
        found = study.rows[row]
        rows.append(TaskRow(row, "causal", found.delay, found.control, list(runs), list(missed(study, row).scores())))
    note = "Required steps of the graph that were not announced until the end of a run, against the omitted ones."
    return TaskTable(name, "Omitted steps, at the end of a run", note, tuple(rows))
