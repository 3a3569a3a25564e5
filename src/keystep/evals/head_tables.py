"""Additional tables of a result: scores by segment, trimmed clips, and the paper's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keystep.evals.table import METRICS, Result, delay, escaped, metric_columns
from keystep.evals.trimmed import CONTEXTS


@dataclass(frozen=True)
class PlainTable:
    """A table of text cells. note: explanation below the table."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def more_tables(result: Result) -> list[PlainTable]:
    """Tables of segment scores and trimmed clips, if they were computed."""
    heads = [row for row in result["head_rows"] if any(run["clips"] for run in row["runs"])]
    found = [_segments(result)] if result["segment_scores"] else []
    found += [_clip_probes(result["clip_rows"])] if result["clip_rows"] else []
    return found + ([_clip_heads(heads)] if heads else []) + task_tables(result)


def task_tables(result: Result) -> list[PlainTable]:
    """Tables of other tasks than segmentation."""
    return [found for table in result.get("task_tables", []) for found in _task(table)]


def markdown_plain(table: PlainTable) -> str:
    """A table as GitHub Markdown."""
    lines = [
        f"**{escaped(table.title)}**",
        "",
        *(f"| {' | '.join(map(escaped, row))} |" for row in (table.columns, *table.rows)),
    ]
    lines.insert(3, "|---|" + "---:|" * (len(table.columns) - 1))
    return "\n".join([*lines, *(["", escaped(table.note)] if table.note else [])]) + "\n"


def _task(table: Result) -> list[PlainTable]:
    """A table for each group of measures, such as ``5 s: top-1`` and ``5 s: class mean``, and one of the gains."""
    measures = list(table["rows"][0]["runs"][0]["scores"]) if table["rows"] else []
    groups = list(dict.fromkeys(measure.rpartition(": ")[0] for measure in measures)) or [""]
    found = []
    for group in groups:
        here = [measure for measure in measures if measure.rpartition(": ")[0] == group]
        rows = tuple(
            (
                row["name"],
                row["mode"],
                *(_few_digits([run["scores"][measure] for run in row["runs"]]) for measure in here),
                delay(row),
                str(len(row["runs"])),
            )
            for row in table["rows"]
        )
        columns = ("representation", "mode", *(measure.rpartition(": ")[2] for measure in here), "delay", "seeds")
        title = f"{table['title']}, {group}" if group else table["title"]
        found.append(PlainTable(title, columns, rows, table["note"] if group == groups[-1] else ""))
    return [*found, _gains(table)] if table.get("gains") else found


def _gains(table: Result) -> PlainTable:
    rows = tuple(
        (
            line["first"],
            line["mode"],
            line["claim"],
            line["second"],
            f"{line['mean']:+.2f}",
            f"{line['low']:+.2f} to {line['high']:+.2f}",
            line["verdict"],
        )
        for line in table["gains"]
    )
    note = (
        "Positive is better, for errors too. The rival is the strongest control in that measure on the test videos, "
        "which biases the comparison against the model. Intervals: 95 %, paired bootstrap over test videos (or groups) "
        "and seeds."
    )
    columns = ("model", "mode", "measure", "strongest control", "gain", "interval", "verdict")
    return PlainTable(f"{table['title']}: gain over the strongest control", columns, rows, note)


def quoted_table(published: Result) -> PlainTable:
    """Rows quoted from the paper. They were not reproduced here."""
    rows = (
        (row["representation"], row["head"], *(f"{score:g}" for score in row["scores"]), row["note"])
        for row in published["rows"]
    )
    note = (
        f"arXiv 2606.23256; {published['protocol']}. Quoted, not run here. Comparable only if the features, the rate, "
        "the split and the use of true boundaries are the same."
    )
    columns = ("representation", "head", *published["metrics"], "note")
    return PlainTable(published["title"], columns, tuple(rows), note)


def _segments(result: Result) -> PlainTable:
    metrics = {**{metric: METRICS[metric] for metric in metric_columns(result)}, "segments": "correct segments"}
    rows = (
        (row["name"], row["head"], row["mode"], row["answer"], *(f"{row['mean'][metric]:.1f}" for metric in metrics))
        for row in result["segment_scores"]
    )
    note = "Each segment gets the majority prediction of its frames, or that of its last frame; scored frame by frame."
    columns = ("representation", "head", "mode", "answer", *metrics.values())
    return PlainTable("One answer for each true segment (ORACLE: boundaries known)", columns, tuple(rows), note)


def _clip_probes(found: Sequence[Result]) -> PlainTable:
    rows = (
        (row["name"], *(_mean_spread(row["top1"][context]) for context in CONTEXTS), str(row["clips"])) for row in found
    )
    note = (
        "Each probe is trained and tested with the same context, so the two columns are comparable. The context is the "
        "part of the take before the clip."
    )
    columns = ("representation", *CONTEXTS.values(), "clips")
    return PlainTable("Trimmed clips, top-1 of linear probes", columns, tuple(rows), note)


def _clip_heads(found: Sequence[Result]) -> PlainTable:
    rows = []
    for row in found:
        shares = [_mean_spread([run["clips"][context] for run in row["runs"]]) for context in CONTEXTS]
        rows.append((row["name"], row["head"], *shares, delay(row)))
    note = (
        "Heads are trained on whole takes. Removing the context shows how much they rely on it. It is not a fair "
        "control, because they were not trained without it."
    )
    columns = ("representation", "head", CONTEXTS["take"], "context cut off", "delay")
    return PlainTable("Trimmed clips, top-1 of temporal heads", columns, tuple(rows), note)


def _mean_spread(values: Sequence[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread}"


def _few_digits(values: Sequence[float]) -> str:
    """Mean and deviation with one decimal place, or two for means below ten."""
    digits = 1 if abs(np.mean(values)) >= 10 else 2
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"
