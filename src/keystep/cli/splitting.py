"""``keystep split``: create folds for cross-validation."""

from __future__ import annotations

from rich.console import Console

from keystep.cli.data import list_notes
from keystep.data.splitting import Folds, over_all_folds


def show_folds(made: Folds, console: Console) -> None:
    """Print the folds, and the videos that are in none."""
    list_notes([f"{name} is in no split: {why}" for name, why in made.left_out.items()], console)
    sizes = ", ".join(str(len(videos)) for videos in made.test.values())
    line = f"{made.root / 'splits'}: {len(made.test)} folds of {len(made.videos)} videos ({sizes} test videos)"
    if made.groups is not None:
        line += f", each of the {made.groups} groups (persons or sites) in one fold"
    if made.tasks > 1:
        line += f", stratified by {made.tasks} tasks"
    console.print(line, soft_wrap=True, markup=False)
    if made.groups is None:
        hint = "if a person appears in several videos, give --groups PATTERN to keep them in one fold"
        console.print(f"note: the person in each video is not known; {hint}", soft_wrap=True, markup=False)
    console.print(f"one result over all folds: {over_all_folds(made.root)}", soft_wrap=True, markup=False)
