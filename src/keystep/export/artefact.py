"""Folders that run a model on another machine: the exported program and a description of it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from keystep import __version__
from keystep.errors import InputError
from keystep.export import check, onnx_files
from keystep.export.step import ExportedStep, frames_a_call
from keystep.export.video import ExportedVideo
from keystep.files import replacing, write_json
from keystep.heads import Head
from keystep.locking import owning
from keystep.persistence import weights_signature
from keystep.pjepa import PJEPA

FORMAT = "keystep-step"
FORMAT_VERSION = 1
RECORD, ONNX, INT8, TORCH = "step.json", "step.onnx", "step.int8.onnx", "step.pt2"
FILES = (RECORD, ONNX, INT8, TORCH)
VIDEO_RECORD, VIDEO_ONNX, VIDEO_TORCH = "video.json", "video.onnx", "video.pt2"
VIDEO_FILES = (VIDEO_RECORD, VIDEO_ONNX, VIDEO_TORCH)
EXAMPLE = 150
"""Frames of the example video that a graph is traced with."""
LEAST = 65
"""Minimum number of frames that a whole-video graph supports (and is checked with)."""


def export_step(
    model: PJEPA,
    folder: Path | str,
    *,
    frames: int | None = None,
    streams: int = 1,
    window: int | None = None,
    onnx: bool = True,
    torch_program: bool = False,
    int8: bool = False,
    head: Head | None = None,
    features: np.ndarray | Sequence[np.ndarray] = (),
    source: str | None = None,
    rate: str | Fraction | None = None,
) -> dict[str, Any]:
    """Export a streaming step to ``step.onnx``, ``step.int8.onnx`` or ``step.pt2``, with a description in
    ``step.json``.

    The folder is only created if every file, read back, gives the results of `keystep.stream`.

    Args:
        model: with causal or block-causal attention.
        folder: output folder.
        frames: frames per call. None: the minimum (see `frames_a_call`).
        streams: number of parallel streams.
        window: limits attention to this number of frames, for models without a window.
        onnx: write ``step.onnx``.
        torch_program: write ``step.pt2``.
        int8: write ``step.int8.onnx`` with int8 weights; implies ``onnx``.
        head: adds class probabilities as a second output; it must support streaming (else see `export_video`).
        features: one or several videos, (T_i, D_in) at the model's rate, on which the error of int8 is measured too.
        source, rate: the model's name and its rate in Hz for the description. rate None: that of the head.

    Returns:
        The content of ``step.json``.

    Raises:
        InputError: a model without bounded streaming memory, incompatible arguments, a missing package, a folder with
            other content, or an exported file with wrong results.
    """
    onnx = onnx or int8
    videos = [features] if isinstance(features, np.ndarray) else list(features)
    if videos and not int8:
        raise InputError("features are only used to measure the error of int8; add --int8")
    if not onnx and not torch_program:
        raise InputError("nothing to export: choose an ONNX file, a torch program, or both")
    if onnx:
        onnx_files.need_packages()
    model, head = limit_window(model, window), _portable(head)
    frames = frames_a_call(model, head) if frames is None else frames
    step = ExportedStep(model, frames, streams, head).eval()
    real = check.video_trial(step, videos)
    with owning(folder), replacing(Path(folder), FILES) as temporary, torch.no_grad():
        temporary.mkdir()
        program = torch.export.export(step, (torch.zeros(step.input_shape), *step.initial()), strict=False)
        reference = check.prepare(model, step)
        trial, files = reference.trial, {}
        if torch_program:
            torch.export.save(program, temporary / TORCH)
            got = trial.run(torch.export.load(temporary / TORCH).module(), step.frames)
            files[TORCH] = _check_step(TORCH, got, reference)
        if onnx:
            onnx_files.write(program, temporary / ONNX, [*step.outputs], [tensor.name for tensor in step.state])
            fine = onnx_files.OnnxStep(temporary / ONNX)
            got = trial.run(fine, step.frames)
            files[ONNX] = _check_step(ONNX, got, reference)
        if int8:
            onnx_files.write_int8(temporary / ONNX, temporary / INT8)
            rough = onnx_files.OnnxStep(temporary / INT8)
            files[INT8] = {"compared_with": ONNX, **_differences(trial.run(rough, step.frames), got)}
            if videos:
                outputs = [real.run(function, step.frames) for function in (rough, fine)]
                files[INT8]["features"] = {"videos": len(videos), **_differences(*outputs)}
        record = {**_record(model, step, window, source, _rate(head, rate)), "files": files}
        record["classes"] = _classes(head)
        write_json(temporary / RECORD, record)
    return record


def export_video(
    model: PJEPA,
    folder: Path | str,
    *,
    onnx: bool = True,
    torch_program: bool = False,
    head: Head | None = None,
    source: str | None = None,
    rate: str | Fraction | None = None,
) -> dict[str, Any]:
    """Export a model for whole videos to ``video.onnx`` or ``video.pt2``, with a description in ``video.json``.

    The graph is ``video(features) -> (latents, probabilities)`` for videos of any length; it supports models and heads
    that use future frames. The folder is only created if every file, read back, gives the results of `PJEPA.encode`.

    Args:
        model: not an ORACLE model.
        folder, onnx, torch_program, source, rate: as in `export_step`.
        head: adds class probabilities as a second output.

    Returns:
        The content of ``video.json``.

    Raises:
        InputError: an ORACLE model, a missing package, a folder with other content, or an exported file with wrong
            results.
    """
    if not onnx and not torch_program:
        raise InputError("nothing to export: choose an ONNX file, a torch program, or both")
    if onnx:
        onnx_files.need_packages()
    model, head = limit_window(model, None), _portable(head)
    video = ExportedVideo(model, head).eval()
    with owning(folder), replacing(Path(folder), VIDEO_FILES) as temporary:
        temporary.mkdir()
        with torch.enable_grad():  # disables chunking in the blocks
            program = torch.export.export(
                video,
                (torch.zeros(1, EXAMPLE, video.width),),
                dynamic_shapes={"features": {1: torch.export.Dim.DYNAMIC}},
                strict=False,
            )
        files: dict[str, Any] = {}
        with torch.no_grad():
            trials = check.whole_videos(model, head, LEAST)
            if torch_program:
                torch.export.save(program, temporary / VIDEO_TORCH)
                function = torch.export.load(temporary / VIDEO_TORCH).module()
                files[VIDEO_TORCH] = _check_video(VIDEO_TORCH, function, trials)
            if onnx:
                onnx_files.write(program, temporary / VIDEO_ONNX, video.outputs)
                files[VIDEO_ONNX] = _check_video(VIDEO_ONNX, onnx_files.OnnxStep(temporary / VIDEO_ONNX), trials)
        record = {
            **_origin(model, source, _rate(head, rate)),
            "attention": str(model.config.attention),
            "least_frames": LEAST,
            "features": _describe("features", (1, None, video.width)),
            "outputs": [
                _describe(name, (1, None, width))
                for name, width in zip(video.outputs, (model.latent_dim(), head.classes if head else 0), strict=False)
            ],
            "classes": _classes(head),
            "files": files,
        }
        write_json(temporary / VIDEO_RECORD, record)
    return record


def _check_video(
    name: str, function: check.StepFunction, trials: Sequence[tuple[torch.Tensor, check.Outputs]]
) -> dict[str, Any]:
    """The record of a file. Raises InputError if its results are wrong."""
    got = [tuple(function(features)) for features, _ in trials]
    joined = [
        tuple(torch.cat(part, dim=1) for part in zip(*outputs, strict=True))
        for outputs in (got, [right for _, right in trials])
    ]
    for output, *pair in zip(("latents", "probabilities"), *joined, strict=False):
        _check_rounding(name, output, check.difference(*pair), "PJEPA.encode")
    return {"compared_with": "PJEPA.encode", **_differences(*joined)}


def _portable(head: Head | None) -> Head | None:
    """A float32 copy on the CPU."""
    return None if head is None else copy.deepcopy(head).cpu().float().eval()


def _rate(head: Head | None, rate: str | Fraction | None) -> str | None:
    """The rate in Hz, or that of the head."""
    found = (head.origin.get("rate") if head else None) if rate is None else rate
    return None if found is None else str(found)


def _classes(head: Head | None) -> list[str] | None:
    return [head.name(index) for index in range(head.classes)] if head else None


def limit_window(model: PJEPA, window: int | None) -> PJEPA:
    """A float32 copy on the CPU whose streaming attention is limited to ``window`` frames.

    Raises:
        InputError: the model already has a window, or the window is below 1.
    """
    twin = copy.deepcopy(model).cpu().float().eval()
    pattern = model.config.stream_attention
    if window is None or pattern is None:
        return twin
    if pattern.window is not None:
        raise InputError(f"this model already has a window ({pattern}); remove --window {window}")
    if window < 1:
        raise InputError(f"--window must be at least 1, not {window}")
    twin.config = model.config.limited(window)
    return twin


def _describe(name: str, shape: Sequence[int | None], dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    return {"name": name, "shape": list(shape), "dtype": str(dtype).removeprefix("torch.")}


def _origin(model: PJEPA, source: str | None, rate: str | None) -> dict[str, Any]:
    """The common part of all records."""
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "keystep": __version__,
        "model": source,
        "weights": weights_signature(model),
        "rate": rate,
    }


def _record(
    model: PJEPA, step: ExportedStep, window: int | None, source: str | None, rate: str | None
) -> dict[str, Any]:
    state = []
    for tensor in step.state:
        entry = _describe(tensor.name, tensor.shape, tensor.dtype)
        names = {"input": entry.pop("name"), "output": onnx_files.NEXT + tensor.name}
        state.append({**names, **entry, "initial": 0, "shareable": tensor.shareable})
    return {
        **_origin(model, source, rate),
        "attention": str(step.pattern),
        "limited_to_window": window,
        "streams": step.streams,
        "frames": step.frames,
        "delay_frames": step.frames - 1,
        "features": _describe("features", step.input_shape),
        "outputs": [_describe(name, shape) for name, shape in step.outputs.items()],
        "state": state,
    }


def _check_step(name: str, got: check.Outputs, reference: check.Reference) -> dict[str, Any]:
    """The record of a file. Raises InputError if its results are wrong.

    Probabilities are compared with those of the file's own latents, because a steep head amplifies rounding of the
    latents.
    """
    _check_rounding(name, "latents", check.difference(got[0], reference.right[0]))
    if reference.head is not None:
        _check_rounding(name, "probabilities", check.difference(got[1], reference.answers(got[0])))
    return {"compared_with": "keystep.stream", **_differences(got, reference.right)}


def _check_rounding(
    name: str, output: str, difference: check.OutputDifference, compared_with: str = "keystep.stream"
) -> None:
    if not difference.is_rounding:
        raise InputError(
            f"{name} differs from {compared_with}: {output} differ by {difference.largest:.1e}; nothing was written"
        )


def _differences(got: check.Outputs, right: check.Outputs) -> dict[str, Any]:
    """Differences between two runs, for the record."""
    latents, *rest = map(check.difference, got, right)
    record: dict[str, Any] = {
        "frames": latents.frames,
        "largest_difference": latents.largest,
        "mean_difference": latents.mean,
        "largest_latent": latents.scale,
    }
    for probabilities in rest:
        record["probabilities"] = {
            "largest_difference": probabilities.largest,
            "mean_difference": probabilities.mean,
            "changed": probabilities.changed,
        }
    return record
