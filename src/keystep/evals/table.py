"""A result in words and in a table: what was found, and whether it may be claimed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from keystep.evals.protocol import PAIR, SEEDS_FOR_A_CLAIM

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
    "control": "control: smoothing, the clock",
    "untrained": "control: untrained encoder",
    "reconstruction": "control: masked reconstruction",
    "learned": "learned",
    "oracle": "ORACLE: uses the true boundaries",
}
"""Family -> what to call it, in the order of the table."""
MODES = {"offline": "Offline: sees the whole video", "causal": "Causal: sees the past only, up to the delay"}


def is_oracle(row: Result) -> bool:
    """Whether a row, learned ones included, was given the true boundaries."""
    return bool(row["oracle"]) or "(ORACLE)" in row["name"]


def label(row: Result) -> str:
    """A row's name, with ORACLE in it wherever that is so."""
    return str(row["name"]) if "(ORACLE)" in row["name"] or not is_oracle(row) else f"{row['name']} (ORACLE)"


def sections(result: Result) -> dict[str, list[Any]]:
    """Mode -> its rows by family. Raw features see one frame at a time, so they stand in every section."""
    rows = sorted(result["rows"], key=lambda row: list(FAMILIES).index(row["family"]))
    modes = [mode for mode in MODES if any(row["mode"] == mode and row["family"] != "raw" for row in rows)]
    modes = modes or (["causal"] if rows else [])
    return {mode: [row for row in rows if row["mode"] == mode or row["family"] == "raw"] for mode in modes}


def metrics(result: Result) -> list[str]:
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


def score(row: Result, metric: str) -> str:
    """``64.1 ± 0.5``: mean and standard deviation over seeds."""
    mean, spread = row["mean"].get(metric), row["spread"].get(metric)
    if mean is None:
        return "–"
    return f"{mean:.1f}" + ("" if spread is None else f" ± {spread:.1f}")


def best_scores(rows: list[Any], metric: str) -> set[str]:
    """Names of the rows that share the best value, as printed, that needs no oracle."""
    values = {
        row["name"]: round(row["mean"][metric], 1)
        for row in rows
        if not is_oracle(row) and row["mean"].get(metric) is not None
    }
    return {name for name, value in values.items() if value == max(values.values())}


def delay(row: Result) -> str:
    """How long after a frame its representation is final."""
    return "whole video" if row["delay"] is None else f"{row['delay']:.3g} s"


def markdown_table(result: Result) -> str:
    """The table as GitHub markdown, one for each mode; the best value that needs no oracle is bold."""
    columns, parts = metrics(result), []
    for mode, rows in sections(result).items():
        lines = [f"**{MODES[mode]}**", ""]
        lines.append(f"| representation | {' | '.join(METRICS[metric] for metric in columns)} | delay |")
        lines.append("|---|" + "---:|" * (len(columns) + 1))
        best = {metric: best_scores(rows, metric) for metric in columns}
        for row in rows:
            scores = ((score(row, metric), row["name"] in best[metric]) for metric in columns)
            cells = (f"**{text}**" if bold else text for text, bold in scores)
            lines.append(f"| {_escaped(label(row))} | {' | '.join(cells)} | {delay(row)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n" if parts else "No representation was judged.\n"


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(text.split()))


def verdict(line: Result) -> str:
    """Whether a line of the gate holds, and if not, why."""
    if line["holds"]:
        return "holds"
    reasons = []
    if line["high"] < 0:
        reasons.append("it is worse")
    elif line["low"] <= 0:
        reasons.append("the interval reaches 0")
    if line.get("later"):
        reasons.append("it answers later than its rival")
    if line.get("quick"):
        reasons.append("a quick look")
    if line["seeds"][0] < SEEDS_FOR_A_CLAIM:
        reasons.append(f"{_count(line['seeds'][0], 'seed')}, {SEEDS_FOR_A_CLAIM} needed")
    return "does not hold" + (f": {'; '.join(reasons)}" if reasons else "")


