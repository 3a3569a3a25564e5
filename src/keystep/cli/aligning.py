"""``keystep align``: frame labels from ordered lists of steps."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from keystep.cli.data import list_problems, open_data
from keystep.cli.progress import progress_on
from keystep.config.base import assignments, build
from keystep.evals.aligning import AlignmentConfig, align_folder, check_out, read_lists
from keystep.loading import load


def align_command(
    data: Path,
    steps: Path,
    out: Path,
    model: str | None,
    source_rate: str | None,
    rate: str | None,
    settings: list[str],
    on_error: str,
    console: Console,
    *,
    overwrite: bool = False,
) -> None:
    """Align the listed videos of a folder, write their labels, and print how the rounds went."""
    check_out(out, overwrite=overwrite)
    config = build(AlignmentConfig, assignments(settings))
    loaded = None if model is None else load(model)
    if loaded is not None and rate is None:
        rate = loaded.origin.rate
    folder = open_data(data, source_rate, rate, on_error, labels_needed=False)
    lists, classes = read_lists(steps, folder)
    found = align_folder(
        folder, lists, classes, out, loaded, config, overwrite=overwrite, progress=progress_on(console)
    )
    list_problems(folder, console)
    for number, changed in enumerate(found, start=1):
        console.print(f"round {number}: {changed:.1f} % of the frames have another label than before")
    console.print(
        f"{out}: labels/ of {len(lists)} videos, head.safetensors, alignment.json", soft_wrap=True, markup=False
    )
