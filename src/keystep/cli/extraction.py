"""``keystep extract``: extract features from videos."""

from __future__ import annotations

from rich.console import Console

from keystep.cli.base import print_next
from keystep.extraction.run import Extracted


def show_extracted(done: Extracted, console: Console, *, onward: bool = True) -> None:
    """Print the result of an extraction; ``onward``: and the command to run next."""
    for line in done.warnings:
        console.print(f"note: {line}", style="yellow", soft_wrap=True, markup=False)
    if done.skipped:
        some = ", ".join(list(done.skipped)[:5]) + (", ..." if len(done.skipped) > 5 else "")
        line = f"left out: {len(done.skipped)} videos ({some}); the reasons are in {done.root / 'skipped'}"
        console.print(line, style="yellow", soft_wrap=True, markup=False)
    line = f"{done.root}: {len(done.videos)} of {done.asked} videos, {done.width} dimensions"
    console.print(line, soft_wrap=True, markup=False)
    if done.videos and onward:
        print_next("inspect", done.root)
