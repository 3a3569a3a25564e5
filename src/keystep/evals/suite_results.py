"""What a suite leaves: one file with all numbers, a table for people, and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from keystep.evals.judge import Judge
from keystep.evals.pictures import ribbons_png, safe_names
from keystep.evals.protocol import SEEDS_FOR_A_CLAIM
from keystep.evals.published import METRICS, PUBLISHED
from keystep.evals.results import data_record, making
from keystep.evals.suite import Gain, HeadRow, SuiteConfig, gains
from keystep.evals.table import MODES
from keystep.evals.trimmed import CONTEXTS
from keystep.files import replacing, write_json

RESULT, REPORT, ACCURACY = "suite.json", "report.md", "accuracy.png"
FORMAT, FORMAT_VERSION = "keystep-suite", 1
SHOWN_VIDEOS = 2
COLOURS = {
    "raw": "#8a8a8a",
    "control": "#c0792a",
    "reconstruction": "#7a5aa0",
    "learned": "#33608c",
    "oracle": "#b03a3a",
}

Record = Mapping[str, Any]


def save_suite(
    out: Path, judge: Judge, rows: Sequence[HeadRow], config: SuiteConfig, models: Sequence[Mapping[str, Any]]
) -> Path:
    """Write ``suite.json``, ``report.md`` and pictures into ``out``; returns the report."""
    found = gains(rows, judge.frames)
    record = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        **making(),
        "data": data_record(judge),
        "settings": config.model_dump(mode="json"),
        "models": list(models),
        "rows": [_row_record(row) for row in rows],
        "gains": [{**asdict(gain), "holds": holds(gain)} for gain in found],
        "quoted": None if config.data_set not in PUBLISHED else asdict(PUBLISHED[config.data_set]),
    }
    write_json(out / RESULT, record)
    pictures = {ACCURACY: accuracy_png(record), **_ribbons(judge, rows)}
    for name, png in pictures.items():
        with replacing(out / name) as temporary:
            temporary.write_bytes(png)
    with replacing(out / REPORT) as temporary:
        temporary.write_text(report(record, list(pictures)), encoding="utf-8")
    return out / REPORT


def holds(gain: Gain) -> bool:
    """Better, with an interval that excludes zero, over enough seeds."""
    return gain.difference.low > 0 and gain.difference.seeds[0] >= SEEDS_FOR_A_CLAIM


def _row_record(row: HeadRow) -> dict[str, Any]:
    metrics = list(row.runs[0].scores)
    return {
        "representation": row.representation,
        "head": row.head,
        "family": row.family,
        "mode": row.mode,
        "delay": row.delay,
        "detail": row.detail,
        "parameters": row.parameters,
        "frames_per_second": row.speed,
        "mean": {metric: row.mean(metric) for metric in metrics},
        "spread": {metric: row.spread(metric) for metric in metrics},
        "runs": [
            {
                "seed": run.seed,
                "scores": run.scores,
                "by_segments": run.by_segments,
                "clips": run.clips,
                "correct": [int(count) for count in run.correct],
                **run.record,
            }
            for run in row.runs
        ],
    }


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
        "Mean ± deviation over seeds. Frames/s: the head alone, on the machine that made this.",
    ]
    for mode, title in MODES.items():
        rows = [row for row in record["rows"] if row["mode"] == mode]
        if rows:
            parts += [f"## {title}", _table(rows, settings)]
    if record["gains"]:
        parts += ["## What the learned representation adds, under the same head", _gain_table(record["gains"])]
    if any(run["by_segments"] for row in record["rows"] for run in row["runs"]):
        parts += ["## One answer for each true segment (ORACLE: boundaries known)", _segment_table(record["rows"])]
    if any(run["clips"] for row in record["rows"] for run in row["runs"]):
        parts += ["## Trimmed clips, top-1", _clip_table(record["rows"])]
    if record["quoted"] is not None:
        parts += _quoted(record["quoted"])
    parts += [f"![{name}]({name})" for name in pictures]
    return "\n\n".join(parts) + "\n"


def columns_of(settings: Record) -> list[str]:
    """The metrics of the table; foreground accuracy only where some class is background."""
    return [METRICS[0], *(["accuracy_foreground"] if settings["background"] else []), *METRICS[1:]]


def cell(row: Record, metric: str) -> str:
    """``64.1 ± 0.5``"""
    spread = row["spread"][metric]
    return f"{row['mean'][metric]:.1f}" + ("" if spread is None else f" ± {spread:.1f}")


def delay_text(row: Record) -> str:
    """Seconds, or that the whole video has to be over."""
    return "whole video" if row["delay"] is None else f"{row['delay']:.2f} s"


def _table(rows: Sequence[Record], settings: Record) -> str:
    metrics = columns_of(settings)
    lines = _heads("head", "representation", *metrics, "delay", "parameters", "frames/s", "seeds")
    for head in dict.fromkeys(row["head"] for row in rows):
        for row in (row for row in rows if row["head"] == head):
            detail = f" ({row['detail']})" if row["family"] == "control" else ""
            cells = [head, row["representation"] + detail, *(cell(row, metric) for metric in metrics)]
            cells += [
                delay_text(row),
                f"{row['parameters']:,}",
                f"{row['frames_per_second']:,.0f}",
                str(len(row["runs"])),
            ]
            lines.append(_line(cells))
    return "\n".join(lines)


def _gain_table(found: Sequence[Record]) -> str:
    lines = _heads("mode", "head", "against", "points of accuracy", "95 % interval", "verdict")
    for gain in found:
        difference = gain["difference"]
        few = f"too few seeds ({difference['seeds'][0]})" if difference["seeds"][0] < SEEDS_FOR_A_CLAIM else ""
        verdict = "holds" if gain["holds"] else few or "does not hold"
        interval = f"{difference['low']:+.1f} to {difference['high']:+.1f}"
        names = [gain["mode"], gain["head"], f"{gain['first']}, against {gain['second']}"]
        lines.append(_line([*names, f"{difference['mean']:+.1f}", interval, verdict]))
    return "\n".join(lines)


def _segment_table(rows: Sequence[Record]) -> str:
    lines = _heads("mode", "head", "representation", "right segments, majority", "right segments, last frame")
    for row in rows:
        shares = [
            f"{np.mean([run['by_segments'][choice]['segments'] for run in row['runs']]):.1f}"
            for choice in ("majority", "last")
        ]
        lines.append(_line([row["mode"], row["head"], row["representation"], *shares]))
    return "\n".join(lines)


def _clip_table(rows: Sequence[Record]) -> str:
    """The context is what came before in the take, from its start; without it is the control."""
    lines = _heads("head", "representation", *(f"top-1, {text}" for text in CONTEXTS.values()))
    for row in rows:
        found = [run["clips"] for run in row["runs"] if run["clips"]]
        if found:
            shares = [f"{np.mean([clips[context] for clips in found]):.1f}" for context in CONTEXTS]
            lines.append(_line([row["head"], row["representation"], *shares]))
    return "\n".join(lines)


def _quoted(published: Record) -> list[str]:
    """The paper's rows; nothing here was run by us, and no protocol of ours stands behind them."""
    metrics = [metric for metric in METRICS if all(metric in row["scores"] for row in published["rows"])]
    lines = _heads("representation", "head", *metrics, "note")
    for row in published["rows"]:
        scores = [f"{row['scores'][metric]:g}" for metric in metrics]
        lines.append(_line([row["representation"], row["head"], *scores, row["note"]]))
    said = f"arXiv 2606.23256, {published['title']}; {published['protocol']}. Quoted, not run here."
    return ["## Quoted from the paper", said, "\n".join(lines)]


