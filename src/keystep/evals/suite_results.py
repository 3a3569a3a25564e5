"""What a suite leaves: one file with all numbers, a table for people, and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from keystep.evals.judge import Judge
from keystep.evals.palette import FAMILY_COLOURS
from keystep.evals.pictures import ribbons_png, safe_names
from keystep.evals.plots import plain
from keystep.evals.published import PUBLISHED
from keystep.evals.results import data_record, making
from keystep.evals.suite import Gain, HeadRow, Suite, SuiteConfig, gains
from keystep.evals.suite_report import report
from keystep.evals.table import MODES
from keystep.files import replacing, write_json

RESULT, REPORT, ACCURACY = "suite.json", "report.md", "accuracy.png"
OURS = (RESULT, REPORT, ACCURACY)
"""What a suite writes, beside ribbons and heads; what else lies in its folder is never replaced."""
FORMAT, FORMAT_VERSION = "keystep-suite", 1
SHOWN_VIDEOS = 2

Record = Mapping[str, Any]


def save_suite(out: Path, judge: Judge, suite: Suite, config: SuiteConfig, models: Sequence[Mapping[str, Any]]) -> Path:
    """Write ``suite.json``, ``report.md`` and pictures into ``out``; returns the report."""
    rows, found = suite.rows, gains(suite.rows, judge)
    record = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        **making(),
        "data": data_record(judge),
        "settings": config.model_dump(mode="json"),
        "models": list(models),
        "rows": row_records(rows),
        "gains": gain_records(found),
        "clip_rows": [asdict(row) for row in suite.clip_rows],
        "quoted": [asdict(table) for table in PUBLISHED.get(config.data_set or "", ())],
    }
    write_json(out / RESULT, record)
    pictures = {ACCURACY: accuracy_png(record), **_ribbons(judge, rows)}
    for name, png in pictures.items():
        with replacing(out / name) as temporary:
            temporary.write_bytes(png)
    with replacing(out / REPORT) as temporary:
        temporary.write_text(report(record, list(pictures)), encoding="utf-8")
    return out / REPORT


def row_records(rows: Sequence[HeadRow]) -> list[dict[str, Any]]:
    """Rows of heads for a result file."""
    return [_row_record(row) for row in rows]


def gain_records(found: Sequence[Gain]) -> list[dict[str, Any]]:
    """What representations gain under a head, for a result file."""
    return [{**asdict(gain), "holds": gain.holds} for gain in found]


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
                "at_the_moment": run.at_the_moment,
                "by_segments": run.by_segments,
                "clips": run.clips,
                "correct": [int(count) for count in run.correct],
                **run.record,
            }
            for run in row.runs
        ],
    }


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
            colour = FAMILY_COLOURS[row["family"]]
            axes.plot(scores, [place] * len(scores), "o", color=colour, markersize=4, alpha=0.5)
            axes.plot([row["mean"]["accuracy"]] * 2, [place - 0.3, place + 0.3], color=colour, linewidth=2)
        names = [plain(f"{row['head']}: {row['representation']}") for row in rows]
        axes.set_yticks(range(len(rows)), names, fontsize=8)
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
