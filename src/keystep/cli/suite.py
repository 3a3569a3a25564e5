"""``keystep eval --suite paper``: temporal heads on raw features, the best control and learned latents."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from keystep.cli.data import list_problems
from keystep.cli.evaluation import opened
from keystep.cli.progress import progress_on
from keystep.cli.stopping import interruptible
from keystep.config.base import assignments
from keystep.evals.evaluate import HEADS
from keystep.evals.evaluate import evaluate_suite as evaluate_suite_
from keystep.evals.suite import HeadRow, suite_config
from keystep.evals.suite_report import delay_text

SHOWN = ("accuracy", "edit", "f1@50")


def evaluate_suite(
    suite: str,
    data: Path,
    models: list[str],
    out: Path,
    split: str,
    source_rate: str | None,
    rate: str | None,
    settings: list[str],
    on_error: str,
    console: Console,
    *,
    persons: str | None = None,
    overwrite: bool = False,
) -> None:
    """Train what is not trained yet, score, save, draw, say."""
    config = suite_config(suite, assignments(settings))
    groups, folder, warnings = opened(data, models, split, source_rate, rate, persons, on_error, console)
    with interruptible(f"stopped; the same command goes on from {out / HEADS}"):
        found = evaluate_suite_(
            folder,
            dict(groups),
            out=out,
            split=split,
            config=config,
            overwrite=overwrite,
            progress=progress_on(console),
        )
    list_problems(folder, console, warnings)
    for mode in dict.fromkeys(row.mode for row in found.rows):
        console.print(_table(mode, [row for row in found.rows if row.mode == mode]))
    console.print(f"report: {found.report}", soft_wrap=True, markup=False)


def _table(mode: str, rows: list[HeadRow]) -> Table:
    table = Table(title=f"temporal heads, {mode}, test videos")
    for name in ("head", "representation"):
        table.add_column(name, overflow="fold")
    for name in (*SHOWN, "delay"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        scores = []
        for metric in SHOWN:
            spread = row.spread(metric)
            scores.append(f"{row.mean(metric):.1f}" + ("" if spread is None else f" ± {spread:.1f}"))
        table.add_row(row.head, row.representation, *scores, delay_text({"delay": row.delay}))
    return table
