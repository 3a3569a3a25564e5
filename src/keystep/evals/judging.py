"""Evaluate the controls and all models, and compare them."""

from __future__ import annotations

from collections.abc import Sequence

from keystep.evals import controls
from keystep.evals.gate import compare
from keystep.evals.judge import Judge
from keystep.evals.model_rows import ModelRows, count_models
from keystep.evals.modes import supported_modes
from keystep.evals.protocol import Entrant, Evaluation
from keystep.evals.representation import Computed, Representation
from keystep.evals.rows import Mode
from keystep.evals.simple_rows import count_simple, judge_simple
from keystep.evals.study import Study
from keystep.progress import SILENT, Progress

MOST_LISTED = 4
"""Number of rows that a note lists by name."""


def judge_all(
    judge: Judge,
    entrants: Sequence[Entrant],
    progress: Progress = SILENT,
    *,
    modes: Sequence[Mode] = ("offline", "causal"),
    quick: bool = False,
) -> Evaluation:
    """Evaluate the controls, then every model alone, concatenated with smoothing, and concatenated with the best
    control.

    Args:
        judge: data, split, probe and metrics.
        entrants: the models.
        progress: receives one update for each probe.
        modes: the modes to evaluate; a model is skipped in modes that it does not support.
        quick: a quick look that supports no claims: fewer widths and reaches, models alone, one untrained encoder, and
            probes on fewer frames.

    Raises:
        InputError: features that are constant, or too similar over time to have a decorrelation time.
    """
    study = Study(judge, quick=quick)
    study.describe()
    chosen = judged_modes(entrants, modes)
    simple = sum(count_simple(study, mode) for mode in chosen)
    total = 1 + ("offline" in modes) + simple + count_models(study, entrants, chosen)
    with progress.task("judging", total=total, unit="probes", even=False) as study.task:
        if "offline" in modes:
            judge_oracle(study)
        models = judge_controls(study, chosen)
        for entrant in entrants:
            models.judge(entrant)
        _note_edges(study.evaluation)
        compare(study.evaluation, chosen, [study.marked(name) for name in dict.fromkeys(e.name for e in entrants)])
    return study.evaluation


def judged_modes(entrants: Sequence[Entrant], modes: Sequence[Mode]) -> tuple[Mode, ...]:
    """The given modes that at least one model supports."""
    return tuple(mode for mode in supported_modes([entrant.model for entrant in entrants]) if mode in modes)


def judge_controls(study: Study, modes: Sequence[Mode]) -> ModelRows:
    """Evaluate raw features and the controls.

    Returns:
        The evaluator for models, which uses the selected controls.
    """
    judge_raw(study)
    return ModelRows(study, {mode: judge_simple(study, mode) for mode in modes})


def judge_raw(study: Study) -> None:
    """Add the row of raw features."""
    study.add("raw features", "raw", "causal", study.raw, key="raw", delay=study.slot_delay)


def judge_oracle(study: Study) -> None:
    """Add the row of true segments."""
    name = "true segments' means (ORACLE)"
    study.add(name, "oracle", "offline", lambda: _segment_means(study), key="true segments' means")


def _segment_means(study: Study) -> Representation:
    """Centred features averaged over the true segments, which shows the value of the boundaries alone."""
    raw, labels = study.raw, study.judge.folder.labels
    return Computed(raw, lambda name: controls.segment_means(controls.centre(raw[name]), labels(name)))


def _note_edges(evaluation: Evaluation) -> None:
    """Add a note if a selected penalty is at the edge of the grid, so that a wider grid might be better."""
    rows = [row for row in evaluation.rows if any(run.probe.at_edge for run in row.runs)]
    if rows:
        names = ", ".join(f"{row.name} ({row.mode})" for row in rows[:MOST_LISTED])
        more = f" and {len(rows) - MOST_LISTED} more" if len(rows) > MOST_LISTED else ""
        grid = evaluation.judge.probe.penalties
        evaluation.judge.folder.problems.notes.append(
            f"{len(rows)} of {len(evaluation.rows)} rows selected a penalty at the edge of the grid ({grid[0]:g} to "
            f"{grid[-1]:g}): {names}{more}; a wider grid (probe.penalties) may improve them"
        )
