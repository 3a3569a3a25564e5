"""Open feature folders, and print problems, notes and warnings about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from keystep.data.folder import FeatureFolder, open_dataset
from keystep.data.problems import Problems
from keystep.types import parse_rate

SHOWN_NOTES = 5


def open_data(
    root: Path,
    source_rate: str | None,
    rate: str | None,
    on_error: str,
    *,
    labels_needed: bool = True,
    groups: str | None = None,
) -> FeatureFolder:
    """Open a feature folder at the requested rate."""
    return open_dataset(
        root,
        source_rate=None if source_rate is None else parse_rate(source_rate),
        rate=None if rate is None else parse_rate(rate),
        problems=Problems(on_error),
        labels_needed=labels_needed,
        groups=groups,
    )


def list_skipped(skipped: Mapping[str, str], console: Console) -> None:
    """Print the videos that were skipped, and why."""
    for line in skipped.values():
        console.print(f"left out: {line}", soft_wrap=True, style="yellow", markup=False)


def list_problems(folder: FeatureFolder, console: Console, shown: Sequence[str] = ()) -> None:
    """Print the skipped videos and the notes of a folder, except for notes in ``shown``."""
    list_found(folder.problems.skipped, folder.problems.notes, console, shown)


def list_found(skipped: Mapping[str, str], notes: Sequence[str], console: Console, shown: Sequence[str] = ()) -> None:
    """Print skipped videos and notes, except for notes in ``shown``."""
    list_skipped(skipped, console)
    list_notes([line for line in notes if line not in shown], console)


def list_notes(notes: Sequence[str], console: Console) -> None:
    """Print the first notes and the number of remaining ones."""
    for line in notes[:SHOWN_NOTES]:
        console.print(f"note: {line}", soft_wrap=True, markup=False)
    if len(notes) > SHOWN_NOTES:
        console.print(f"note: and {len(notes) - SHOWN_NOTES} more like these")


def show_warnings(lines: Sequence[str], folder: FeatureFolder, console: Console) -> None:
    """Print warnings and add them to the folder's notes, which are saved with results."""
    folder.problems.notes.extend(lines)
    show_lines(lines, console)


def show_lines(lines: Sequence[str], console: Console) -> None:
    """Print warnings."""
    for line in lines:
        console.print(f"warning: {line}", style="yellow", soft_wrap=True, markup=False)
