"""The scores section of a model card, from a result of ``keystep eval``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keystep.errors import InputError, plain
from keystep.evals.headline import MODE_WORDS, interval, leaked, main_rows, verdict
from keystep.evals.results import load_result
from keystep.evals.table import Result, sections
from keystep.pjepa import PJEPA

BASELINES = ("raw features", "best control", "untrained")


def card_scores(results: Path | str, model: PJEPA) -> str:
    """What an evaluation says of a model, in Markdown, for `PJEPA.save_pretrained`.

    Args:
        results: folder written by ``keystep eval`` or `keystep.evaluate`.
        model: one of the models judged there, known by the hash of its weights.

    Returns:
        Frame accuracies with 95 % intervals beside the baselines, over all seeds of the recipe, and the comparisons of
        the gate with their verdicts.

    Raises:
        InputError: no result, or one of other weights.
    """
    result, _, _ = load_result(Path(results))
    judged = {record["weights"]: str(record["name"]) for record in result.get("models", [])}
    name = judged.get(model.fingerprint)
    if name is None:
        others = ", ".join(dict.fromkeys(judged.values())) or "no model"
        raise InputError(f"{results}: does not judge these weights, but those of {others}")
    data, seeds = result["data"], sum(record["name"] == name for record in result["models"])
    intro = (
        f"{data['name']}, split {data['split']}, {len(data['test_videos'])} test videos: frame accuracy in %, mean "
        f"over seeds ({seeds} of this model), 95 % intervals over videos and seeds. Data: SHA-256 "
        f"`{data['fingerprint']}`."
    )
    leak = leaked(result, name)
    parts = [intro, *([f"**Mind: {leak}.**"] if leak else []), _table(result, name), *_comparisons(result, name)]
    return plain("\n\n".join(parts))


def _rows(result: Result, mode: str, name: str) -> Iterator[tuple[str, Result]]:
    """(name, row) of the baselines, then those of the model, alone and beside a control."""
    found = main_rows(result, mode)
    for role in BASELINES:
        if role in found:
            row = found[role]
            yield role if row["name"] == role else f"{role}: {row['name']}", row
    for row in result["rows"]:
        if row["mode"] == mode and _is_of(row["name"].partition(" ++ ")[0], name):
            yield f"**{row['name']}**", row


def _table(result: Result, name: str) -> str:
    lines = ["| mode | representation | frame accuracy |", "|---|---|---|"]
    for mode in sections(result):
        lines += [
            f"| {MODE_WORDS[mode]} | {shown} | {_cell(result, row)} |" for shown, row in _rows(result, mode, name)
        ]
    return "\n".join(lines)


def _cell(result: Result, row: Result) -> str:
    found = interval(result, row)
    mean = f"{float(row['mean']['accuracy']):.1f}"
    return mean if found is None else f"{mean} ({found.low:.1f} to {found.high:.1f})"


def _comparisons(result: Result, name: str) -> list[str]:
    lines: list[Any] = [line for line in result["gate"] if _is_of(line["first"].partition(" ++ ")[0], name)]
    if not lines:
        return []
    rows = [
        f"| {MODE_WORDS[line['mode']]} | {line['claim']} ({line['second']}) | {line['mean']:+.1f} "
        f"({line['low']:+.1f} to {line['high']:+.1f}) | {verdict(line)} |"
        for line in lines
    ]
    return ["\n".join(["| mode | claim | points | |", "|---|---|---|---|", *rows])]


def _is_of(row: str, name: str) -> bool:
    return row in (name, f"{name} (ORACLE)")
