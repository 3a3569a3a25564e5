"""A procedure's graph as text for other programs: DOT (Graphviz) and Mermaid.

Optional steps have a dashed outline, repeatable ones a double one. Edges that do not hold in all runs show their share.
"""

from __future__ import annotations

from keystep.errors import plain
from keystep.procedure.graph import Precedence, ProcedureGraph, Step


def to_dot(graph: ProcedureGraph) -> str:
    """The graph in Graphviz's language: ``dot -Tsvg graph.dot``."""
    ids = {step.name: f"s{number}" for number, step in enumerate(graph.steps)}
    lines = ["digraph procedure {", "  rankdir=LR;", '  node [shape=box, style=rounded, fontname="sans-serif"];']
    for step in graph.steps:
        style = "rounded,dashed" if step.optional else "rounded"
        lines.append(
            f'  {ids[step.name]} [label="{_dot(step.name)}\\n{facts(step)}", style="{style}", '
            f"peripheries={2 if step.repeatable else 1}];"
        )
    for edge in graph.precedence:
        label = f' [label="{_percent(edge)}"]' if edge.confidence < 1 else ""
        lines.append(f"  {ids[edge.before]} -> {ids[edge.after]}{label};")
    return "\n".join([*lines, "}", ""])


def to_mermaid(graph: ProcedureGraph) -> str:
    """The graph as a Mermaid flow chart, which many Markdown viewers draw."""
    ids = {step.name: f"s{number}" for number, step in enumerate(graph.steps)}
    lines = ["flowchart LR"]
    for step in graph.steps:
        left, right = ("[[", "]]") if step.repeatable else ("(", ")")
        lines.append(f'  {ids[step.name]}{left}"{_mermaid(step.name)}<br/>{facts(step)}"{right}')
    for edge in graph.precedence:
        label = f"|{_percent(edge)}|" if edge.confidence < 1 else ""
        lines.append(f"  {ids[edge.before]} -->{label} {ids[edge.after]}")
    optional = [ids[step.name] for step in graph.steps if step.optional]
    if optional:
        lines += ["  classDef optional stroke-dasharray: 5 4", f"  class {','.join(optional)} optional"]
    return "\n".join([*lines, ""])


def facts(step: Step) -> str:
    """Share of the runs and median duration of a step, in a few letters."""
    median = step.seconds[1]
    return f"{100 * step.share:.0f} %, {median:.{0 if median >= 10 else 1}f} s"


def _percent(edge: Precedence) -> str:
    return f"{100 * edge.confidence:.0f} %"


def _dot(name: str) -> str:
    return plain(name).replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")


def _mermaid(name: str) -> str:
    """Signs with a meaning as numbered entities in Mermaid's spelling, ``#34;``."""
    signs = {ord(sign): f"#{ord(sign)};" for sign in '"#&;<>`'}
    return plain(name).replace("\n", " ").translate(signs)
