"""``keystep pool``: pool several tokens per slot into one vector."""

from __future__ import annotations

from rich.console import Console

from keystep.cli.data import list_notes, list_skipped
from keystep.extraction.pooling import Pooled


def show_pooled(done: Pooled, console: Console) -> None:
    """Print the result of pooling."""
    list_skipped(done.skipped, console)
    list_notes(done.warnings, console)
    marked = f"  LABELS: {done.labels}" if done.labels else ""
    line = f"{done.root}: {len(done.videos)} videos, {done.tokens} tokens per slot pooled{marked}"
    console.print(line, soft_wrap=True, markup=False)
