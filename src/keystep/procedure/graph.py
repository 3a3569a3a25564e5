"""The graph of a procedure: steps with their statistics, a partial order, and how often steps follow each other."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

import networkx as nx
from pydantic import Field, model_validator

from keystep.errors import quoted
from keystep.files import write_json
from keystep.reading import Record, read_record

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]


class Step(Record):
    """A step of the procedure.

    Attributes:
        name: of its class.
        runs: number of runs in which it is done.
        segments: number of its segments in all runs.
        share: of the runs in which it is done.
        repeated: share of these runs in which it is done more than once.
        seconds: 10 %, 50 % and 90 % quantiles of the duration of its segments.
        optional: whether it is done in too few runs to be missed.
        repeatable: whether doing it again is no mistake.
    """

    name: Annotated[str, Field(min_length=1)]
    runs: Count
    segments: Count
    share: Share
    repeated: Share
    seconds: Annotated[list[Seconds], Field(min_length=3, max_length=3)]
    optional: bool
    repeatable: bool


class Precedence(Record):
    """An edge of the partial order: where both are done, ``before`` is first done before ``after``.

    Attributes:
        before, after: names of steps.
        support: number of runs in which both are done.
        confidence: share of these runs in which they are done in this order.
    """

    before: str
    after: str
    support: Count
    confidence: Share


class Transition(Record):
    """How often ``after`` is the next step after ``before``; None: the start or the end of a run."""

    before: str | None
    after: str | None
    count: Count


class ProcedureGraph(Record):
    """The graph of a procedure, learned from runs.

    Attributes:
        runs: number of runs that it was learned from.
        source: where they come from, for the reader.
        settings: of the learning.
        steps: in an order that respects the precedence, by their typical position.
        precedence: edges of the partial order, without those that follow from others (its transitive reduction).
        transitions: of neighbouring steps.
    """

    format: Literal["keystep-procedure"] = "keystep-procedure"
    version: Literal[1] = 1
    runs: Count
    source: str = ""
    settings: dict[str, float] = Field(default_factory=dict)
    steps: Annotated[list[Step], Field(min_length=1)]
    precedence: list[Precedence]
    transitions: list[Transition]

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        names = [step.name for step in self.steps]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"step {quoted(twice)} is listed twice")
        edges: list[Precedence | Transition] = [*self.precedence, *self.transitions]
        used = {name for edge in edges for name in (edge.before, edge.after) if name is not None}
        unknown = sorted(used - set(names))
        if unknown:
            raise ValueError(f"an edge names {quoted(unknown[0])}, which is not one of the {len(names)} steps")
        if not nx.is_directed_acyclic_graph(self.order):
            cycle = " before ".join(before for before, *_ in nx.find_cycle(self.order))
            raise ValueError(f"the precedence has a cycle: {cycle}")
        return self

    @cached_property
    def order(self) -> nx.DiGraph:
        """The partial order as a graph of step names."""
        order = nx.DiGraph()
        order.add_nodes_from(step.name for step in self.steps)
        order.add_edges_from((edge.before, edge.after) for edge in self.precedence)
        return order

    @cached_property
    def by_name(self) -> dict[str, Step]:
        """Name -> step."""
        return {step.name: step for step in self.steps}


def write_graph(path: Path, graph: ProcedureGraph) -> None:
    """Write a graph as JSON."""
    write_json(path, graph.model_dump(mode="json"))


def read_graph(path: Path) -> ProcedureGraph:
    """Read a graph.

    Raises:
        InputError: another file, or one that contradicts itself.
    """
    return read_record(path, ProcedureGraph)
