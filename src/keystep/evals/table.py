"""A result as a table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Result = Mapping[str, Any]
"""A result.json, as `keystep.evals.results.result_record` makes it."""

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
    "control": "control: learns nothing",
    "untrained": "control: untrained encoder",
    "reconstruction": "control: masked reconstruction",
    "learned": "learned",
    "oracle": "ORACLE: uses the true boundaries",
}
"""Family -> what to call it, in the order of the table."""
MODES = {"offline": "Offline: sees the whole video", "causal": "Causal (live): sees the past only, up to the delay"}


def is_oracle(row: Result) -> bool:
    """Whether a row, learned ones included, was given the true boundaries."""
    return bool(row["oracle"])


def label(row: Result) -> str:
    """A row's name, with ORACLE in it wherever that is so."""
    name = str(row["name"])
    return name if "(ORACLE)" in name or not is_oracle(row) else f"{name} (ORACLE)"


def sections(result: Result) -> dict[str, list[Any]]:
    """Mode -> its rows by family. Raw features see one frame at a time, so they stand in every section."""
    rows = sorted(result["rows"], key=lambda row: list(FAMILIES).index(row["family"]))
    modes = [mode for mode in MODES if any(row["mode"] == mode and row["family"] != "raw" for row in rows)]
    modes = modes or (["causal"] if rows else [])
    return {mode: [row for row in rows if row["mode"] == mode or row["family"] == "raw"] for mode in modes}


def metrics_of(result: Result) -> list[str]:
    """The columns; foreground accuracy only where some class is background."""
    return [name for name in METRICS if name != "accuracy_foreground" or result["protocol"]["background"]]


def best_control(result: Result, mode: str, kind: str = "") -> Any:
    """Of the simple controls whose names start with ``kind``, the best on validation videos; None if there is none."""
    rows = [row for row in result["rows"] if row["family"] == "control" and row["mode"] == mode]
    return max(
        (row for row in rows if row["name"].startswith(kind)),
        key=lambda row: float(np.mean([run["valid_accuracy"] for run in row["runs"]])),
        default=None,
    )


def strongest_control(result: Result, mode: str) -> Any:
    """The row with the most right frames on the test videos of raw features and simple controls, as the gate takes it.

    None if there is none. Choosing it by the test videos errs against whatever is compared with it.
    """
    rows = [row for row in result["rows"] if row["family"] in ("raw", "control")]
    here = [row for row in rows if row["mode"] == mode or row["family"] == "raw"]
    return max(here, key=lambda row: float(np.mean([sum(run["correct"]) for run in row["runs"]])), default=None)


def summed(counts: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """(..., videos) counts added up over the videos of each group, (..., groups)."""
    names = np.array(groups)
    return np.stack([counts[..., names == one].sum(-1) for one in dict.fromkeys(groups)], axis=-1)


def score(row: Result, metric: str) -> str:
    """``64.1 ± 0.5``: mean and standard deviation over seeds."""
    mean, spread = row["mean"].get(metric), row["spread"].get(metric)
    if mean is None:
        return "–"
    return f"{mean:.1f}" + ("" if spread is None else f" ± {spread:.1f}")


def delay(row: Result) -> str:
    """How long after a frame its representation is final."""
    return "whole video" if row["delay"] is None else f"{row['delay']:.3g} s"


@dataclass(frozen=True)
class Line:
    """One row as a table shows it. cells: column -> its text. best: columns in which no fair row is better."""

    row: Result
    name: str
    cells: Mapping[str, str]
    best: frozenset[str]


@dataclass(frozen=True)
class Section:
    """A table of one mode. groups: heading -> lines."""

    title: str
    columns: tuple[str, ...]
    groups: Mapping[str, Sequence[Line]]


def tables(result: Result) -> list[Section]:
    """Linear probes offline and causal, rows by family; then temporal heads, where any were trained, by head."""
    metrics, found = metrics_of(result), []
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
    """Rows that are compared with each other: the best value of each column that needs no oracle is marked."""
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
    """The tables as GitHub markdown; the best value of a column that needs no oracle is bold."""
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
    """A text for a markdown table."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(text.split()))


def find_row(result: Result, name: str, mode: str) -> Any:
    """The row of that name and mode, or of raw features, which have one row for every mode; None if there is none."""
    rows = [row for row in result["rows"] if row["name"] == name and (row["mode"] == mode or row["family"] == "raw")]
    return rows[0] if rows else None
