"""``keystep discover``: unsupervised key-step discovery with models, raw features and controls."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from keystep.cli.data import list_problems, open_data, show_lines
from keystep.cli.evaluation import parsed_groups
from keystep.cli.progress import progress_on
from keystep.config.base import assignments, build
from keystep.evals.discovering import PICTURE, RESULT, SCORES, DiscoveryStudy, check_output, discover
from keystep.evals.discovery import DiscoveryConfig
from keystep.evals.entrants import training_rate


def discover_folder(
    data: Path,
    models: list[str],
    out: Path,
    clusters: int,
    matching: str,
    split: str | None,
    part: str,
    background: list[str],
    task_pattern: str | None,
    source_rate: str | None,
    rate: str | None,
    settings: list[str],
    on_error: str,
    console: Console,
    *,
    persons: str | None = None,
    overwrite: bool = False,
) -> None:
    """Run a discovery study, write ``discovery.json`` and the ribbons of the first video, and print the table."""
    check_output(out, overwrite=overwrite)
    config = build(DiscoveryConfig, assignments(settings), {"clusters": clusters, "matching": matching})
    groups = parsed_groups(models)
    folder = open_data(data, source_rate, rate or training_rate(groups), on_error, groups=persons)
    study = discover(
        folder,
        dict(groups),
        config,
        split=split,
        part=part,
        background=background,
        task_pattern=task_pattern,
        out=out,
        overwrite=overwrite,
        progress=progress_on(console),
    )
    show_lines(study.warnings, console)
    list_problems(folder, console)
    console.print(_table(study))
    console.print(config.describe(), soft_wrap=True, markup=False)
    console.print(f"result: {out / RESULT}   picture: {out / PICTURE}", soft_wrap=True, markup=False)


def _table(study: DiscoveryStudy) -> Table:
    """Return the scores as a table for the terminal."""
    oracle = ", ORACLE" if study.folder.oracle else ""
    tasks = len({study.tasks[video] for video in study.videos})
    title = f"{study.folder.root.resolve().name}: key-steps of {len(study.videos)} videos ({study.part}), {tasks} tasks"
    table = Table(title=title + oracle)
    table.add_column("representation")
    for score in SCORES:
        table.add_column("IoU" if score == "iou" else score.capitalize(), justify="right")
    for row in study.rows:
        cells = [
            f"{row.mean(score):.1f}" + (f" ± {row.spread(score):.1f}" if row.spread(score) is not None else "")
            for score in SCORES
        ]
        table.add_row(row.name, *cells)
    return table
