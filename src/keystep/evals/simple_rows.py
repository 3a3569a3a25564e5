"""The rows of the controls: moving averages, temporal offsets, histories, the clock, and all of them combined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keystep.evals.candidates import ALL_CONTROLS, HISTORIES, ONE_FRAME, RAW
from keystep.evals.controls import Control, Position, side_by_side
from keystep.evals.gate import SMOOTHING
from keystep.evals.protocol import BEST_ON_TEST, Simple
from keystep.evals.rows import Mode, ProbeRun, Row
from keystep.evals.study import Study

OFFSETS = "offsets"


@dataclass(frozen=True)
class Chosen:
    """The controls selected on validation videos in one mode. smoothing: a moving average. best: of all controls."""

    smoothing: Control
    best: Control


def count_simple(study: Study, mode: Mode) -> int:
    """Number of probes that `judge_simple` reports."""
    choices = len(_widths(study, mode)) + len(_offsets(study, mode))
    return choices + len(_positions(mode)) + 3 + len(HISTORIES) + 1


def judge_simple(study: Study, mode: Mode) -> Chosen:
    """Evaluate all controls of one mode. Of each kind, the candidate with the best validation accuracy is used."""
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
    add(ALL_CONTROLS, together, together.name)
    best = max(judged, key=lambda simple: simple.row.valid_accuracy)
    study.evaluation.best_control[mode] = best
    return Chosen(widths[place], _needed(best.control, best.row.runs[0]))


def _needed(control: Control, run: ProbeRun) -> Control:
    """A control without the bands that its probe dropped, so that concatenating it with latents adds fewer columns."""
    kept = {name: part for name, part in control.parts.items() if run.probe.strengths.get(name, 1.0) > 0}
    if len(kept) == len(control.parts):
        return control
    return side_by_side(f"{control.name}; only {', '.join(kept)}", kept)


def _widths(study: Study, mode: Mode, position: Position = "none") -> tuple[Control, ...]:
    """Candidate moving averages; in a quick look a third of them."""
    found = study.candidates.smoothing(causal=mode == "causal", position=position)
    return found[::3] if study.quick else found


def _offsets(study: Study, mode: Mode) -> tuple[Control, ...]:
    """Candidate offsets; in a quick look those of one reach."""
    found = study.candidates.offsets(causal=mode == "causal")
    return found[2:4] if study.quick else found


def _positions(mode: Mode) -> tuple[Position, ...]:
    """Position features that are combined with the moving average."""
    return ("none", "elapsed") if mode == "causal" else ("none", "elapsed", "progress")


def list_candidates(study: Study, mode: Mode) -> tuple[Control, ...]:
    """The controls of one mode among which validation selects."""
    return (*_widths(study, mode), *_offsets(study, mode))


def fit_candidate(study: Study, control: Control, mode: Mode) -> ProbeRun:
    """Fit the probe by which a candidate is selected."""
    return study.fit(
        study.lazy_control(control), f"{control.name} ({mode})", key=study.key(control, mode), refine=False
    )


def _choose(study: Study, kind: str, candidates: Sequence[Control], mode: Mode) -> tuple[int, list[ProbeRun]]:
    """The candidate with the best validation accuracy, and all probes. Notes if it is at the edge of the grid."""
    runs = [fit_candidate(study, control, mode) for control in candidates]
    best = int(np.argmax([run.valid_accuracy for run in runs]))
    if candidates[best].edge:
        study.judge.folder.problems.notes.append(
            f"{kind} ({mode}): validation selected {candidates[best].name}, {candidates[best].edge}"
        )
    return best, runs


def _add_best_on_test(
    study: Study, name: str, mode: Mode, candidates: Sequence[Control], runs: Sequence[ProbeRun], chosen: int
) -> None:
    """Add a row for the best candidate on the test videos, unless validation selected it; a rival in the gate."""
    best = int(np.argmax([run.correct.sum() for run in runs]))
    control = candidates[best]
    if best == chosen or control.name.endswith(ONE_FRAME):  # raw features have a row of their own
        study.done(f"{name}, the best on test ({mode})")
        return
    detail = f"{control.name}, best of {len(candidates)} on the test videos: only a rival for the gate"
    _add(study, name + BEST_ON_TEST, mode, control, detail)


def _add(study: Study, name: str, mode: Mode, control: Control, detail: str) -> Row:
    return study.add(
        name,
        "control",
        mode,
        study.lazy_control(control),
        key=study.key(control, mode),
        position=control.position,
        delay=study.slot_delay if control.causal else None,  # centring needs the whole video
        detail=detail,
    )
