"""``keystep eval`` and ``keystep report``."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keystep.cli.data import list_found, open_data, show_warnings
from keystep.cli.progress import progress_on
from keystep.config.base import assignments
from keystep.data.folder import FeatureFolder
from keystep.engines import Engine
from keystep.errors import InputError, plain
from keystep.evals.entrants import Group, check_models, load_groups, training_rate
from keystep.evals.evaluate import check_output, evaluate
from keystep.evals.head_tables import PlainTable, markdown_plain, task_tables
from keystep.evals.headline import main_line, verdict
from keystep.evals.probe_cache import FOLDER
from keystep.evals.protocol import eval_config
from keystep.evals.report import RIVALS, write_report
from keystep.evals.results import load_result
from keystep.evals.table import FAMILIES, Section, markdown_table, tables
from keystep.evals.task import SEGMENTATION, find_task
from keystep.plugins import allow, specs_in
from keystep.stopping import interruptible

HIDDEN = ("accuracy, foreground", "seeds")
"""Columns of the report that are left out in the terminal, for lack of space."""

HIDDEN_IF_NARROW = (*HIDDEN, "F1@10", "F1@25")
"""Columns left out in terminals of fewer than `WIDE` characters."""

WIDE = 110


def evaluate_folder(
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
    suite: str | None = None,
    task: str = SEGMENTATION,
    persons: str | None = None,
    quick: bool = False,
    overwrite: bool = False,
    engine: Engine | None = None,
) -> None:
    """Evaluate models on a feature folder, write the result and report, and print the tables."""
    config = eval_config(assignments(settings), suite)
    config.check_quick(quick)
    allow(*specs_in(task))
    find_task(task)
    check_output(out, overwrite=overwrite)
    groups, folder, warnings = opened(data, models, split, source_rate, rate, persons, on_error, console)
    with interruptible(f"stopped; run the same command to resume from {out / FOLDER}"):
        results = evaluate(
            folder,
            dict(groups),
            split=split,
            task=task,
            config=config,
            out=out,
            quick=quick,
            overwrite=overwrite,
            engine=engine,
            progress=progress_on(console),
        )
    found = results.record["data"]
    list_found(found["left_out"], found["notes"], console, warnings)
    show_report(out, console)


def opened(
    data: Path,
    models: list[str],
    split: str,
    source_rate: str | None,
    rate: str | None,
    persons: str | None,
    on_error: str,
    console: Console,
) -> tuple[list[Group], FeatureFolder, list[str]]:
    """Load models, and open the data at their training rate; print and return the warnings about both."""
    groups = parsed_groups(models)
    folder = open_data(data, source_rate, rate or training_rate(groups), on_error, groups=persons)
    warnings = check_models(groups, folder, split)
    show_warnings(warnings, folder, console)
    return groups, folder, warnings


def show_report(result: Path, console: Console, markdown: bool = False) -> None:
    """Write the report, and print the tables and the main conclusion."""
    record, _, _ = load_result(result)
    page = write_report(result)
    data = record["data"]
    marks = (", ORACLE" if data.get("oracle") else "") + (", features made with LABELS" if data.get("labels") else "")
    console.print(f"{data['name']}, split {data['split']}, test videos{marks}", soft_wrap=True, markup=False)
    for section in tables(record):
        console.print(_table(section, console.width))
    for found in task_tables(record):
        console.print(_plain(found))
        if found.note:
            console.print(found.note, style="dim", soft_wrap=True, markup=False)
    if markdown:
        print(plain("\n".join([markdown_table(record), *map(markdown_plain, task_tables(record))])))
    for line in record["gate"]:
        rival = "" if line["claim"].endswith(line["second"]) else f" ({line['second']})"
        console.print(
            f"{line['mode']}: {line['first']} {line['claim']}{rival}: {line['mean']:+.1f} points, "
            f"95 % interval {line['low']:+.1f} to {line['high']:+.1f}: {verdict(line)}",
            soft_wrap=True,
            markup=False,
        )
    if record["gate"]:
        console.print(RIVALS, style="dim", soft_wrap=True, markup=False)
    console.print(f"report: {page}", soft_wrap=True, markup=False)
    console.print(main_line(record), style="bold", soft_wrap=True, markup=False)


def _table(section: Section, width: int) -> Table:
    """A section with a rule between families; the best cells and the learned rows are bold."""
    table = Table(title=section.title, box=SIMPLE_HEAD)
    hidden = HIDDEN if width >= WIDE else HIDDEN_IF_NARROW
    columns = [column for column in section.columns if column not in hidden]
    table.add_column("representation", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for heading, lines in section.groups.items():
        head = f"{heading.removeprefix('head ')}: " if heading.startswith("head ") else ""
        for line in lines:
            cells = [Text(line.cells[c], style="bold" if c in line.best else "") for c in columns]
            table.add_row(Text(head + line.name, style="bold" if heading == FAMILIES["learned"] else ""), *cells)
        table.add_section()
    return table


def _plain(found: PlainTable) -> Table:
    table = Table(title=found.title)
    for number, column in enumerate(found.columns):
        table.add_column(column, justify="right" if number > 1 else "left", overflow="fold")
    for row in found.rows:
        table.add_row(*row)
    return table


def parsed_groups(texts: list[str]) -> list[Group]:
    """Parse texts of the form ``NAME=RUN,RUN`` and load the models.

    Raises:
        InputError: if a text has another form, or a name is taken.
    """
    found: list[Group] = []
    for text in texts:
        name, equals, paths = text.partition("=")
        if not equals or not name or not paths:
            raise InputError(f"--model {text!r} is not NAME=RUN[,RUN...], such as pjepa=runs/a,runs/b")
        if name in [other for other, _ in found]:
            raise InputError(f"--model {name}=...: this name is used twice; choose another")
        found += load_groups({name: [path for path in paths.split(",") if path]})
    return found
