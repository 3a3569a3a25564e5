"""Builds the rows of an evaluation from shared data, controls and progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any

import numpy as np

from keystep.evals.candidates import Candidates
from keystep.evals.controls import Control, Position
from keystep.evals.geometry import LEAST_FRAMES, median_geometry
from keystep.evals.judge import Banded, Judge
from keystep.evals.modes import mark_oracle, slot_delay
from keystep.evals.protocol import TOKENS_NOTE, Evaluation
from keystep.evals.representation import Computed, Listed, Representation
from keystep.evals.rows import Beside, Family, Mode, ProbeRun, Row
from keystep.progress import Task

Columns = Representation | Banded
ColumnsOrFactory = Columns | Callable[[], Columns]
"""A representation with or without bands, or a function that computes it, called only if the probe is not cached."""


LATENTS = "latents"
"""Band name of latents without bands."""


class Study:
    """Builds an `Evaluation` row by row.

    Args:
        judge: data, split, probe and metrics.
        quick: fewer candidates and rows, and probes on fewer frames.
    """

    def __init__(self, judge: Judge, *, quick: bool = False) -> None:
        self.judge, self.quick = judge, quick
        self.task: Task | None = None
        self.evaluation = Evaluation(judge, quick=quick)
        self.raw: Representation = Computed(judge.videos, judge.folder.vectors)
        self.rate = float(judge.folder.timeline.rate)
        self.slot_delay = slot_delay(judge.folder)

    def describe(self) -> None:
        """Show the test videos, measure the geometry of their features, and note what is particular about the data."""
        folder, notes = self.judge.folder, self.judge.folder.problems.notes
        if folder.tokens > 1:
            notes.append(TOKENS_NOTE.format(folder.tokens))
        test = Computed(self.judge.split.test, self.raw.__getitem__, most=0)
        self.evaluation.shown[self.marked("features")] = test
        self.measure(self.marked("raw features"), test)
        short = sum(folder.length(name) < LEAST_FRAMES for name in test)
        if short:
            notes.append(f"geometry excludes {short} test videos with fewer than 3 slots")

    def measure(self, name: str, test: Representation) -> None:
        """Record the geometry of the test videos that are long enough."""
        long = [video for video in test if self.judge.folder.length(video) >= LEAST_FRAMES]
        if long:
            self.evaluation.geometry[name] = median_geometry(Listed(test, long))

    @cached_property
    def candidates(self) -> Candidates:
        """The candidate controls for these data."""
        return make_candidates(self.judge, self.raw)

    def note(self, text: str) -> None:
        """Report the current activity."""
        if self.task is not None:
            self.task.advance(0, text)

    def fit(
        self, representation: ColumnsOrFactory, what: str, *, key: str, seed: int = 0, refine: bool = True
    ) -> ProbeRun:
        """Fit one probe and report progress. key: as in `Judge.run`."""
        self.note(what)
        run = self.judge.run(representation, seed, refine=refine and not self.quick, key=key)
        self.evaluation.fits += 1
        self.done(what)
        return run

    def done(self, what: str) -> None:
        """Report one finished probe."""
        if self.task is not None:
            self.task.advance(note=what)

    def add(
        self,
        name: str,
        family: Family,
        mode: Mode,
        representation: ColumnsOrFactory,
        *,
        key: str,
        seed: int = 0,
        position: Position = "none",
        delay: float | None = None,
        detail: str = "",
        beside: Beside = "",
    ) -> Row:
        """Evaluate a representation. Another seed of an existing row is added to that row.

        Args:
            name: of the row; marked as ORACLE if the data are.
            family, mode, position, delay, detail, beside: as in `Row`.
            representation: as in `Judge.run`.
            key: as in `Judge.run`.
            seed: of the run.
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
        """The name of a row, marked as ORACLE if the data were made with true boundaries."""
        return mark_oracle(name) if self.judge.folder.oracle else name

    def lazy_control(self, control: Control) -> Callable[[], Columns]:
        """A function that computes a control's representation."""
        return partial(apply_control, control, self.raw)

    def key(self, control: Control, mode: Mode) -> str:
        """The cache key of a control."""
        return control_key(control, mode, self.candidates)


def make_candidates(judge: Judge, raw: Representation) -> Candidates:
    """The candidate controls, fitted to all training videos. ``raw`` need not contain the unlabelled ones."""
    every = Computed(judge.pretraining, lambda name: raw[name] if name in raw else judge.folder.vectors(name), most=0)
    return Candidates(Listed(every, judge.pretraining), float(judge.folder.timeline.rate), judge.time_scale.tau)


def control_key(control: Control, mode: Mode, candidates: Candidates) -> str:
    """The cache key of a control."""
    return f"control {mode}: {control.name}, tau {candidates.seconds!r} s"


def apply_control(control: Control, raw: Representation) -> Columns:
    """Apply a control to every video; a control with several parts gives bands."""
    videos = Computed(raw, lambda name: control.transform(raw[name]))
    if len(control.parts) < 2:
        return videos
    some = next(iter(raw.values()))
    return Banded(videos, {name: part.transform(some).shape[1] for name, part in control.parts.items()})


def without_bands(columns: Columns) -> Representation:
    """The videos of a representation, without bands."""
    return columns.videos if isinstance(columns, Banded) else columns


def with_bands(videos: Representation, widths: Mapping[str, int]) -> Columns:
    """A representation with bands, if there is more than one."""
    return Banded(videos, widths) if len(widths) > 1 else videos


def concatenate(first: Columns, second: Columns, name: str, chosen: Mapping[str, float]) -> Banded:
    """Concatenate two representations; the second becomes one more band with the given name.

    chosen: strengths of the first one's bands, as selected by its own probe. Bands of strength 0 are dropped.
    """
    if isinstance(first, Banded):
        videos = first.videos
        read: Any = np.repeat([chosen[band] > 0 for band in first.widths], list(first.widths.values()))
        strengths = {band: strength for band, strength in chosen.items() if strength}
        widths = {band: first.widths[band] for band in strengths}
    else:
        videos, read, strengths = first, slice(None), {LATENTS: 1.0}
        widths = {LATENTS: next(iter(videos.values())).shape[1]}
    other = without_bands(second)
    both = Computed(videos, lambda video: np.concatenate([videos[video][:, read], other[video]], axis=1))
    return Banded(both, {**widths, name: next(iter(other.values())).shape[1]}, strengths)
