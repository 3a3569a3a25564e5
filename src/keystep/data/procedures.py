"""The process behind synthetic videos: steps of a procedure, their names, and their order.

History: a *round* handles one workpiece. It is brought, fastened one to three times, worked on, and sometimes checked.
All fastenings have the same appearance, and so do all work steps of one kind; their names depend on how often *this*
workpiece has been fastened. So does the appearance of a check, whose name is always the same. Plain steps in between
show how often another workpiece was fastened.

Moment: short steps, each with its own appearance, follow each other at random, so that the past is uninformative.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator

BACKGROUND = "background"
PAUSES = tuple(f"{BACKGROUND}_{k}" for k in range(4))
"""Appearances of the background."""
MOST = 3
"""Maximum number of times that a workpiece is fastened; the minimum is 1."""
ABORTED_AT = 0.4
"""Share of a step at which a mistaken attempt is aborted."""

Length = Literal["brief", "work", "check", "pause"]


@dataclass(frozen=True)
class Step:
    """A step of the procedure.

    Attributes:
        name: of its class.
        look: its appearance. Classes with the same look cannot be distinguished by single frames.
        length: kind of its duration.
        shows: what else is visible, under the same name. None: nothing.
        essential: whether later steps depend on it, so that it is never omitted, repeated or aborted.
    """

    name: str
    look: str
    length: Length = "brief"
    shows: str | None = None
    essential: bool = False


Attempt = tuple[Step, float]
"""An execution of a step, and the share of it that is done: 1, or less if it is aborted."""
Task = tuple[tuple[int, ...], ...]
"""Chains of work steps, each in a fixed order; a round interleaves them at random."""


@dataclass(frozen=True)
class Chances:
    """Probabilities of variations.

    Attributes:
        skip, repeat, mistake: of a step that is not essential: omitted, done twice, aborted and restarted.
        pause: after any step.
        aside: a plain step after a work step.
        check: before each work step and at the end of a round.
    """

    skip: float
    repeat: float
    mistake: float
    pause: float
    aside: float
    check: float


def bring() -> Step:
    """The first step of a round."""
    return Step("bring", "bring", essential=True)


def fasten(number: int) -> Step:
    """Fasten a workpiece for the ``number``-th time."""
    return Step(f"fasten_{number}", "fasten", essential=True)


def reach() -> Step:
    """Reach for the tool, between two fastenings."""
    return Step("reach", "reach", essential=True)


def work(k: int, count: int) -> Step:
    """Work step ``k`` on a workpiece that was fastened ``count`` times."""
    return Step(f"work_{k}_after_{count}", f"work_{k}", "work")


def check(count: int) -> Step:
    """Check a workpiece, which shows that it was fastened ``count`` times."""
    return Step("check", "check", "check", shows=f"fastened_{count}")


def plain(k: int, count: int | None = None) -> Step:
    """Plain step ``k``; on another workpiece, it shows that this was fastened ``count`` times."""
    return Step(f"plain_{k}", f"plain_{k}", shows=None if count is None else f"fastened_{count}")


def history_steps(works: int, plains: int) -> list[Step]:
    """All steps of the history process except the background; ``check`` once per count that it shows."""
    counts = range(1, MOST + 1)
    done = [work(k, count) for k in range(works) for count in counts]
    return [bring(), reach(), *map(fasten, counts), *done, *map(plain, range(plains)), *map(check, counts)]


def moment_steps(plains: int) -> list[Step]:
    """All steps of the moment process except the background, each with its own look."""
    return [plain(k) for k in range(plains)]


def make_task(number: int, works: int, rng: Generator) -> Task:
    """Draw a task: all work steps except step ``number % works``, in random chains of two."""
    order = rng.permutation([k for k in range(works) if k != number % works]).tolist()
    return tuple(tuple(order[start : start + 2]) for start in range(0, len(order), 2))


def rounds(task: Task, plains: int, chances: Chances, rng: Generator) -> Iterator[Attempt]:
    """Yield the attempts of endless rounds, one workpiece after the other."""
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
    """The work steps of a task in random order that preserves the order within chains."""
    placed = [entry for chain in task for entry in zip(np.sort(rng.random(len(chain))).tolist(), chain, strict=True)]
    return [k for _, k in sorted(placed)]


def _perhaps(step: Step, chance: float, chances: Chances, rng: Generator) -> Iterator[Attempt]:
    if rng.random() < chance:
        yield from _execute(step, chances, rng)


def _execute(step: Step, chances: Chances, rng: Generator) -> Iterator[Attempt]:
    """Yield zero or more attempts at a step, and possibly a pause."""
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
    """Yield endless random steps with probabilities ``habits`` (plains,), never the same twice in a row."""
    steps, before = moment_steps(len(habits)), -1
    while True:
        weights = np.where(np.arange(len(steps)) == before, 0.0, habits)
        before = int(rng.choice(len(steps), p=weights / weights.sum()))
        yield steps[before], 1.0
        if rng.random() < chances.pause:
            yield _pause(rng)


def _pause(rng: Generator) -> Attempt:
    return Step(BACKGROUND, PAUSES[int(rng.integers(len(PAUSES)))], "pause"), 1.0
