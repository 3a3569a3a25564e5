"""The gate: what a learned row has to beat before anything may be claimed of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from keystep.evals.bootstrap import paired_bootstrap
from keystep.evals.judge import Mode, Row
from keystep.evals.modes import answers_later, marked_oracle
from keystep.evals.protocol import PAIR, QUICK_NOTE, Comparison, Evaluation, Pair, Question

SMOOTHING = "moving average"
"""Beginning of the names of the rows that the gate knows as smoothing."""


def compare(evaluation: Evaluation, modes: Sequence[Mode], given: Sequence[str] = ()) -> None:
    """Fill in the pairs and the gate, and note what it lacks.

    Args:
        given: names of the models that were given, in their order.
    """
    judge, rows = evaluation.judge, evaluation.rows
    notes = judge.folder.problems.notes
    if any(row.family == "learned" for row in rows) and not any(row.family == "reconstruction" for row in rows):
        notes.append("no masked reconstruction was judged beside the learned rows: the gate lacks that comparison")
    if evaluation.quick:
        notes.append(QUICK_NOTE)
    frames = judge.by_group(judge.frames)
    if len(frames) < 2:
        notes.append("one test video: nothing can be compared, intervals need two")
    for mode in modes:
        evaluation.pairs += [*_learned_pairs(rows, mode), *_given_pairs(rows, mode, given)]
    for question, claim, row, rival in evaluation.pairs if len(frames) > 1 else ():
        difference = paired_bootstrap(judge.by_group(row.correct), judge.by_group(rival.correct), frames)
        later = answers_later(row, rival)
        trained = rival.family not in ("raw", "control")
        line = Comparison(question, claim, row.mode, row.name, rival.name, difference, later, evaluation.quick, trained)
        evaluation.gate.append(line)


def _learned_pairs(rows: Sequence[Row], mode: Mode) -> Iterator[Pair]:
    """Each learned row against what it has to beat; of several, the strongest on the test videos."""
    here = [row for row in rows if row.mode == mode]
    raw = [row for row in rows if row.family == "raw"]  # sees one frame, so it stands in every mode
    simple = [row for row in here if row.family == "control"] + raw
    smooth = [row for row in simple if row.name.startswith(SMOOTHING)] + raw
    for row in here:
        if row.family != "learned":
            continue
        if row.beside == "":
            yield from (Pair("raw", "alone, against raw features", row, rival) for rival in raw)
            yield Pair("control", "alone, against the best control", row, _strongest(simple))
            yield from _other_encoders(row, here)
        elif row.beside == "control":
            yield Pair("adds", "beside the best control, against the best control alone", row, _strongest(simple))
        else:
            claim = "beside smoothing, against smoothing alone"
            yield Pair("adds to smoothing", claim, row, _strongest(smooth))


def _other_encoders(row: Row, here: Sequence[Row]) -> Iterator[Pair]:
    """The learned row against random weights, and against another objective."""
    for rival in here:
        questions: dict[str, Question] = {"untrained": "untrained", "reconstruction": "reconstruction"}
        if rival.family in questions and rival.beside == "":
            yield Pair(questions[rival.family], f"alone, against {rival.name}", row, rival)


def _given_pairs(rows: Sequence[Row], mode: Mode, given: Sequence[str]) -> Iterator[Pair]:
    """What decides nothing and is always asked: every two of the given models, and reconstruction against raw features
    (for learned rows the gate itself asks that)."""
    raw = [row for row in rows if row.family == "raw"]
    alone = [
        row
        for name in given
        for row in rows
        if row.mode == mode and row.beside == "" and row.name in (name, marked_oracle(name))
    ]
    for place, row in enumerate(alone):
        for rival in [*(raw if row.family != "learned" else ()), *alone[place + 1 :]]:
            yield Pair("pair", f"{PAIR}{rival.name}, both alone", row, rival)


def _strongest(rows: Sequence[Row]) -> Row:
    """The row with the most right frames on the test videos, which is what the gate compares."""
    return max(rows, key=lambda row: float(row.correct.sum(axis=1).mean()))
