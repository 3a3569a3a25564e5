"""``keystep eval --suite paper``: temporal heads on raw features, the best control and learned latents."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from keystep.cli.data import list_problems, open_data
from keystep.cli.evaluation import Group, check_models, entrants_of, model_records, open_judge, parse_group
from keystep.cli.progress import counting
from keystep.cli.stopping import stopping_on_terminate
from keystep.config.base import assignments, build
from keystep.data.clips import FILE as CLIPS
from keystep.data.folder import FeatureFolder
from keystep.data.layout import data_set_of
from keystep.errors import InputError, Interrupted
from keystep.evals.published import PUBLISHED
from keystep.evals.suite import HeadRow, SuiteConfig, head_settings, run_suite
from keystep.evals.suite_report import delay_text
from keystep.evals.suite_results import OURS, save_suite
from keystep.files import check_ours

SUITES = ("paper",)
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
) -> None:
    """Train what is not trained yet, score, save, draw, say."""
    config = suite_config(suite, settings)
    pictures = {path.name for path in out.glob("ribbons_*.png")} if out.is_dir() else set()
    check_ours(out, {*OURS, HEADS, *pictures})
    folder = open_data(data, source_rate, rate, on_error)
    if config.data_set is None:
        config = config.model_copy(update={"data_set": data_set_of(data)})
    groups = [parse_group(text) for text in models]
    check_models(groups, folder, split, console)
    _check_clips(folder, groups)
    judge, records = open_judge(folder, split, config), model_records(groups)
    weights = {(record["name"], record["seed"]): record["weights"] for record in records}
    try:
        with stopping_on_terminate(), counting(console, "training heads", None) as tick:
            found = run_suite(judge, entrants_of(groups), config, out / HEADS, tick, weights)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; the same command goes on from {out / HEADS}") from None
    report = save_suite(out, judge, found, config, records)
    list_problems(folder, console)
    for mode in dict.fromkeys(row.mode for row in found.rows):
        console.print(_table(mode, [row for row in found.rows if row.mode == mode]))
    console.print(f"report: {report}", soft_wrap=True, markup=False)


def suite_config(suite: str, settings: list[str]) -> SuiteConfig:
    """What a suite is to do, with every setting checked, those of all heads included.

    Raises:
        InputError: an unknown suite, setting, head or data set, or a value that does not fit.
    """
    if suite not in SUITES:
        raise InputError(f"--suite {suite!r} is none of {', '.join(SUITES)}")
    config = build(SuiteConfig, assignments(settings))
    if config.data_set is not None and config.data_set not in PUBLISHED:
        raise InputError(f"data_set {config.data_set!r}: no printed rows; there are {', '.join(PUBLISHED)}")
    for mode in config.modes:
        for preset in config.heads:
            head_settings(config, preset, mode)
    return config


def _check_clips(folder: FeatureFolder, groups: list[Group]) -> None:
    """Models that attend by segment cannot read trimmed clips, which have none."""
    if not (folder.root / CLIPS).exists():
        return
    for name, models in groups:
        if any(found.config.oracle for found in models):
            raise InputError(
                f"--model {name}: attends by segment, and {folder.root / CLIPS} holds clips, which have none"
            )


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
