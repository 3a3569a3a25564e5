"""Opening data as the options say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast, get_args

from rich.console import Console

from keystep.data.folder import FeatureFolder, open_folder
from keystep.data.problems import OnError, Problems
from keystep.data.timeline import parse_rate
from keystep.errors import InputError


def open_data(
    root: Path,
    source_rate: str | None,
    rate: str | None,
    on_error: str,
    *,
    labels_needed: bool = True,
) -> FeatureFolder:
    """The folder at the asked rate."""
    return open_folder(
        root,
        source_rate=None if source_rate is None else parse_rate(source_rate),
        rate=None if rate is None else parse_rate(rate),
        problems=open_problems(on_error),
        labels_needed=labels_needed,
    )


def open_problems(on_error: str) -> Problems:
    """What ``--on-error`` asks for."""
    if on_error not in get_args(OnError):
        raise InputError(f"--on-error {on_error!r} is none of {', '.join(get_args(OnError))}")
    return Problems(on_error=cast(OnError, on_error))


def list_skipped(problems: Problems, console: Console) -> None:
    """What was left out."""
    for line in problems.skipped.values():
        console.print(f"left out: {line}", soft_wrap=True, style="yellow", markup=False)


def list_problems(folder: FeatureFolder, console: Console) -> None:
    """What was left out, and what was accepted with a remark."""
    problems = folder.problems
    list_skipped(problems, console)
    for line in problems.notes[:5]:
        console.print(f"note: {line}", soft_wrap=True, markup=False)
    if len(problems.notes) > 5:
        console.print(f"note: and {len(problems.notes) - 5} more like these")


def show_warnings(lines: Sequence[str], folder: FeatureFolder, console: Console) -> None:
    """Print warnings, and keep them among the folder's notes, which results carry."""
    folder.problems.notes.extend(lines)
    show_lines(lines, console)


def show_lines(lines: Sequence[str], console: Console) -> None:
    """Print warnings."""
    for line in lines:
        console.print(f"warning: {line}", style="yellow", soft_wrap=True, markup=False)