def _heads(*names: str) -> list[str]:
    return [_line(names), _line(["---"] * len(names))]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def accuracy_png(record: Record) -> bytes:
    """Frame accuracy of every row: a panel a mode, a group a head, a dot a seed."""
    modes = [mode for mode in MODES if any(row["mode"] == mode for row in record["rows"])]
    most = max(sum(row["mode"] == mode for row in record["rows"]) for mode in modes)
    figure = Figure(figsize=(6.4 * len(modes), 1.0 + 0.32 * most), layout="constrained")
    panels = figure.subplots(1, len(modes), sharex=True, squeeze=False)[0]
    for axes, mode in zip(panels, modes, strict=True):
        rows = [row for row in record["rows"] if row["mode"] == mode]
        rows.sort(key=lambda row: record["settings"]["heads"].index(row["head"]))
        for place, row in enumerate(rows):
            scores = [run["scores"]["accuracy"] for run in row["runs"]]
            colour = COLOURS.get(row["family"], "black")
            axes.plot(scores, [place] * len(scores), "o", color=colour, markersize=4, alpha=0.5)
            axes.plot([row["mean"]["accuracy"]] * 2, [place - 0.3, place + 0.3], color=colour, linewidth=2)
        axes.set_yticks(range(len(rows)), [f"{row['head']}: {row['representation']}" for row in rows], fontsize=8)
        axes.invert_yaxis()
        axes.set(xlabel="frame accuracy, % (test videos)", title=mode)
        axes.grid(axis="x", alpha=0.3)
    return _png(figure)


def _ribbons(judge: Judge, rows: Sequence[HeadRow]) -> dict[str, bytes]:
    """What the heads said of the first test videos (first seed), under the true steps."""
    classes, rate = judge.folder.classes, float(judge.folder.timeline.rate)
    background = [classes[index] for index in judge.background]
    names = judge.split.test[:SHOWN_VIDEOS]
    found = {}
    for video, safe in zip(names, safe_names(names), strict=True):
        for mode in dict.fromkeys(row.mode for row in rows):
            here = {
                f"{row.head}: {row.representation}": row.runs[0].predictions[video] for row in rows if row.mode == mode
            }
            png = ribbons_png(judge.folder.labels(video), here, classes, background, rate)
            found[f"ribbons_{safe}_{mode}.png"] = png
    return found


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
