"""``keystep export``: export a model's streaming step to ONNX or torch.export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from keystep.cli.data import show_lines
from keystep.errors import InputError
from keystep.export import export_step, export_video
from keystep.export.artefact import FILES, INT8, RECORD, VIDEO_FILES, VIDEO_RECORD
from keystep.files import check_new, check_replaceable
from keystep.heads import load_head
from keystep.loading import check_head, load
from keystep.pjepa import PJEPA
from keystep.stream.sources import from_array


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
    features: list[Path],
    console: Console,
    *,
    overwrite: bool = False,
) -> None:
    """Export a model, and print the files with their largest difference from `keystep.stream`."""
    check_replaceable(out, (*FILES, *VIDEO_FILES))
    for record_name in (RECORD, VIDEO_RECORD):
        check_new(out / record_name, overwrite, "an export")
    found = load(model)
    fitted = None if head is None else load_head(head)
    if fitted is not None:
        show_lines(check_head(fitted, found, str(head), live=fitted.causal), console)
    options: dict[str, Any] = {"onnx": onnx or not torch_program, "torch_program": torch_program, "head": fitted}
    options |= {"source": found.origin.source, "rate": found.origin.rate}
    if fitted is not None and not fitted.causal:
        if int8 or frames is not None or streams != 1 or window is not None or features:
            raise InputError(
                f"{head}: reads the whole video, so there is no streaming step; leave out --int8, --frames, --streams, "
                "--window and --features"
            )
        record = export_video(found, out, **options)
        lines = [
            f"{out / VIDEO_RECORD}: {record['attention']}; whole videos of {record['least_frames']} frames or more"
        ]
    else:
        read = [_frames(path, found) for path in features]
        record = export_step(
            found, out, frames=frames, streams=streams, window=window, int8=int8, features=read, **options
        )
        lines = [f"{out / RECORD}: {record['attention']}; {_calls(record['frames'], record['streams'])}"]
    lines += [*_file_lines(out, record), *_int8_lines(record)]
    if window is not None:
        lines.append(f"note: attention is limited to {window} frames, so latents differ from those without a window")
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def _file_lines(out: Path, record: dict[str, Any]) -> list[str]:
    """Return a line for each file with its size and its largest difference from the reference."""
    lines = []
    for name, checked in record["files"].items():
        size = (out / name).stat().st_size / 2**20
        lines.append(
            f"{out / name}: {size:.1f} MiB; differs from {checked['compared_with']} by at most "
            f"{_apart(checked)} ({checked['frames']} random frames, latents up to {checked['largest_latent']:.1f})"
        )
    return lines


def _int8_lines(record: dict[str, Any]) -> list[str]:
    """What int8 costs, or how to measure it."""
    if INT8 not in record["files"]:
        return []
    measured = record["files"][INT8].get("features")
    if measured:
        said = (
            f"int8 on {_count(measured['videos'], 'video')} of yours: latents differ by at most {_apart(measured)} "
            f"({_count(measured['frames'], 'frame')}, latents up to {measured['largest_latent']:.1f})"
        )
    else:
        said = "note: int8 is less precise; measure the loss on your own features with --features FILE.npy"
    if record["frames"] * record["streams"] == 1:
        return [said]
    return [said, "note: in int8, the frames and streams of one call share a scale and affect each other slightly"]


def _frames(path: Path, found: PJEPA) -> np.ndarray:
    """Read a feature file as a (T, D_in) float32 array."""
    width = found.config.input_dim
    assert width is not None
    chunks = [chunk.features for chunk in from_array(path, width, 4096)]
    return np.concatenate([np.empty((0, width), np.float32), *chunks])


def _apart(measured: dict[str, Any]) -> str:
    """Format the largest and mean difference of latents and, with a head, of its probabilities."""
    latents = f"{measured['largest_difference']:.1e}, {measured['mean_difference']:.1e} on average"
    probabilities = measured.get("probabilities")
    if probabilities is None:
        return latents
    return (
        f"{latents}, probabilities by at most {probabilities['largest_difference']:.1e}, "
        f"{probabilities['mean_difference']:.1e} on average, the most likely class in "
        f"{100 * probabilities['changed']:.2f} % of frames"
    )


def _calls(frames: int, streams: int) -> str:
    late = f"the first delayed by {_count(frames - 1, 'frame')}" if frames > 1 else "no delay"
    return f"{_count(frames, 'frame')} of {_count(streams, 'stream')} per call, {late}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
