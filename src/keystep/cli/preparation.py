"""``keystep prepare``: what a downloaded data set holds beside what was published, and a feature folder made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table

from keystep.cli.data import list_skipped, open_problems
from keystep.cli.progress import Tick, counting
from keystep.data.problems import Problems
from keystep.datasets.registry import DATA_SETS, find_data_set, options_of, preparer
from keystep.datasets.survey import Survey
from keystep.errors import InputError
from keystep.settings import assignments

Result = TypeVar("Result")
SHOWN_NOTES = 5


@dataclass(frozen=True)
class Prepared:
    """A feature folder to work on.

    source_rate: its features a second, where the folder itself does not say.
    """

    folder: Path
    source_rate: str | None = None


def list_data_sets(console: Console) -> None:
    """Name, title and official source of each."""
    table = Table("data set", "what it is", "where it comes from")
    for name in DATA_SETS:
        try:
            kind = find_data_set(name)
        except InputError as error:
            table.add_row(name, str(error), "")
            continue
        table.add_row(name, kind.title, kind.source)
    console.print(table)
    console.print("next: keystep prepare NAME --root DIR, the folder that it was downloaded to", markup=False)


def describe_data_set(name: str, console: Console) -> None:
    """What it is and what can be set."""
    kind = find_data_set(name)
    console.print(f"{kind.title}\ncomes from: {kind.source}", soft_wrap=True, markup=False)
    for setting, field in options_of(kind).model_fields.items():
        meaning = " ".join((field.description or "").split())
        console.print(f"--set {setting}={field.default}: {meaning}", soft_wrap=True, markup=False)
    console.print(f"next: keystep prepare {name} --root DIR", markup=False)


def prepare_data(
    name: str, root: Path, out: Path | None, settings: list[str], on_error: str, console: Console
) -> Prepared | None:
    """Check a downloaded tree, and write a feature folder if ``out`` is given.

    Returns: the folder to work on, ``out`` or what needs no preparation; None where something needed is missing, or
    something that a video needs and ``on_error`` does not say to leave it out.
    """
    problems = open_problems(on_error)
    data_set = preparer(name, assignments(settings))
    survey = data_set.survey(root)
    _print_survey(survey, console)
    if survey.lacking:
        return None
    if survey.leaving_out and problems.on_error == "raise":
        line = "get what is missing, or give --on-error skip, which leaves these videos out"
        console.print(f"not complete; next: {line}", soft_wrap=True, markup=False)
        return None
    if out is not None:
        with counting(console, "preparing", None) as tick:
            watched = _Watched(problems.on_error, tick=tick)
            data_set.write(root, out, watched)
        list_skipped(watched, console)
        _print_notes([note for note in watched.notes if note not in survey.notes], console)
        console.print(f"{out}: {_videos(out):,} videos\nnext: keystep inspect {out}", soft_wrap=True, markup=False)
        return Prepared(out)
    if survey.ready is not None:
        prepared = Prepared(survey.ready.folder, str(survey.ready.rate))
        line = f"keystep inspect {prepared.folder} --source-rate {prepared.source_rate}"
        console.print(f"keystep reads this folder as it is; next: {line}", soft_wrap=True, markup=False)
        return prepared
    line = "to write a feature folder, give --out DIR"
    rest = "but for the videos that are left out, all" if survey.leaving_out else "all"
    console.print(f"{rest} that is needed is there; {line}", soft_wrap=True, markup=False)
    return Prepared(root)


class _Watched(Problems):
    """Tells after each video that was tried."""

    def __init__(self, on_error: str, tick: Tick) -> None:
        super().__init__(on_error)  # type: ignore[arg-type]  # checked by open_problems
        self._tick = tick

    def attempt(self, name: str, work: Callable[[], Result]) -> Result | None:
        result = super().attempt(name, work)
        self._tick(name)
        return result


def _print_survey(survey: Survey, console: Console) -> None:
    table = Table("", "here", "published", "")
    for name in dict.fromkeys([*survey.counts, *survey.published]):
        here, published = survey.counts.get(name), survey.published.get(name)
        mark = "[yellow]differs[/yellow]" if name in survey.differing else ""
        table.add_row(name, "" if here is None else f"{here:,}", "" if published is None else f"{published:,}", mark)
    console.print(table)
    _print_notes(survey.notes, console)
    for part in survey.missing:
        kind = "damaged" if part.damage else "missing"
        if not (part.needed or part.leaves_out):
            kind += ", but not needed"
        line = f"{kind}: {part.damage or part.path}; it comes from {part.source}"
        if part.leaves_out:
            line += "; --on-error skip leaves its video out"
        style = "red" if part.needed else ("yellow" if part.leaves_out else None)
        console.print(line, style=style, soft_wrap=True, markup=False)


def _print_notes(notes: list[str] | tuple[str, ...], console: Console) -> None:
    for note in notes[:SHOWN_NOTES]:
        console.print(f"note: {note}", soft_wrap=True, markup=False)
    if len(notes) > SHOWN_NOTES:
        console.print(f"note: and {len(notes) - SHOWN_NOTES} more like these")


def _videos(folder: Path) -> int:
    return sum(1 for _ in (folder / "features").glob("*.npy"))
