"""What can come next in a run, what is missing, and how likely an order of steps is.

The probability of the next step has two factors: how often it follows the last step (transitions, smoothed by the
frequency of all steps), and `VIOLATION` if it is out of order: it lacks a step that has to be done before it, or is
done again though it may not be repeated. The end of a run is treated as a step that needs all required ones. A missing
step counts against the first step that needs it only, so that one omission does not condemn the rest of the run.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import networkx as nx

from keystep.procedure.graph import ProcedureGraph

VIOLATION = 0.01
"""Factor on the probability of a step that is out of order, and weight of an unknown step."""
SMOOTHING = 2.0
"""Number of transitions after each step that are added, distributed by the frequency of all steps."""


@dataclass(frozen=True)
class NextStep:
    """A step that can follow.

    Attributes:
        step: name. None: the end of the run.
        probability: that it is the next one.
        lacking: required steps that should have been done before.
        again: whether it was done already and is not known to be repeated.
    """

    step: str | None
    probability: float
    lacking: tuple[str, ...] = ()
    again: bool = False

    @property
    def in_order(self) -> bool:
        """Whether the partial order admits it."""
        return not self.lacking and not self.again


@dataclass(frozen=True)
class StepScore:
    """A step of a run: its probability given the steps before it, and the reason if it is out of order.

    known: whether the procedure has this step. step, lacking, again: as in `NextStep`.
    """

    step: str | None
    probability: float
    lacking: tuple[str, ...]
    again: bool
    known: bool

    @property
    def surprise(self) -> float:
        """Negative logarithm of the probability."""
        return -math.log(self.probability)


class Order:
    """The order of a procedure. ``graph``: learned, or read from a file."""

    def __init__(self, graph: ProcedureGraph) -> None:
        self.graph = graph
        self._place = {step.name: place for place, step in enumerate(graph.steps)}
        self._required = frozenset(step.name for step in graph.steps if not step.optional)
        self._repeatable = frozenset(step.name for step in graph.steps if step.repeatable)
        self._before = {step.name: frozenset(nx.ancestors(graph.order, step.name)) for step in graph.steps}
        self._counts = Counter({(edge.before, edge.after): edge.count for edge in graph.transitions})

    @cached_property
    def _frequency(self) -> dict[str | None, float]:
        """Share of each step, and of the end (None), among all transitions."""
        after = Counter[str | None]()
        for (_, step), count in self._counts.items():
            after[step] += count
        candidates: list[str | None] = [*self._place, None]
        return {step: (after[step] + 1) / (after.total() + len(candidates)) for step in candidates}

    def missing(self, done: Sequence[str]) -> tuple[str, ...]:
        """Required steps that were not done, in the order of the graph."""
        return self._sorted(self._required - set(done))

    def next_steps(self, done: Sequence[str]) -> list[NextStep]:
        """All steps and the end of the run, most probable first.

        Args:
            done: steps so far, in temporal order; unknown ones have no effect.
        """
        known = [step for step in done if step in self._place]
        last, noted = known[-1] if known else None, self._noted(known)
        found = []
        for step, frequency in self._frequency.items():
            needs = self._required if step is None else self._before[step] & self._required
            lacking = self._sorted(needs - set(known) - noted)
            again = step in known and step not in self._repeatable
            factor = VIOLATION if lacking or again else 1.0
            weight = factor * (self._counts[last, step] + SMOOTHING * frequency)
            found.append(NextStep(step, weight, lacking, again))
        total = sum(option.probability for option in found) + VIOLATION
        scaled = [NextStep(option.step, option.probability / total, option.lacking, option.again) for option in found]
        return sorted(scaled, key=lambda option: (-option.probability, str(option.step)))

    def score(self, steps: Sequence[str], *, ended: bool = True) -> list[StepScore]:
        """Score each step given those before it, and the end of the run.

        Args:
            steps: of a run, in temporal order.
            ended: whether the run is complete; if not, the end is not scored.
        """
        sequence: list[str | None] = [*steps, None] if ended else list(steps)
        return [self.score_next(steps[:number], step) for number, step in enumerate(sequence)]

    def score_next(self, done: Sequence[str], step: str | None) -> StepScore:
        """Score a step, or the end of the run (None), given the steps before it."""
        options = self.next_steps(done)
        option = next((option for option in options if option.step == step), None)
        if option is None:
            rest = max(1.0 - sum(option.probability for option in options), 1e-12)
            return StepScore(step, rest, (), False, known=False)
        return StepScore(step, option.probability, option.lacking, option.again, known=True)

    def _noted(self, known: Sequence[str]) -> frozenset[str]:
        """Steps that some step so far needed."""
        return frozenset[str]().union(*(self._before[step] for step in known))

    def _sorted(self, steps: frozenset[str] | set[str]) -> tuple[str, ...]:
        return tuple(sorted(steps, key=self._place.__getitem__))
