"""``keystep pool``: one vector a slot of a folder with several tokens a slot."""

from __future__ import annotations

from rich.console import Console

from keystep.cli.data import list_notes, list_skipped
from keystep.extraction.pooling import Pooled


def show_pooled(done: Pooled, console: Console) -> None:
    """Print what came of a pooling."""
    list_skipped(done.skipped, console)
    list_notes(done.warnings, console)
    marked = f"  LABELS: {done.labels}" if done.labels else ""
    line = f"{done.root}: {len(done.videos)} videos, {done.tokens} tokens a slot pooled{marked}"
    console.print(line, soft_wrap=True, markup=False)
