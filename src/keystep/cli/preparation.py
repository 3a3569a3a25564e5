"""``keystep prepare``: check a downloaded data set against its published counts, and write a feature folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keystep.cli.base import print_next
from keystep.cli.data import list_notes, list_skipped
from keystep.cli.progress import progress_on
from keystep.config.base import assignments, config_of
from keystep.data.problems import Problems
from keystep.datasets import DATA_SETS, Prepared, Survey, examine, prepare
from keystep.errors import InputError
from keystep.plugins import allow, specs_in


def list_data_sets(console: Console) -> None:
    """Print the name, title and official source of each data set."""
    table = Table("data set", "description", "source")
    for name in DATA_SETS.names():
        try:
            kind = DATA_SETS.find(name)
        except InputError as error:
            table.add_row(name, str(error), "")
            continue
        table.add_row(name, kind.title, kind.source)
    console.print(table)
    console.print("once you have downloaded one: keystep prepare NAME --root DIR", markup=False)


def describe_data_set(name: str, console: Console) -> None:
    """Print the title, source and settings of a data set."""
    allow(*specs_in(name))
    kind = DATA_SETS.find(name)
    console.print(f"{kind.title}\nsource: {kind.source}", soft_wrap=True, markup=False)
    for setting, field in config_of(kind, BaseModel).model_fields.items():
        meaning = " ".join((field.description or "").split())
        console.print(f"--set {setting}={field.default}: {meaning}", soft_wrap=True, markup=False)
    console.print(f"once you have downloaded it: keystep prepare {name} --root DIR", markup=False)


def prepare_data(
    name: str, root: Path, out: Path | None, settings: Sequence[str], on_error: str, console: Console
) -> bool:
    """Print a survey of a downloaded data set; write a feature folder if ``out`` is given. False if incomplete."""
    on_error = Problems(on_error).on_error
    given = assignments(list(settings))
    survey = examine(name, root, given)
    print_survey(survey, console)
    if survey.lacking:
        return False
    if survey.leaving_out and on_error == "raise":
        line = "download what is missing, or leave these videos out with --on-error skip"
        console.print(f"incomplete: {line}", soft_wrap=True, markup=False)
        return False
    if out is None and survey.ready is None:
        rest = ", except for the videos that are left out" if survey.leaving_out else ""
        line = f"all required files are present{rest}; to write a feature folder, give --out DIR"
        console.print(line, soft_wrap=True, markup=False)
        return True
    progress = progress_on(console)
    prepared = prepare(name, root, out, settings=given, on_error=on_error, survey=survey, progress=progress)
    _print_prepared(prepared, console)
    return True


def _print_prepared(prepared: Prepared, console: Console) -> None:
    if prepared.source_rate is not None:
        console.print("keystep can read this folder directly", markup=False)
        groups = [] if prepared.groups is None else ["--groups", prepared.groups]
        print_next("inspect", prepared.folder, "--source-rate", prepared.source_rate, *groups)
        return
    list_skipped(prepared.skipped, console)
    list_notes(prepared.warnings, console)
    console.print(f"{prepared.folder}: {len(prepared.videos):,} videos", soft_wrap=True, markup=False)
    print_next("inspect", prepared.folder)


def print_survey(survey: Survey, console: Console) -> None:
    """Print the counts next to the published ones, then notes and missing files."""
    table = Table("", "found", "published", "")
    for name in dict.fromkeys([*survey.counts, *survey.published]):
        here, published = survey.counts.get(name), survey.published.get(name)
        mark = Text("differs", style="yellow") if name in survey.differing else ""
        table.add_row(name, "" if here is None else f"{here:,}", "" if published is None else f"{published:,}", mark)
    console.print(table)
    list_notes(survey.notes, console)
    for part in survey.missing:
        kind = "damaged" if part.damage else "missing"
        if not (part.needed or part.leaves_out):
            kind += ", but optional"
        line = f"{kind}: {part.damage or part.path}; available from {part.source}"
        if part.leaves_out:
            line += "; --on-error skip leaves its video out"
        style = "red" if part.needed else ("yellow" if part.leaves_out else None)
        console.print(line, style=style, soft_wrap=True, markup=False)
