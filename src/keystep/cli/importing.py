"""``keystep import``: the authors' feature archives as a feature folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from rich.console import Console

from keystep.cli.base import print_next
from keystep.cli.data import list_skipped
from keystep.cli.progress import counting
from keystep.data.problems import Problems
from keystep.interop.official.importing import Imported, ImportOptions, import_archive


def import_official(options: ImportOptions, on_error: str, console: Console) -> None:
    """Import what is not there yet, and say what came of it."""
    problems = Problems(on_error)
    with ExitStack() as stack:

        def progress(total: int) -> Callable[[str], None]:
            return stack.enter_context(counting(console, "importing", total))

        imported = import_archive(options, problems, progress)
    list_skipped(problems.skipped, console)
    for line in _lines(imported, options):
        console.print(line, soft_wrap=True, markup=False)
    print_next("inspect", options.out)


def _lines(imported: Imported, options: ImportOptions) -> list[str]:
    """What was counted, what was assumed, and where to go on."""
    plan, rate = imported.plan, imported.timeline.rate
    lines = [f"note: {note}" for note in imported.notes]
    lines += [f"{what}: {number:,}" for what, number in plan.counts.items() if number]
    lines.append(
        f"timeline: {rate} Hz; assumed, as archives do not say: a slot saw {float(1 / rate):g} s and stands for their "
        "middle"
    )
    for split, parts in imported.splits.items():
        sizes = ", ".join(f"{count} {part}" for part, count in parts.items() if count)
        lines.append(f"split {split}: {sizes}" + ("" if parts["valid"] else _VALIDATION))
    if options.sequence == "segments":
        lines.append("ORACLE: true boundaries shaped these sequences; no system has them on a new video")
    classes = f", {len(plan.classes)} classes" if plan.classes else ", no labels"
    lines.append(f"{options.out}: {len(imported.done):,} videos, {imported.hours:.1f} hours{classes}")
    return lines


_VALIDATION = (
    "; keystep cuts a validation part from the training videos, where the authors chose on this evaluation part"
)
