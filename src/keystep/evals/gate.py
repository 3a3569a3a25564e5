"""The gate: the comparisons that a learned row has to win before its gain counts as a claim."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from keystep.evals.bootstrap import RatioSums, paired_bootstrap, paired_ratios
from keystep.evals.judge import Judge
from keystep.evals.modes import answers_later, mark_oracle
from keystep.evals.protocol import PAIR, QUICK_NOTE, Comparison, Evaluation, Pair, Question
from keystep.evals.rows import HeadRow, Mode, Row
from keystep.metrics import OVERLAPS, Tally

SMOOTHING = "moving average"
"""Prefix of the names of moving-average rows."""
HEAD_METRICS = ("accuracy", "edit", "f1@50")
"""Metrics of the gains under temporal heads."""


def compare(evaluation: Evaluation, modes: Sequence[Mode], given: Sequence[str] = ()) -> None:
    """Fill in the pairs and the gate of an evaluation, and note what is missing.

    Args:
        evaluation: with all rows.
        modes: to compare in.
        given: names of the given models, in order.
    """
    judge, rows = evaluation.judge, evaluation.rows
    notes = judge.folder.problems.notes
    if any(row.family == "learned" for row in rows) and not any(row.family == "reconstruction" for row in rows):
        notes.append("no masked reconstruction model was given: the gate lacks that comparison")
    if evaluation.quick:
        notes.append(QUICK_NOTE)
    frames = judge.by_group(judge.frames)
    if len(frames) < 2:
        notes.append("only one test video or group: nothing was compared, because intervals need two")
    for mode in modes:
        evaluation.pairs += [*_learned_pairs(rows, mode), *_given_pairs(rows, mode, given)]
    for question, claim, row, rival in evaluation.pairs if len(frames) > 1 else ():
        difference = paired_bootstrap(judge.by_group(row.correct), judge.by_group(rival.correct), frames)
        later = answers_later(row, rival)
        trained = rival.family not in ("raw", "control")
        line = Comparison(question, claim, row.mode, row.name, rival.name, difference, later=later)
        evaluation.gate.append(replace(line, quick=evaluation.quick, drawn_rival=trained))


def _learned_pairs(rows: Sequence[Row], mode: Mode) -> Iterator[Pair]:
    """Pairs of each learned row with its rivals; of several candidates, the strongest on the test videos."""
    here = [row for row in rows if row.mode == mode]
    raw = [row for row in rows if row.family == "raw"]  # uses single frames, so it belongs to every mode
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
            yield Pair("adds", "with the best control, against the best control alone", row, _strongest(simple))
        else:
            claim = "with smoothing, against smoothing alone"
            yield Pair("adds to smoothing", claim, row, _strongest(smooth))


def _other_encoders(row: Row, here: Sequence[Row]) -> Iterator[Pair]:
    """Pairs of a learned row with untrained and reconstruction encoders."""
    for rival in here:
        questions: dict[str, Question] = {"untrained": "untrained", "reconstruction": "reconstruction"}
        if rival.family in questions and rival.beside == "":
            yield Pair(questions[rival.family], f"alone, against {rival.name}", row, rival)


def _given_pairs(rows: Sequence[Row], mode: Mode, given: Sequence[str]) -> Iterator[Pair]:
    """Pairs outside the gate: all pairs of given models, and reconstruction models against raw features."""
    raw = [row for row in rows if row.family == "raw"]
    alone = [
        row
        for name in given
        for row in rows
        if row.mode == mode and row.beside == "" and row.name in (name, mark_oracle(name))
    ]
    for place, row in enumerate(alone):
        for rival in [*(raw if row.family != "learned" else ()), *alone[place + 1 :]]:
            yield Pair("pair", f"{PAIR}{rival.name}, both alone", row, rival)


def _strongest(rows: Sequence[Row]) -> Row:
    """The row with the most correct test frames."""
    return max(rows, key=lambda row: float(row.correct.sum(axis=1).mean()))


def head_gains(rows: Sequence[HeadRow], judge: Judge) -> list[Comparison]:
    """Compare learned rows with raw features, the best control and reconstruction under the same temporal head.

    Comparisons are paired by video, or by group if groups are known. Raw features are a moving average over one frame,
    so raw features and the best control are one kind of control: a comparison with the weaker of the two on the test
    videos holds only if the one with the stronger does.
    """
    if len(judge.by_group(judge.frames)) < 2:  # no interval for a single video
        return []
    simple = {row.name for row in rows if row.family in ("raw", "control")}
    tallies = [[judge.tallies(run.predictions) for run in row.runs] for row in rows]
    shares = {
        (row.name, row.head, row.mode, metric): _shares(counted, metric, judge)
        for row, counted in zip(rows, tallies, strict=True)
        for metric in HEAD_METRICS
    }
    found: list[Comparison] = []
    for row in rows:
        rivals = [rival for rival in rows if (rival.head, rival.mode) == (row.head, row.mode)]
        for rival in rivals if row.family == "learned" else ():
            if rival.family not in ("raw", "control", "reconstruction"):
                continue
            for metric in HEAD_METRICS:
                sides = (shares[one.name, one.head, one.mode, metric] for one in (row, rival))
                difference = paired_ratios(*sides)
                claim, both = f"{metric} under {row.head}", (row.name, rival.name)
                line = Comparison("head", claim, row.mode, *both, difference, head=row.head, metric=metric)
                found.append(replace(line, later=answers_later(row, rival), drawn_rival=True))
    against = [line for line in found if line.second in simple]
    return [replace(line, stronger=_stronger(line, against)) if line.second in simple else line for line in found]


def _stronger(line: Comparison, found: Sequence[Comparison]) -> str:
    """A control that beats the line's rival on the test videos and is not beaten by the first row; or empty."""
    same = [other for other in found if (other.first, other.mode, other.claim) == (line.first, line.mode, line.claim)]
    hardest = min(same, key=lambda other: other.difference.mean)
    return hardest.second if hardest.difference.mean < line.difference.mean and not hardest.holds else ""


def _shares(tallies: Sequence[Sequence[Tally]], metric: str, judge: Judge) -> RatioSums:
    """The numerators and denominators of a metric by seed and video (or group), under the pooled protocol."""
    if metric == "accuracy":
        parts = [[(one.frames[0, 0], one.frames[0, 1]) for one in run] for run in tallies]
    elif metric == "edit":
        parts = [[(one.edit[0] / 100, one.edit[1]) for one in run] for run in tallies]
    else:
        place = OVERLAPS.index(int(metric.removeprefix("f1@")) / 100)
        counts = [[one.matches[place] for one in run] for run in tallies]
        parts = [[(2 * tp, 2 * tp + fp + fn) for tp, fp, fn in run] for run in counts]
    both = np.array(parts, dtype=np.float64)  # (seeds, videos, 2)
    return RatioSums(judge.by_group(both[..., 0]), judge.by_group(both[..., 1]))
