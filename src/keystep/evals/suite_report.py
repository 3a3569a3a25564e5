"""A suite's tables in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keystep.evals.protocol import SEEDS_FOR_A_CLAIM
from keystep.evals.published import SEGMENTATION
from keystep.evals.table import MODES
from keystep.evals.trimmed import CONTEXTS

Record = Mapping[str, Any]
"""A suite.json, as `keystep.evals.suite_results` makes it."""


def report(record: Record, pictures: Sequence[str]) -> str:
    """The tables in Markdown: ours by mode, what was gained, and what the paper prints, marked as quoted."""
    data, settings = record["data"], record["settings"]
    background = ", ".join(settings["background"]) or "none"
    parts = [
        f"# {data['name']}, split {data['split']}: temporal heads",
        f"`{record['command']}`",
        f"Protocol `{settings['protocol']}`, background: {background}; {data['rate_hz']:g} slots a second; scored at "
        f"the labels' own rate on {len(data['test_videos'])} test videos. Heads are trained on "
        f"{data['videos']['train']} videos and chosen on {data['videos']['valid']} (validation: {data['validation']}). "
        "Mean ± deviation over seeds. Frames/s: the head alone, on the machine that made this. Epochs were chosen by "
        f"validation {settings['training']['selection']} under protocol `pooled`.",
        *_remarks(data),
    ]
    for mode, title in MODES.items():
        rows = [row for row in record["rows"] if row["mode"] == mode]
        if rows:
            parts += [f"## {title}", _table(rows, settings)]
    if record["gains"]:
        drawn = f"{data['drawn']['count']} test {data['drawn']['what']}"
        said = f"Paired bootstrap over {drawn} and seeds, protocol `pooled`, background frames included in accuracy."
        parts += ["## What the learned representation adds, under the same head", said, _gain_table(record["gains"])]
    if any(run["by_segments"] for row in record["rows"] for run in row["runs"]):
        title = "## One answer for each true segment (ORACLE: boundaries known)"
        parts += [title, _segment_table(record["rows"], settings)]
    if any(run["clips"] for row in record["rows"] for run in row["runs"]):
        parts += ["## Trimmed clips, top-1", *_clip_tables(record)]
    for table in record["quoted"]:
        parts += _quoted(table)
    parts += [f"![{name}]({name})" for name in pictures]
    return "\n\n".join(parts) + "\n"


def _remarks(data: Record) -> list[str]:
    """What may change how the numbers are read: marks, label shares, notes, what was left out."""
    lines = []
    if data["oracle"]:
        lines.append(f"ORACLE: {data['oracle']}")
    if data["labels"]:
        lines.append(f"LABELS: {data['labels']}")
    if data["label_share"] < 1:
        lines.append(f"labels of {data['label_share']:.0%} of the videos, drawn with seed {data['label_seed']}")
    lines += data["notes"] + [f"left out: {name}: {why}" for name, why in data["left_out"].items()]
    return ["\n".join(f"- {line}" for line in lines)] if lines else []


def columns_of(settings: Record) -> list[str]:
    """The metrics of the table; foreground accuracy only where some class is background."""
    first, *others = SEGMENTATION
    return [first, *(["accuracy_foreground"] if settings["background"] else []), *others]


def cell(row: Record, metric: str) -> str:
    """``64.1 ± 0.5``"""
    spread = row["spread"][metric]
    return f"{row['mean'][metric]:.1f}" + ("" if spread is None else f" ± {spread:.1f}")


def delay_text(row: Record) -> str:
    """Seconds, or that the whole video has to be over."""
    return "whole video" if row["delay"] is None else f"{row['delay']:.2f} s"


def _table(rows: Sequence[Record], settings: Record) -> str:
    metrics = columns_of(settings)
    moment = any(run["at_the_moment"] for row in rows for run in row["runs"])
    named = ["accuracy at the moment"] if moment else []
    lines = _heads("head", "representation", *metrics, *named, "delay", "parameters", "frames/s", "seeds")
    for head in dict.fromkeys(row["head"] for row in rows):
        for row in (row for row in rows if row["head"] == head):
            detail = f" ({row['detail']})" if row["family"] == "control" else ""
            cells = [head, row["representation"] + detail, *(cell(row, metric) for metric in metrics)]
            cells += [_moment(row)] if moment else []
            cells += [
                delay_text(row),
                f"{row['parameters']:,}",
                f"{row['frames_per_second']:,.0f}",
                str(len(row["runs"])),
            ]
            lines.append(_line(cells))
    return "\n".join(lines)


def _moment(row: Record) -> str:
    """Accuracy of what was said at each slot's own time; a late answer is then still the old one."""
    found = [run["at_the_moment"]["accuracy"] for run in row["runs"] if run["at_the_moment"]]
    return f"{np.mean(found):.1f}" if found else "–"


