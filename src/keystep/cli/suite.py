"""``keystep eval --suite paper``: temporal heads on raw features, the best control and learned latents."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from keystep.cli.data import list_problems, open_data, show_warnings
from keystep.cli.evaluation import parsed_groups
from keystep.cli.progress import progress_on
from keystep.cli.stopping import stopping_on_terminate
from keystep.data.layout import data_set_of
from keystep.errors import Interrupted
from keystep.evals.entrants import check_models, entrants_of, model_records, open_judge, own_rate
from keystep.evals.kept import FOLDER as PROBES
from keystep.evals.suite import HeadRow, check_clips, run_suite, suite_config
from keystep.evals.suite_report import delay_text
from keystep.evals.suite_results import OURS, RESULT, save_suite
from keystep.files import check_new, check_ours

SHOWN = ("accuracy", "edit", "f1@50")
HEADS = "suite_heads"
"""Folder of the trained heads within a suite's."""


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
    overwrite: bool = False,
) -> None:
    """Train what is not trained yet, score, save, draw, say."""
    config = suite_config(suite, settings)
    pictures = {path.name for path in out.glob("ribbons_*.png")} if out.is_dir() else set()
    check_ours(out, {*OURS, HEADS, PROBES, *pictures})
    check_new(out / RESULT, overwrite)
    groups = parsed_groups(models)
    folder = open_data(data, source_rate, rate or own_rate(groups), on_error)
    if config.data_set is None:
        config = config.model_copy(update={"data_set": data_set_of(data)})
    show_warnings(check_models(groups, folder, split), folder, console)
    check_clips(folder, groups)
    judge, records = open_judge(folder, split, config, out / PROBES), model_records(groups)
    weights = {(record["name"], record["seed"]): record["weights"] for record in records}
    try:
        with stopping_on_terminate():
            found = run_suite(judge, entrants_of(groups), config, out / HEADS, progress_on(console), weights)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; the same command goes on from {out / HEADS}") from None
    report = save_suite(out, judge, found, config, records)
    list_problems(folder, console)
    for mode in dict.fromkeys(row.mode for row in found.rows):
        console.print(_table(mode, [row for row in found.rows if row.mode == mode]))
    console.print(f"report: {report}", soft_wrap=True, markup=False)


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
