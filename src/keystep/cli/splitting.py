"""``keystep split``: folds for cross-validation."""

from __future__ import annotations

from rich.console import Console

from keystep.cli.data import list_notes
from keystep.data.splitting import Folds


def show_folds(made: Folds, console: Console) -> None:
    """Print which folds there are, and what is in none."""
    list_notes([f"{name} is in no split: {why}" for name, why in made.left_out.items()], console)
    sizes = ", ".join(str(len(videos)) for videos in made.test.values())
    line = f"{made.root / 'splits'}: {len(made.test)} folds of {len(made.videos)} videos ({sizes} of them test videos)"
    if made.groups is not None:
        line += f", each of the {made.groups} groups (persons or sites) in one fold"
    if made.tasks > 1:
        line += f", {made.tasks} tasks spread over the folds"
    console.print(line, soft_wrap=True, markup=False)
    if made.groups is None:
        hint = "where a person is in several videos, give --groups PATTERN, which keeps them in one fold"
        console.print(f"note: nothing says whose each video is; {hint}", soft_wrap=True, markup=False)
