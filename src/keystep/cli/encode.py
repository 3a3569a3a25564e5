"""``keystep encode``: write the latents of a feature folder."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from keystep.cli.data import list_problems, open_data, show_lines
from keystep.cli.progress import progress_on
from keystep.data.store import sink_of
from keystep.encoding import Mode, encode, mode_pattern
from keystep.engines import Engine
from keystep.loading import load


def encode_folder(
    model_path: str,
    data: Path,
    out: Path,
    layout: str,
    live: bool,
    source_rate: str | None,
    rate: str | None,
    on_error: str,
    half: bool,
    bands: str | None,
    sink: str,
    engine: Engine,
    console: Console,
) -> None:
    """Encode a feature folder and print a summary."""
    model = load(model_path)
    folder = open_data(data, source_rate, rate, on_error)
    mode: Mode = "causal" if live else "offline"
    chosen = None if bands is None else [band.strip() for band in bands.split(",")]
    options = {"mode": mode, "bands": chosen, "layout": layout, "half": half, "sink": sink_of(sink)}
    made = encode(  # type: ignore[call-overload]
        model, folder, out=out, **options, engine=engine, progress=progress_on(console)
    )
    show_lines(made.warnings, console)
    list_problems(folder, console, shown=made.warnings)
    marked = f"  ORACLE: {made.oracle}" if made.oracle else ""
    written = {b: w for b, w in model.bands(mode_pattern(model, mode)).items() if chosen is None or b in chosen}
    widths = " + ".join(f"{name} {width}" for name, width in written.items())
    console.print(
        f"{out}: {len(made.videos)} videos, {sum(written.values())} dimensions ({widths}), layout {layout}{marked}",
        soft_wrap=True,
    )
