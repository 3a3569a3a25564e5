"""The tables of the task ``mistakes``."""

from __future__ import annotations

from collections.abc import Sequence

from keystep.errors import InputError
from keystep.evals.detection import MEASURES
from keystep.evals.mistakes import BOTH, ERROR, MistakeStudy, differences, judge_mistakes, missed, strongest
from keystep.evals.protocol import Entrant, Evaluation
from keystep.evals.rows import Mode
from keystep.evals.task import TaskRow, TaskTable
from keystep.progress import SILENT, Progress


class Mistakes:
    """Mistakes in runs of a procedure, found by what is known of correct runs (one class)."""

    title = "Mistakes, one class: live scores of frames and segments"
    note = (
        "All is fitted on correct runs: training videos give steps, graph and nearest frames, validation videos the "
        "quantiles at each step (calibration). AUC and average precision (AP) over frames and over segments (mean of "
        "their frames); EDA as in EgoPER, averaged over the thresholds -2 to 2. Intervals: 95 %, over videos and seeds."
    )

    def tables(
        self,
        name: str,
        evaluation: Evaluation,
        entrants: Sequence[Entrant],
        modes: Sequence[Mode],
        progress: Progress = SILENT,
    ) -> list[TaskTable]:
        """The table of mistakes, and that of omitted steps.

        Raises:
            InputError: no causal mode, or as for `judge_mistakes`.
        """
        if "causal" not in modes:
            raise InputError(f"task {name} is live; add --set modes=[causal]")
        study = judge_mistakes(evaluation, entrants, progress)
        rows = [
            TaskRow(
                row.name,
                "causal",
                row.delay,
                [
                    {"seed": seed, "scores": {measure: float(run.measures()[measure][0]) for measure in MEASURES}}
                    for seed, run in row.runs.items()
                ],
            )
            for row in study.rows.values()
        ]
        note = " ".join([self.note, *_gains(study)])
        return [TaskTable(name, self.title, note, tuple(rows)), _omissions(name, study)]


def _gains(study: MistakeStudy) -> list[str]:
    """A sentence for each model: what the predictor's error and both signals gain over the strongest control."""
    lines = []
    for row in study.rows.values():
        if row.control or not row.name.startswith((ERROR, BOTH)):
            continue
        parts = []
        for measure in MEASURES:
            rival = strongest(study, measure)
            found = differences(study, row, rival)[measure]
            parts.append(f"{measure} {found.mean:+.1f} ({found.low:+.1f} to {found.high:+.1f}) over {rival.name}")
        lines.append(f"{row.name}, against the strongest control in each measure: {'; '.join(parts)}.")
    return lines


def _omissions(name: str, study: MistakeStudy) -> TaskTable:
    """What is missing at the end of each run, against the annotated omissions."""
    rows = []
    for row, runs in study.missing.items():
        scores = missed(study, row).scores()
        found = [{"seed": seed, "scores": score} for seed, score in zip(runs, scores, strict=True)]
        rows.append(TaskRow(row, "causal", study.rows[row].delay, found))
    note = "Required steps of the graph that were not announced until the end of a run, against the omitted ones."
    return TaskTable(name, "Omitted steps, at the end of a run", note, tuple(rows))
