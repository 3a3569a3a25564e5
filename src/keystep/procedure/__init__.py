"""A procedure as a graph: learned from runs, read and written as a file, and used to judge the order of a run."""

from keystep.procedure.graph import Precedence, ProcedureGraph, Step, read_graph, write_graph
from keystep.procedure.learning import GraphConfig, learn_graph
from keystep.procedure.order import NextStep, Order, StepScore

__all__ = [
    "GraphConfig",
    "NextStep",
    "Order",
    "Precedence",
    "ProcedureGraph",
    "Step",
    "StepScore",
    "learn_graph",
    "read_graph",
    "write_graph",
]
