"""``keystep import``: import the authors' feature archives into a feature folder."""

from __future__ import annotations

from rich.console import Console

from keystep.cli.base import print_next
from keystep.cli.data import list_skipped
from keystep.interop.official.importing import Imported

_VALIDATION = (
    "; keystep takes a validation part from the training videos (the authors selected models on the evaluation part)"
)


def show_imported(imported: Imported, console: Console) -> None:
    """Print skipped videos, counts, assumptions and the next command."""
    list_skipped(imported.skipped, console)
    for line in _lines(imported):
        console.print(line, soft_wrap=True, markup=False)
    print_next("inspect", imported.root)


def _lines(imported: Imported) -> list[str]:
    plan, rate = imported.plan, imported.timeline.rate
    lines = [f"note: {note}" for note in imported.notes]
    lines += [f"{what}: {number:,}" for what, number in plan.counts.items() if number]
    lines.append(
        f"timeline: {rate} Hz; assumed, since archives do not state it: a slot spans {float(1 / rate):g} s, centred on "
        "its time"
    )
    for split, parts in imported.splits.items():
        sizes = ", ".join(f"{count} {part}" for part, count in parts.items() if count)
        lines.append(f"split {split}: {sizes}" + ("" if parts["valid"] else _VALIDATION))
    if imported.oracle:
        lines.append("ORACLE: these sequences depend on true boundaries, which are not available for a new video")
    classes = f", {len(plan.classes)} classes" if plan.classes else ", no labels"
    lines.append(f"{imported.root}: {len(imported.done):,} videos, {imported.hours:.1f} hours{classes}")
    return lines
