"""The whole table and its gate, from the controls to the last model."""

from __future__ import annotations

from collections.abc import Sequence

from keystep.evals import controls
from keystep.evals.gate import compare
from keystep.evals.judge import Judge, Representation
from keystep.evals.model_rows import ModelRows, count_models
from keystep.evals.modes import modes_of
from keystep.evals.protocol import Entrant, Evaluation
from keystep.evals.rows import Mode
from keystep.evals.simple_rows import count_simple, judge_simple
from keystep.evals.study import Study
from keystep.progress import SILENT, Progress

NAMED = 4
"""Rows that a note names before it counts the rest."""


def judge_all(
    judge: Judge,
    entrants: Sequence[Entrant],
    progress: Progress = SILENT,
    *,
    modes: Sequence[Mode] = ("offline", "causal"),
    quick: bool = False,
) -> Evaluation:
    """Judge the controls, then every entrant alone, beside smoothing and beside the best control.

    Args:
        modes: which of the modes that the entrants have.
        quick: fewer widths and reaches, every entrant alone, one untrained encoder, and probes on fewer frames: a first
            look, of which nothing may be claimed.

    Raises:
        InputError: features that never change, or stay alike for so long that they have no time scale.
    """
    study = Study(judge, quick=quick)
    chosen = tuple(mode for mode in modes_of([entrant.model for entrant in entrants]) if mode in modes)
    simple = sum(count_simple(study, mode) for mode in chosen)
    total = 1 + ("offline" in modes) + simple + count_models(study, entrants, chosen)
    with progress.task("judging", total=total, unit="probes") as study.task:
        if "offline" in modes:
            judge_oracle(study)
        models = judge_controls(study, chosen)
        for entrant in entrants:
            models.judge(entrant)
        _note_edges(study.evaluation)
        compare(study.evaluation, chosen, [study.marked(name) for name in dict.fromkeys(e.name for e in entrants)])
    return study.evaluation


def judge_controls(study: Study, modes: Sequence[Mode]) -> ModelRows:
    """The rows of what learns nothing; returns what judges models beside the best of them."""
    study.add("raw features", "raw", "causal", study.raw, key="raw", delay=study.slot_delay)
    return ModelRows(study, {mode: judge_simple(study, mode) for mode in modes})


def judge_oracle(study: Study) -> None:
    """The row of true boundaries."""
    name = "true segments' means (ORACLE)"
    study.add(name, "oracle", "offline", lambda: _segment_means(study), key="true segments' means")


def _segment_means(study: Study) -> Representation:
    """Centred features averaged over the true segments: what boundaries alone are worth."""
    labels = study.judge.folder.labels
    return {name: controls.segment_means(controls.centre(raw), labels(name)) for name, raw in study.raw.items()}


def _note_edges(evaluation: Evaluation) -> None:
    """Say whose penalty was the last of the grid, so that one beyond it might be better."""
    rows = [row for row in evaluation.rows if any(run.probe.at_edge for run in row.runs)]
    if rows:
        names = ", ".join(f"{row.name} ({row.mode})" for row in rows[:NAMED])
        more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
        grid = evaluation.judge.probe.penalties
        evaluation.judge.folder.problems.notes.append(
            f"{len(rows)} of {len(evaluation.rows)} rows chose a penalty at the edge of the grid ({grid[0]:g} to "
            f"{grid[-1]:g}): {names}{more}; a wider grid (probe.penalties) may serve them better"
        )
