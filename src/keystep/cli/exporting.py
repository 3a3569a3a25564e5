"""``keystep export``: a model's stream as files that run elsewhere."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from keystep.cli.models import find_model, head_of
from keystep.export import export_step
from keystep.export.artefact import INT8, RECORD


def export_model(
    model: str,
    out: Path,
    onnx: bool,
    torch_program: bool,
    int8: bool,
    frames: int | None,
    streams: int,
    window: int | None,
    head: Path | None,
    console: Console,
) -> None:
    """Write the folder and say what is in it, and how far its numbers are from `keystep.stream`."""
    found = find_model(model)
    fitted = None if head is None else head_of(found, head, console)
    record = export_step(
        found.model,
        out,
        frames=frames,
        streams=streams,
        window=window,
        onnx=onnx or not torch_program,
        torch_program=torch_program,
        int8=int8,
        head=fitted,
        source=found.source,
        rate=found.rate,
    )
    lines = [f"{out / RECORD}: {record['attention']}; {_calls(record['frames'], record['streams'])}"]
    for name, checked in record["files"].items():
        size = (out / name).stat().st_size / 2**20
        lines.append(
            f"{out / name}: {size:.1f} MiB; differs from {checked['compared_with']} by at most "
            f"{checked['largest_difference']:.1e}, {checked['mean_difference']:.1e} on average "
            f"({checked['frames']} random frames, latents up to {checked['largest_latent']:.1f})"
        )
    if INT8 in record["files"]:
        lines.append("note: int8 is coarser; measure on your own features what it costs you")
        if record["frames"] * record["streams"] > 1:
            lines.append(
                "note: in int8 the frames and streams of one call share a scale, so they move each other a little"
            )
    if window is not None:
        lines.append(f"note: attention limited to {window} frames: not the latents of the model without a window")
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def _calls(frames: int, streams: int) -> str:
    late = f"the first answered {_count(frames - 1, 'frame')} late" if frames > 1 else "answered at once"
    return f"{_count(frames, 'frame')} of {_count(streams, 'stream')} a call, {late}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
