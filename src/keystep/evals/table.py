"""The tables of a result."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Result = Mapping[str, Any]
"""The content of a ``result.json``, as written by `keystep.evals.results.result_record`."""

METRICS = {
    "accuracy": "accuracy",
    "accuracy_foreground": "accuracy, foreground",
    "edit": "edit",
    "f1@10": "F1@10",
    "f1@25": "F1@25",
    "f1@50": "F1@50",
}
FAMILIES = {
    "raw": "raw features",
    "control": "control: no learning",
    "untrained": "control: untrained encoder",
    "reconstruction": "control: masked reconstruction",
    "learned": "learned",
    "oracle": "ORACLE: uses the true boundaries",
}
"""Family -> heading, in table order."""
MODES = {"offline": "Offline: sees the whole video", "causal": "Causal (live): sees the past only, up to the delay"}


def is_oracle(row: Result) -> bool:
    """Whether a row used the true boundaries."""
    return bool(row["oracle"])


def label(row: Result) -> str:
    """A row's name, marked with ORACLE if the row used the true boundaries."""
    name = str(row["name"])
    return name if "(ORACLE)" in name or not is_oracle(row) else f"{name} (ORACLE)"


def sections(result: Result) -> dict[str, list[Any]]:
    """Mode -> its rows, sorted by family. Raw features use one frame at a time, so they are in every section."""
    rows = sorted(result["rows"], key=lambda row: list(FAMILIES).index(row["family"]))
    modes = [mode for mode in MODES if any(row["mode"] == mode and row["family"] != "raw" for row in rows)]
    modes = modes or (["causal"] if rows else [])
    return {mode: [row for row in rows if row["mode"] == mode or row["family"] == "raw"] for mode in modes}


def metric_columns(result: Result) -> list[str]:
    """The metric columns; foreground accuracy only if the protocol has background classes."""
    return [name for name in METRICS if name != "accuracy_foreground" or result["protocol"]["background"]]


def best_control(result: Result, mode: str, kind: str = "") -> Any:
    """The control with the best validation accuracy whose name starts with ``kind``; None if there is none."""
    rows = [row for row in result["rows"] if row["family"] == "control" and row["mode"] == mode]
    return max(
        (row for row in rows if row["name"].startswith(kind)),
        key=lambda row: float(np.mean([run["valid_accuracy"] for run in row["runs"]])),
        default=None,
    )


def strongest_control(result: Result, mode: str) -> Any:
    """The raw-feature or control row with the most correct test frames, which is the gate's rival; None if there is
    none.

    Selecting on the test videos biases comparisons against the other row.
    """
    rows = [row for row in result["rows"] if row["family"] in ("raw", "control")]
    here = [row for row in rows if row["mode"] == mode or row["family"] == "raw"]
    return max(here, key=lambda row: float(np.mean([sum(run["correct"]) for run in row["runs"]])), default=None)


def sum_by_group(counts: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """Sum counts over the videos of each group.

    Args:
        counts: (..., videos).
        groups: the group of each video.

    Returns:
        (..., groups), in order of first occurrence.
    """
    names = np.array(groups)
    return np.stack([counts[..., names == one].sum(-1) for one in dict.fromkeys(groups)], axis=-1)


def score(row: Result, metric: str) -> str:
    """A score such as ``64.1 ± 0.5``: mean and standard deviation over seeds."""
    mean, spread = row["mean"].get(metric), row["spread"].get(metric)
    if mean is None:
        return "–"
    return f"{mean:.1f}" + ("" if spread is None else f" ± {spread:.1f}")


def delay(row: Result) -> str:
    """Time from a frame until its representation is final."""
    return "whole video" if row["delay"] is None else f"{row['delay']:.3g} s"


@dataclass(frozen=True)
class Line:
    """A table row.

    cells: column -> text. best: columns in which no row without ORACLE is better.
    """

    row: Result
    name: str
    cells: Mapping[str, str]
    best: frozenset[str]


@dataclass(frozen=True)
class Section:
    """A table for one mode. groups: heading -> lines."""

    title: str
    columns: tuple[str, ...]
    groups: Mapping[str, Sequence[Line]]


def tables(result: Result) -> list[Section]:
    """Tables of linear probes by mode, with rows grouped by family, then tables of temporal heads, grouped by head."""
    metrics, found = metric_columns(result), []
    for mode, rows in sections(result).items():
        families = [(name, [row for row in rows if row["family"] == family]) for family, name in FAMILIES.items()]
        lines = {row["name"]: line for row, line in zip(rows, _lines(rows, metrics), strict=True)}
        groups = {name: [lines[row["name"]] for row in members] for name, members in families if members}
        found.append(Section(MODES[mode], _columns(metrics), groups))
    for mode, title in MODES.items():
        rows = [row for row in result["head_rows"] if row["mode"] == mode]
        heads = dict.fromkeys(row["head"] for row in rows)
        groups = {f"head {head}": _lines([row for row in rows if row["head"] == head], metrics) for head in heads}
        if rows:
            found.append(Section(f"Temporal heads. {title}", _columns(metrics), groups))
    return found


def _columns(metrics: Sequence[str]) -> tuple[str, ...]:
    return (*(METRICS[metric] for metric in metrics), "delay", "seeds")


def _lines(rows: Sequence[Any], metrics: Sequence[str]) -> list[Line]:
    """Table rows, with the best value of each column marked. ORACLE rows do not compete."""
    fair = [row for row in rows if not is_oracle(row)]
    values = {
        metric: [row["mean"][metric] for row in fair if row["mean"].get(metric) is not None] for metric in metrics
    }
    top = {metric: round(max(found), 1) for metric, found in values.items() if found}
    lines = []
    for row in rows:
        best = {m for m in top if not is_oracle(row) and row["mean"].get(m) is not None}
        best = {METRICS[m] for m in best if round(row["mean"][m], 1) == top[m]}
        cells = {METRICS[metric]: score(row, metric) for metric in metrics}
        cells |= {"delay": delay(row), "seeds": str(len(row["runs"]))}
        lines.append(Line(row, label(row), cells, frozenset(best)))
    return lines


def markdown_table(result: Result) -> str:
    """The tables as GitHub Markdown, with the best value of each column in bold. ORACLE rows do not compete."""
    parts = []
    for section in tables(result):
        columns = [column for column in section.columns if column != "seeds"]
        lines = [f"**{section.title}**", "", f"| representation | {' | '.join(columns)} |"]
        lines.append("|---|" + "---:|" * len(columns))
        for heading, members in section.groups.items():
            beginning = f"{heading.removeprefix('head ')}: " if heading.startswith("head ") else ""
            for line in members:
                cells = (f"**{line.cells[c]}**" if c in line.best else line.cells[c] for c in columns)
                lines.append(f"| {escaped(beginning + line.name)} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n" if parts else "No representation was judged.\n"


def escaped(text: str) -> str:
    """Escape text for a Markdown table."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(text.split()))


def find_row(result: Result, name: str, mode: str) -> Any:
    """The row with a name and mode, or None. Raw features have one row for both modes."""
    rows = [row for row in result["rows"] if row["name"] == name and (row["mode"] == mode or row["family"] == "raw")]
    return rows[0] if rows else None
