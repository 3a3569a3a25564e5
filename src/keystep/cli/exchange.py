"""``keystep annotations``: exchange annotations with other programs, as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from keystep.cli.base import print_next
from keystep.data.folder import FeatureFolder
from keystep.errors import InputError
from keystep.exchange import Exported, ImportedAnnotations


def chosen_videos(folder: FeatureFolder, names: Sequence[str] | None, split: str | None, part: str | None) -> list[str]:
    """The videos of ``--name`` and ``--split``; none: all of the folder."""
    if part is not None and split is None:
        raise InputError("--part says which part of a split; give --split, too")
    if split is None:
        return [*(names or ())]
    found = folder.split(split)
    chosen = [*(found.part(part) if part is not None else (*found.train, *found.valid, *found.test))]
    strange = [name for name in names or () if name not in chosen]
    if strange:
        raise InputError(f"--name {strange[0]}: not among the {len(chosen)} videos of --split {split}")
    return [name for name in chosen if not names or name in names]


def show_exported(done: Exported, out: Path, console: Console) -> None:
    """Print notes and counts."""
    _notes(done.notes, console)
    files = "1 file" if len(done.paths) == 1 else f"{len(done.paths)} files"
    line = f"{out}: {files}, {len(done.videos)} videos, {done.segments:,} segments"
    console.print(line, soft_wrap=True, markup=False)


def show_imported(done: ImportedAnnotations, given: Mapping[str, str | None], console: Console) -> None:
    """Print notes, counts and the next command."""
    _notes(done.notes, console)
    slots = sum(done.labelled.values())
    line = f"{done.root / 'groundTruth'}: {len(done.labelled)} videos, {done.segments:,} segments, {slots:,} slots"
    if done.new_classes:
        line += f", {len(done.new_classes)} new classes"
    console.print(line, soft_wrap=True, markup=False)
    options = [word for option, value in given.items() if value is not None for word in (option, value)]
    print_next("inspect", done.root, *options)


def _notes(lines: Sequence[str], console: Console) -> None:
    for line in lines:
        console.print(f"note: {line}", soft_wrap=True, markup=False)