def _gain_table(found: Sequence[Record]) -> str:
    lines = _heads("mode", "head", "against", "metric", "points", "95 % interval", "verdict")
    for gain in found:
        difference = gain["difference"]
        few = f"too few seeds ({min(difference['seeds'])})" if min(difference["seeds"]) < SEEDS_FOR_A_CLAIM else ""
        later = "answers later" if gain["later"] else ""
        harder = f"does not hold: {gain['stronger']} is stronger" if gain["stronger"] else ""
        verdict = "holds" if gain["holds"] else later or few or harder or "does not hold"
        interval = f"{difference['low']:+.1f} to {difference['high']:+.1f}"
        names = [gain["mode"], gain["head"], f"{gain['first']}, against {gain['second']}", gain["metric"]]
        lines.append(_line([*names, f"{difference['mean']:+.1f}", interval, verdict]))
    return "\n".join(lines)


def _segment_table(rows: Sequence[Record], settings: Record) -> str:
    """What most of a segment's frames say, or its last one, filled into the segment; scored as frames are."""
    metrics = [*columns_of(settings), "segments"]
    names = [*columns_of(settings), "right segments"]
    lines = _heads("mode", "head", "representation", "answer", *names)
    for row in rows:
        for choice in ("majority", "last"):
            found = [run["by_segments"][choice] for run in row["runs"]]
            shares = [f"{np.mean([scores[metric] for scores in found]):.1f}" for metric in metrics]
            lines.append(_line([row["mode"], row["head"], row["representation"], choice, *shares]))
    return "\n".join(lines)


def _clip_tables(record: Record) -> list[str]:
    """Probes that were fitted as they are used, and the heads of whole takes, with their context cut off as well."""
    probes = _heads("linear probe on", *(f"top-1, {text}" for text in CONTEXTS.values()), "clips", "seeds")
    for row in record["clip_rows"]:
        shares = [_mean_spread(row["top1"][context]) for context in CONTEXTS]
        probes.append(_line([row["representation"], *shares, str(row["clips"]), str(len(row["top1"]["take"]))]))
    heads = _heads(
        "head", "representation", "top-1, causal context of the same take", "context cut off", "delay", "seeds"
    )
    for row in record["rows"]:
        found = [run["clips"] for run in row["runs"] if run["clips"]]
        if found:
            shares = [_mean_spread([clips[context] for clips in found]) for context in CONTEXTS]
            heads.append(_line([row["head"], row["representation"], *shares, delay_text(row), str(len(found))]))
    return [
        "Each probe is fitted in the context that it is used in, so its two columns compare fairly. The context is "
        "what came before in the take, from its start.",
        "\n".join(probes),
        "Heads are trained on whole takes. Cutting the context off shows how much they lean on it, and is no fair "
        "control: they were not trained for it.",
        "\n".join(heads),
    ]


def _mean_spread(values: Sequence[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread}"


def _quoted(published: Record) -> list[str]:
    """The paper's rows; nothing here was run by us, and no protocol of ours stands behind them."""
    lines = _heads("representation", "head", *published["metrics"], "note")
    for row in published["rows"]:
        lines.append(
            _line([row["representation"], row["head"], *(f"{score:g}" for score in row["scores"]), row["note"]])
        )
    said = (
        f"arXiv 2606.23256, {published['title']}; {published['protocol']}. Quoted, not run here; compare only where "
        "features, rate, split and what is known of boundaries are the same."
    )
    return ["## Quoted from the paper", said, "\n".join(lines)]


def _heads(*names: str) -> list[str]:
    return [_line(names), _line(["---"] * len(names))]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