def main_line(result: Result) -> str:
    """What was found, and no more: one sentence for each mode, and how much of the gate did not hold.

    They are about the first learned row of the gate that is no ORACLE (in the order in which models were given), not
    about the best one: choosing it by its test score would be one more way to be lucky. Of its rivals they name the
    hardest.
    """
    alone = [line for line in result["gate"] if line["claim"].startswith("alone")]
    if not alone:
        return _without_gate(result)
    name = next((line for line in alone if "(ORACLE)" not in line["first"]), alone[0])["first"]
    own = [line for line in alone if line["first"] == name]
    hardest = [
        min((line for line in own if line["mode"] == mode), key=lambda line: float(line["low"]))
        for mode in dict.fromkeys(line["mode"] for line in own)
    ]
    failures = _failures([bool(line["holds"]) for line in result["gate"] if not line["claim"].startswith(PAIR)])
    return " ".join([*(_sentence(result, line) for line in hardest), *failures])


def _sentence(result: Result, line: Result) -> str:
    """The verdict on one comparison, and its numbers."""
    found = _against(result, line)
    seeds = line["seeds"][0]
    few = f"{_count(seeds, 'seed')}, {SEEDS_FOR_A_CLAIM} needed"
    if "(ORACLE)" in line["first"]:
        return f"ORACLE, so no claim (it uses the true boundaries): {found}."
    if line["holds"]:
        return f"{found}."
    if line["low"] > 0 and line.get("quick"):
        return f"No claim, a quick look: {found}."
    if line["low"] > 0 and line.get("later"):
        return f"No claim, it answers later than its rival: {found}."
    if line["low"] > 0:
        return f"No claim, too few seeds ({few}): {found}."
    verdict = f"Worse than the {_rival(line)}" if line["high"] < 0 else "No gain shown"
    aside = f", and too few seeds to tell ({few})" if seeds < SEEDS_FOR_A_CLAIM else ""
    return f"{verdict}{aside}: {found}."


def _rival(line: Result) -> str:
    """``best smoothing control``, ``best control`` or ``raw features``, from the claim."""
    if "raw features" in line["claim"]:
        return "raw features"
    return "best smoothing control" if "smoothing" in line["claim"] else "best control"


def _failures(holds: list[bool]) -> list[str]:
    """What else did not hold; nothing where there is only one comparison, of which its sentence itself speaks."""
    failed = holds.count(False)
    if not failed or len(holds) == 1:
        return []
    if failed == len(holds):
        return [f"None of the {failed} comparisons of the gate holds."]
    return [f"{failed} of {len(holds)} comparisons of the gate {'does' if failed == 1 else 'do'} not hold."]


def _against(result: Result, line: Result) -> str:
    """``pjepa alone, offline: 64.1 % of frames right against 58.9 % for the best smoothing control (...)``."""
    first, second = (_accuracy(result, line[side], line["mode"]) for side in ("first", "second"))
    pooled = "" if abs(first - second - line["mean"]) < 0.1 else " pooled over videos"
    return (
        f"{line['first']} alone, {line['mode']}: {first:.1f} % of frames right against {second:.1f} % for the "
        f"{_rival(line)} ({line['mean']:+.1f}{pooled}, 95 % interval {line['low']:.1f} to {line['high']:.1f}, "
        f"{_count(line['seeds'][0], 'seed')})"
    )


def _without_gate(result: Result) -> str:
    """Nothing was compared: say what was measured, and that it shows nothing."""
    learned = [row for row in result["rows"] if row["family"] == "learned" and not row["beside"]]
    if learned:
        row = next((row for row in learned if not is_oracle(row)), learned[0])
        return (
            f"No claim, nothing was compared: {label(row)} alone, {row['mode']}: {row['mean']['accuracy']:.1f} % of "
            f"frames right ({_count(len(row['runs']), 'seed')})."
        )
    parts = [f"{row['name']} {row['mean']['accuracy']:.1f} %" for row in result["rows"] if row["family"] == "raw"]
    for mode in sections(result):
        row = best_control(result, mode)
        parts += [f"best control, {row['name']} ({mode}), {row['mean']['accuracy']:.1f} %"] if row else []
    return "No learned representation was judged" + (f"; frames right: {', '.join(parts)}." if parts else ".")


def _accuracy(result: Result, name: str, mode: str) -> float:
    row = find_row(result, name, mode)
    assert row is not None
    return float(row["mean"]["accuracy"])


def find_row(result: Result, name: str, mode: str) -> Any:
    """The row of that name and mode, or of raw features, which have one row for every mode; None if there is none."""
    rows = [row for row in result["rows"] if row["name"] == name and (row["mode"] == mode or row["family"] == "raw")]
    return rows[0] if rows else None


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")
