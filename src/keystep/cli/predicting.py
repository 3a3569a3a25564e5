"""``keystep predict``: predict the steps of recordings."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from keystep.cli.progress import progress_on
from keystep.prediction import predict


def predict_videos(
    model: str,
    head: Path,
    videos: list[Path],
    out: Path,
    source_rate: str | None,
    backbone: str | None,
    weights: Path | None,
    overwrite: bool,
    console: Console,
) -> None:
    """Predict the steps of videos, and print a summary with the output files."""
    options = {"source_rate": source_rate, "backbone": backbone, "weights": weights, "overwrite": overwrite}
    found = predict(model, head, videos, out=out, progress=progress_on(console), **options)  # type: ignore[arg-type]
    for each in found:
        steps = len({step for step, _, _ in each.segments()})
        console.print(f"{each.name}: {len(each.ids)} frames, {len(each.segments())} segments of {steps} steps")
    console.print(f"{out}: labels/, probabilities/, ribbons/, predictions.json", soft_wrap=True, markup=False)
