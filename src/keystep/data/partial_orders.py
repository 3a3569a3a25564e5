"""Made-up procedures with a known partial order, and runs of them with and without mistakes.

A procedure begins and ends with a fixed step. The steps in between form chains that a run interleaves at random, with
some orders across chains. Some steps are optional, some may be done twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import networkx as nx
import numpy as np
from numpy.random import Generator

from keystep.data.mistakes import MistakeKind
from keystep.data.procedures import ABORTED_AT

CHAINS = 3
"""Number of chains between the first and the last step."""
CROSSINGS = 3
"""Number of orders that are drawn across chains."""
OPTIONAL_SHARE, REPEAT_SHARE = 0.5, 0.5
"""Probability that an optional step is done, and that a repeatable step is done twice."""
UNKNOWN = 4
"""Number of appearances of steps that are not part of the procedure."""


@dataclass(frozen=True)
class Procedure:
    """A partial order of steps.

    Attributes:
        steps: names, in an order that respects ``precedence``.
        precedence: (before, after), the transitive reduction.
        optional: steps that may be left out.
        repeatable: steps that may be done twice.
    """

    steps: tuple[str, ...]
    precedence: frozenset[tuple[str, str]]
    optional: frozenset[str]
    repeatable: frozenset[str]

    def before(self) -> dict[str, set[str]]:
        """Step -> all steps that have to be done before it."""
        order = nx.DiGraph(sorted(self.precedence))
        order.add_nodes_from(self.steps)
        return {step: nx.ancestors(order, step) for step in self.steps}


@dataclass(frozen=True)
class Act:
    """What is done in a run: a step, or something unknown.

    Attributes:
        step: name; empty if it is no step of the procedure.
        share: of the step that is done, less than 1 if it is aborted.
        mistake: kind, if it is one.
        omitted: step that was left out before this act.
    """

    step: str
    share: float = 1.0
    mistake: MistakeKind | None = None
    omitted: str = ""


Run = list[Act]


def make_procedure(count: int, optional: int, repeatable: int, rng: Generator) -> Procedure:
    """Draw a procedure.

    Args:
        count: number of steps.
        optional, repeatable: number of such steps, which are different and neither first nor last.
        rng: random generator.
    """
    names = [f"step_{number}" for number in rng.permutation(count)]
    first, *middle, last = names
    chains = [middle[start::CHAINS] for start in range(CHAINS)]
    order = nx.DiGraph()
    for chain in chains:
        nx.add_path(order, [first, *chain, last])
    for _ in range(CROSSINGS):
        start, stop = sorted(rng.choice(len(middle), 2, replace=False).tolist())  # `middle` respects the chains
        order.add_edge(middle[start], middle[stop])
    special = rng.permutation(middle).tolist()
    return Procedure(
        tuple(names),
        frozenset(nx.transitive_reduction(order).edges),
        frozenset(special[:optional]),
        frozenset(special[optional : optional + repeatable]),
    )


def correct_run(procedure: Procedure, rng: Generator) -> Run:
    """Draw a run without mistakes: at each moment, one of the steps that can be done, at random."""
    left = [step for step in procedure.steps if step not in procedure.optional or rng.random() < OPTIONAL_SHARE]
    before, order = procedure.before(), list[str]()
    while left:
        possible = [step for step in left if not before[step] & set(left)]
        order.append(possible[rng.integers(len(possible))])
        left.remove(order[-1])
    for step in sorted(procedure.repeatable):
        if rng.random() < REPEAT_SHARE:
            order.insert(int(rng.integers(order.index(step) + 1, len(order))), step)
    return [Act(step) for step in order]


def mistaken_run(procedure: Procedure, kinds: list[MistakeKind], rng: Generator) -> Run:
    """Draw a run with one mistake of each of the given kinds, as far as the drawn order admits them."""
    run = correct_run(procedure, rng)
    for kind in kinds:
        run = _MAKERS[kind](procedure, run, rng)
    return run


def _omit(procedure: Procedure, run: Run, rng: Generator) -> Run:
    """Leave out a required step that is done once and on which another step depends."""
    essential = {before for before, _ in procedure.precedence} - procedure.optional - procedure.repeatable
    places = [k for k, act in enumerate(run[:-1]) if k and _plain(act, run[k + 1]) and act.step in essential]
    if not places:
        return run
    k = _pick(places, rng)
    after = run[k + 1]
    return [*run[:k], Act(after.step, after.share, after.mistake, omitted=run[k].step), *run[k + 2 :]]


def _swap(procedure: Procedure, run: Run, rng: Generator) -> Run:
    """Do two neighbouring steps in the wrong order."""
    places = [
        k
        for k, (act, after) in enumerate(pairwise(run))
        if (act.step, after.step) in procedure.precedence and _plain(act, after) and _once(run, act, after)
    ]
    if not places:
        return run
    k = _pick(places, rng)
    swapped = [Act(run[place].step, mistake="swapped") for place in (k + 1, k)]
    return [*run[:k], *swapped, *run[k + 2 :]]


def _repeat(procedure: Procedure, run: Run, rng: Generator) -> Run:
    """Do a step again that must be done once, at least one other step later."""
    places = [k for k, act in enumerate(run[:-2]) if _plain(act) and act.step not in procedure.repeatable]
    if not places:
        return run
    k = _pick(places, rng)
    again = int(rng.integers(k + 2, len(run)))
    return [*run[:again], Act(run[k].step, mistake="repeated"), *run[again:]]


def _correct(procedure: Procedure, run: Run, rng: Generator) -> Run:
    """Break off an attempt at a step and start it again."""
    places = [k for k, act in enumerate(run) if _plain(act)]
    if not places:
        return run
    k = _pick(places, rng)
    return [*run[:k], Act(run[k].step, ABORTED_AT, "corrected"), *run[k:]]


def _unknown(procedure: Procedure, run: Run, rng: Generator) -> Run:
    """Do something that is no step of the procedure."""
    k = int(rng.integers(1, len(run)))
    return [*run[:k], Act("", mistake="unknown"), *run[k:]]


_MAKERS: dict[MistakeKind, Callable[[Procedure, Run, Generator], Run]] = {
    "omitted": _omit,
    "swapped": _swap,
    "repeated": _repeat,
    "corrected": _correct,
    "unknown": _unknown,
}


def _plain(*acts: Act) -> bool:
    """Whether acts are steps without a mistake."""
    return all(act.step and act.mistake is None and not act.omitted for act in acts)


def _once(run: Run, *acts: Act) -> bool:
    """Whether each of these steps is done once."""
    steps = [act.step for act in run]
    return all(steps.count(act.step) == 1 for act in acts)


def _pick(places: list[int], rng: Generator) -> int:
    return places[int(rng.integers(len(places)))]


def draw_kinds(kinds: tuple[MistakeKind, ...], most: int, rng: Generator) -> list[MistakeKind]:
    """Draw between one and ``most`` different kinds of mistakes."""
    count = int(rng.integers(1, most + 1))
    return [kinds[k] for k in np.sort(rng.choice(len(kinds), count, replace=False))]
