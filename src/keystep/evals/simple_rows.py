"""The rows of what learns nothing: averages, neighbours in time, what is remembered, the clock, and all together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keystep.evals.candidates import HISTORIES, ONE_FRAME, RAW, TOGETHER
from keystep.evals.controls import Control, Position, side_by_side
from keystep.evals.gate import SMOOTHING
from keystep.evals.protocol import BEST_ON_TEST, Simple
from keystep.evals.rows import Mode, ProbeRun, Row
from keystep.evals.study import Study

OFFSETS = "offsets"


@dataclass(frozen=True)
class Chosen:
    """What the validation videos chose in one mode. smoothing: the moving average; best: of all simple controls."""

    smoothing: Control
    best: Control


def count_simple(study: Study, mode: Mode) -> int:
    """How many probes `judge_simple` reports."""
    choices = len(_widths(study, mode)) + len(_offsets(study, mode))
    return choices + len(_positions(mode)) + 3 + len(HISTORIES) + 1


def judge_simple(study: Study, mode: Mode) -> Chosen:
    """Judge all controls of one mode; of several candidates of a kind, the one that is best on validation."""
    causal = mode == "causal"
    judged = [Simple(row, RAW) for row in study.evaluation.rows if row.family == "raw"]

    def add(name: str, control: Control, detail: str) -> None:
        judged.append(Simple(_add(study, name, mode, control, detail), control))

    widths = _widths(study, mode)
    place, runs = _choose(study, SMOOTHING, widths, mode)
    for position in _positions(mode):
        control = _widths(study, mode, position)[place]
        name = SMOOTHING if position == "none" else f"{SMOOTHING} + {position}"
        add(name, control, f"{control.name}, best of {len(widths)} on validation")
    _add_best_on_test(study, SMOOTHING, mode, widths, runs, place)
    offsets = _offsets(study, mode)
    other, runs = _choose(study, OFFSETS, offsets, mode)
    add(OFFSETS, offsets[other], f"{offsets[other].name}, best of {len(offsets)} on validation")
    _add_best_on_test(study, OFFSETS, mode, offsets, runs, other)
    for name, control in study.candidates.histories(causal=causal).items():
        add(name, control, control.name)
    together = study.candidates.together(widths[place], offsets[other], causal=causal)
    add(TOGETHER, together, together.name)
    best = max(judged, key=lambda simple: simple.row.valid_accuracy)
    study.evaluation.best_control[mode] = best
    return Chosen(widths[place], _needed(best.control, best.row.runs[0]))


def _needed(control: Control, run: ProbeRun) -> Control:
    """Of a control in bands, those that its probe leans on at all: what stands beside latents should not be wider."""
    kept = {name: part for name, part in control.parts.items() if run.probe.strengths.get(name, 1.0) > 0}
    if len(kept) == len(control.parts):
        return control
    return side_by_side(f"{control.name}; only {', '.join(kept)}", kept)


def _widths(study: Study, mode: Mode, position: Position = "none") -> tuple[Control, ...]:
    """Averages to choose from; in a quick look one frame and every third width."""
    found = study.candidates.smoothing(causal=mode == "causal", position=position)
    return found[::3] if study.quick else found


def _offsets(study: Study, mode: Mode) -> tuple[Control, ...]:
    """Offsets to choose from; in a quick look within one reach only."""
    found = study.candidates.offsets(causal=mode == "causal")
    return found[2:4] if study.quick else found


def _positions(mode: Mode) -> tuple[Position, ...]:
    """What an average can have beside it."""
    return ("none", "elapsed") if mode == "causal" else ("none", "elapsed", "progress")


def _choose(study: Study, kind: str, candidates: Sequence[Control], mode: Mode) -> tuple[int, list[ProbeRun]]:
    """The candidate that is best on validation, and the probes of all; a note where it is the last of its kind."""
    runs = [
        study.fit(study.controlled(control), f"{control.name} ({mode})", key=study.key(control, mode), refine=False)
        for control in candidates
    ]
    best = int(np.argmax([run.valid_accuracy for run in runs]))
    if candidates[best].edge:
        study.judge.folder.problems.notes.append(
            f"{kind} ({mode}): validation chose {candidates[best].name}, {candidates[best].edge}"
        )
    return best, runs


def _add_best_on_test(
    study: Study, name: str, mode: Mode, candidates: Sequence[Control], runs: Sequence[ProbeRun], chosen: int
) -> None:
    """A row for the candidate that is best on the test videos, where validation chose another: the gate's rival."""
    best = int(np.argmax([run.correct.sum() for run in runs]))
    control = candidates[best]
    if best == chosen or control.name.endswith(ONE_FRAME):  # raw features have a row of their own
        study.done(f"{name}, the best on test ({mode})")
        return
    detail = f"{control.name}, best of {len(candidates)} on the test videos: a rival for the gate, no fair row"
    _add(study, name + BEST_ON_TEST, mode, control, detail)


def _add(study: Study, name: str, mode: Mode, control: Control, detail: str) -> Row:
    return study.add(
        name,
        "control",
        mode,
        study.controlled(control),
        key=study.key(control, mode),
        position=control.position,
        delay=study.slot_delay if control.causal else None,  # centring needs the whole video
        detail=detail,
    )
