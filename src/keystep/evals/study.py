"""An evaluation in the making: what all rows of the table share, and how one more is added."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial

import numpy as np

from keystep.evals.candidates import Candidates
from keystep.evals.controls import Control, Position
from keystep.evals.geometry import measurable, median_geometry
from keystep.evals.judge import Banded, Judge, Representation
from keystep.evals.modes import marked_oracle, slot_delay
from keystep.evals.protocol import TOKENS_NOTE, Evaluation
from keystep.evals.rows import Beside, Family, Mode, ProbeRun, Row
from keystep.progress import Task

Columns = Representation | Banded
Made = Columns | Callable[[], Columns]
"""A representation, in bands or not, or what makes it, which is called only where no kept probe is found."""


LATENTS = "latents"
"""Band of latents that are no bands themselves."""


class Study:
    """Builds an `Evaluation` row by row.

    Args:
        quick: a first look: fewer candidates and rows, and probes on fewer frames.
    """

    def __init__(self, judge: Judge, *, quick: bool = False) -> None:
        self.judge, self.quick = judge, quick
        self.task: Task | None = None
        self.evaluation = Evaluation(judge, quick=quick)
        self.raw: Representation = {name: judge.folder.vectors(name) for name in judge.videos}
        if judge.folder.tokens > 1:
            judge.folder.problems.notes.append(TOKENS_NOTE.format(judge.folder.tokens))
        self.rate = float(judge.folder.timeline.rate)
        self.slot_delay = slot_delay(judge.folder)
        test = judge.split.test
        self.evaluation.shown[self.marked("features")] = {name: self.raw[name] for name in test}
        self.measure(self.marked("raw features"), [self.raw[name] for name in test])
        short = len(test) - len(measurable([self.raw[name] for name in test]))
        if short:
            judge.folder.problems.notes.append(f"geometry leaves out {short} test videos of fewer than 3 slots")

    def measure(self, name: str, test: Sequence[np.ndarray]) -> None:
        """Note the geometry of the test videos, of those that are long enough for one."""
        found = measurable(test)
        if found:
            self.evaluation.geometry[name] = median_geometry(found)

    @cached_property
    def candidates(self) -> Candidates:
        """The controls of these data."""
        return candidates_of(self.judge, self.raw)

    def note(self, text: str) -> None:
        """Say what is being done now."""
        if self.task is not None:
            self.task.advance(0, text)

    def fit(self, representation: Made, what: str, *, key: str, seed: int = 0, refine: bool = True) -> ProbeRun:
        """Fit one probe and report it. key: as for `Judge.run`."""
        self.note(what)
        run = self.judge.run(representation, seed, refine=refine and not self.quick, key=key)
        self.evaluation.fits += 1
        self.done(what)
        return run

    def done(self, what: str) -> None:
        """Report one more probe."""
        if self.task is not None:
            self.task.advance(note=what)

    def add(
        self,
        name: str,
        family: Family,
        mode: Mode,
        representation: Made,
        *,
        key: str,
        seed: int = 0,
        position: Position = "none",
        delay: float | None = None,
        detail: str = "",
        beside: Beside = "",
    ) -> Row:
        """Judge a representation; another seed of a known row joins it.

        Whatever was made of a folder that true boundaries shaped is ORACLE itself. key: as for `Judge.run`.
        """
        name = self.marked(name)
        run = self.fit(representation, f"{name} ({mode}{f', seed {seed}' if seed else ''})", key=key, seed=seed)
        row = self.evaluation.find(name, mode)
        if row is None:
            width = len(run.probe.weight)
            row = Row(name, family, mode, position, delay, detail, width, beside)
            self.evaluation.rows.append(row)
        row.runs.append(run)
        return row

    def marked(self, name: str) -> str:
        """The name of a row, with ORACLE in it wherever that is so."""
        return marked_oracle(name) if self.judge.folder.oracle else name

    def controlled(self, control: Control) -> Callable[[], Columns]:
        """What makes a control's representation."""
        return partial(represented, control, self.raw)

    def key(self, control: Control, mode: Mode) -> str:
        """What tells a control from all other representations."""
        return control_key(control, mode, self.candidates)


def candidates_of(judge: Judge, raw: Representation) -> Candidates:
    """The controls of the data, in their own time; videos without labels, which ``raw`` need not have, count too."""
    train = [raw[name] if name in raw else judge.folder.vectors(name) for name in judge.pretraining]
    return Candidates(train, float(judge.folder.timeline.rate), judge.clock.tau)


def control_key(control: Control, mode: Mode, candidates: Candidates) -> str:
    """What a kept probe of a control is found by."""
    return f"control {mode}: {control.name}, tau {candidates.seconds!r} s"


def represented(control: Control, raw: Representation) -> Columns:
    """A control of every video, in bands where it has several."""
    videos = {name: control.transform(features) for name, features in raw.items()}
    if len(control.parts) < 2:
        return videos
    some = next(iter(raw.values()))
    return Banded(videos, {name: part.transform(some).shape[1] for name, part in control.parts.items()})


def plain(columns: Columns) -> Representation:
    """The same without its bands."""
    return columns.videos if isinstance(columns, Banded) else columns


def banded(videos: Representation, widths: Mapping[str, int]) -> Columns:
    """In bands, where there are several."""
    return Banded(videos, widths) if len(widths) > 1 else videos


def joined(first: Columns, second: Columns, name: str, chosen: Mapping[str, float]) -> Banded:
    """Two representations side by side; the second is one more band, called ``name``.

    chosen: the strengths that a probe gave the bands of the first. Those of strength 0 are left out.
    """
    if isinstance(first, Banded):
        read = np.repeat([chosen[band] > 0 for band in first.widths], list(first.widths.values()))
        videos = {video: frames[:, read] for video, frames in first.videos.items()}
        strengths = {band: strength for band, strength in chosen.items() if strength}
        widths = {band: first.widths[band] for band in strengths}
    else:
        videos, strengths = dict(first), {LATENTS: 1.0}
        widths = {LATENTS: next(iter(videos.values())).shape[1]}
    other = plain(second)
    both = {video: np.concatenate([frames, other[video]], axis=1) for video, frames in videos.items()}
    return Banded(both, {**widths, name: next(iter(other.values())).shape[1]}, strengths)
