"""``keystep eval --suite paper``: temporal heads on raw features, the best control and learned latents."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from keystep.cli.data import list_problems, open_data
from keystep.cli.evaluation import check_models, entrants_of, model_records, open_judge, parse_group
from keystep.cli.progress import counting
from keystep.data.layout import data_set_of
from keystep.errors import InputError
from keystep.evals.published import PUBLISHED
from keystep.evals.suite import HeadRow, SuiteConfig, head_settings, run_suite
from keystep.evals.suite_results import delay_text, save_suite
from keystep.settings import assignments, build

SUITES = ("paper",)


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
    boundaries: Path | None,
    console: Console,
) -> None:
    """Train what is not trained yet, score, save, draw, say."""
    if suite not in SUITES:
        raise InputError(f"--suite {suite!r} is none of {', '.join(SUITES)}")
    config = build(SuiteConfig, assignments(settings))
    folder = open_data(data, source_rate, rate, on_error, boundaries=boundaries)
    if config.data_set is None:
        config = config.model_copy(update={"data_set": data_set_of(data)})
    elif config.data_set not in PUBLISHED:
        raise InputError(f"data_set {config.data_set!r}: no printed rows; there are {', '.join(PUBLISHED)}")
    for mode in config.modes:
        for preset in config.heads:
            head_settings(config, preset, mode)  # wrong ones show now, not after hours
    groups = [parse_group(text) for text in models]
    check_models(groups, folder, split, console)
    judge, records = open_judge(folder, split, config), model_records(groups)
    with counting(console, "training heads", None) as tick:
        weights = {(record["name"], record["seed"]): record["weights"] for record in records}
        rows = run_suite(judge, entrants_of(groups), config, out / "heads", tick, weights)
    report = save_suite(out, judge, rows, config, records)
    list_problems(folder, console)
    console.print(_table(rows))
    console.print(f"report: {report}", soft_wrap=True, markup=False)


def _table(rows: list[HeadRow]) -> Table:
    table = Table(title="temporal heads, test videos")
    for name in ("mode", "head", "representation"):
        table.add_column(name)
    for name in ("accuracy", "edit", "f1@10", "f1@25", "f1@50", "delay"):
        table.add_column(name, justify="right")
    for row in rows:
        scores = []
        for metric in ("accuracy", "edit", "f1@10", "f1@25", "f1@50"):
            spread = row.spread(metric)
            scores.append(f"{row.mean(metric):.1f}" + ("" if spread is None else f" ± {spread:.1f}"))
        table.add_row(row.mode, row.head, row.representation, *scores, delay_text({"delay": row.delay}))
    return table
