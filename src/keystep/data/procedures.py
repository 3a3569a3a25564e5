"""What happens in a made-up video: the steps of a procedure, their names, and the order in which they are done.

History: a *round* handles one workpiece. It is brought, fastened once, twice or three times, worked on, and now and
then checked. Fastenings look alike, and so does all work of one kind; what either is called depends on how often *this*
workpiece has been fastened before. The same decides what a check shows, which is called a check whatever it shows.
Plain steps in between show how often another workpiece was fastened.

Moment: steps follow each other at random, briefly, and each has a look of its own. What came before says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator

BACKGROUND = "background"
PAUSES = tuple(f"{BACKGROUND}_{k}" for k in range(4))
"""Looks of the ways to do nothing in particular."""
MOST = 3
"""A workpiece is fastened between once and this many times."""
ABORTED_AT = 0.4
"""How far along a mistaken attempt gets."""

Length = Literal["brief", "work", "check", "pause"]


@dataclass(frozen=True)
class Step:
    """One class. Classes that share a ``look`` cannot be told apart by their frames."""

    name: str
    look: str
    length: Length = "brief"
    shows: str | None = None
    """What else is in view, under the same name."""
    essential: bool = False
    """What follows depends on it, so it is never left out, repeated or broken off."""


Attempt = tuple[Step, float]
"""One execution of a step, and how far along it gets: 1, or less when it is broken off."""
Task = tuple[tuple[int, ...], ...]
"""Chains of work steps, each in a fixed order; a round interleaves them at random."""


@dataclass(frozen=True)
class Chances:
    """How often a step that nothing depends on is left out, done twice, broken off and begun anew; how often any step
    is followed by a pause; how often work is followed by a plain step; and how often a workpiece is checked before each
    piece of work and at the end."""

    skip: float
    repeat: float
    mistake: float
    pause: float
    aside: float
    check: float


def bring() -> Step:
    return Step("bring", "bring", essential=True)


def fasten(number: int) -> Step:
    return Step(f"fasten_{number}", "fasten", essential=True)


def reach() -> Step:
    return Step("reach", "reach", essential=True)


def work(k: int, count: int) -> Step:
    return Step(f"work_{k}_after_{count}", f"work_{k}", "work")


def check(count: int) -> Step:
    return Step("check", "check", "check", shows=f"fastened_{count}")


def plain(k: int, count: int | None = None) -> Step:
    """Something else; done on another workpiece, it shows how often that one was fastened."""
    return Step(f"plain_{k}", f"plain_{k}", shows=None if count is None else f"fastened_{count}")


def history_steps(works: int, plains: int) -> list[Step]:
    """Every step without the background; ``check`` as often as there are things that it shows."""
    counts = range(1, MOST + 1)
    done = [work(k, count) for k in range(works) for count in counts]
    return [bring(), reach(), *map(fasten, counts), *done, *map(plain, range(plains)), *map(check, counts)]


def moment_steps(plains: int) -> list[Step]:
    """Steps with a look of their own each, without the background."""
    return [plain(k) for k in range(plains)]


def make_task(number: int, works: int, rng: Generator) -> Task:
    """All work steps but one, in chains of two; tasks take turns in what they leave out."""
    order = rng.permutation([k for k in range(works) if k != number % works]).tolist()
    return tuple(tuple(order[start : start + 2]) for start in range(0, len(order), 2))


def rounds(task: Task, plains: int, chances: Chances, rng: Generator) -> Iterator[Attempt]:
    """One workpiece after the other, without end."""
    yield _pause(rng)
    while True:
        count = int(rng.integers(1, MOST + 1))
        fastened = [step for number in range(1, count + 1) for step in (reach(), fasten(number))]
        for step in (bring(), *fastened[1:]):
            yield from _execute(step, chances, rng)
        for k in _interleaved(task, rng):
            yield from _perhaps(check(count), chances.check, chances, rng)
            yield from _execute(work(k, count), chances, rng)
            yield from _perhaps(_aside(plains, rng), chances.aside, chances, rng)
        yield from _perhaps(check(count), chances.check, chances, rng)


def _aside(plains: int, rng: Generator) -> Step:
    return plain(int(rng.integers(plains)), int(rng.integers(1, MOST + 1)))


def _interleaved(task: Task, rng: Generator) -> list[int]:
    """The work of a task, each chain in its order."""
    placed = [entry for chain in task for entry in zip(np.sort(rng.random(len(chain))).tolist(), chain, strict=True)]
    return [k for _, k in sorted(placed)]


def _perhaps(step: Step, chance: float, chances: Chances, rng: Generator) -> Iterator[Attempt]:
    if rng.random() < chance:
        yield from _execute(step, chances, rng)


def _execute(step: Step, chances: Chances, rng: Generator) -> Iterator[Attempt]:
    """None, one or more attempts, and perhaps a pause."""
    odds = (chances.skip, chances.repeat, chances.mistake)
    skipped, repeated, broken_off = (rng.random(3) < odds) & (not step.essential)
    if skipped:
        return
    if broken_off:
        yield step, ABORTED_AT
        yield _pause(rng)
    yield from [(step, 1.0)] * (2 if repeated else 1)
    if rng.random() < chances.pause:
        yield _pause(rng)


def moments(habits: np.ndarray, chances: Chances, rng: Generator) -> Iterator[Attempt]:
    """One step after the other, each as often as this video's habits (plains,) have it, never twice in a row."""
    steps, before = moment_steps(len(habits)), -1
    while True:
        weights = np.where(np.arange(len(steps)) == before, 0.0, habits)
        before = int(rng.choice(len(steps), p=weights / weights.sum()))
        yield steps[before], 1.0
        if rng.random() < chances.pause:
            yield _pause(rng)


def _pause(rng: Generator) -> Attempt:
    return Step(BACKGROUND, PAUSES[int(rng.integers(len(PAUSES)))], "pause"), 1.0
