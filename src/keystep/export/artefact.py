"""A folder that runs a model's stream on another machine: the step as a program, and what one needs to know of it."""

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
"""Frames of the video that a graph is made from."""
LEAST = 65
"""Frames that a graph of whole videos is promised, and checked, to take at least."""


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
    """Write ``step.onnx``, ``step.int8.onnx`` and ``step.pt2`` as asked for, and ``step.json``; return what that says.

    The folder appears once every file has been read back and gives the numbers of `keystep.stream`.

    Args:
        frames: frames a call; None: the fewest that are answered together (see `frames_a_call`).
        window: for models without one: how many frames attention is limited to from now on.
        int8: also with int8 weights; brings ``step.onnx`` with it.
        head: gives class probabilities as a second output; it needs a causal form (see `export_video`).
        features: one video or several, (T, D_in) at the model's rate, on which the cost of int8 is measured as well.
        source, rate: what to write down as the model's name and its rate in Hz (None: the head's).

    Raises:
        InputError: the model cannot run on a stream of bounded memory, numbers do not fit, a package is missing, the
            folder holds something else, or a file does not give the right numbers.
    """
    onnx = onnx or int8
    videos = [features] if isinstance(features, np.ndarray) else list(features)
    if videos and not int8:
        raise InputError("features measure what int8 costs, and no int8 file is asked for; add --int8")
    if not onnx and not torch_program:
        raise InputError("nothing to write: choose an ONNX file, a torch program, or both")
    if onnx:
        onnx_files.need_packages()
    model, head = limited(model, window), _portable(head)
    frames = frames_a_call(model, head) if frames is None else frames
    step = ExportedStep(model, frames, streams, head).eval()
    real = check.of_videos(step, videos)
    with owning(folder), replacing(Path(folder), FILES) as temporary, torch.no_grad():
        temporary.mkdir()
        program = torch.export.export(step, (torch.zeros(step.input_shape), *step.initial()), strict=False)
        reference = check.prepare(model, step)
        trial, files = reference.trial, {}
        if torch_program:
            torch.export.save(program, temporary / TORCH)
            got = trial.run(torch.export.load(temporary / TORCH).module(), step.frames)
            files[TORCH] = _exact(TORCH, got, reference)
        if onnx:
            onnx_files.write(program, temporary / ONNX, [*step.outputs], [tensor.name for tensor in step.state])
            fine = onnx_files.OnnxStep(temporary / ONNX)
            got = trial.run(fine, step.frames)
            files[ONNX] = _exact(ONNX, got, reference)
        if int8:
            onnx_files.write_int8(temporary / ONNX, temporary / INT8)
            rough = onnx_files.OnnxStep(temporary / INT8)
            files[INT8] = {"compared_with": ONNX, **_apart(trial.run(rough, step.frames), got)}
            if videos:
                outputs = [real.run(function, step.frames) for function in (rough, fine)]
                files[INT8]["features"] = {"videos": len(videos), **_apart(*outputs)}
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
    """Write ``video.onnx`` and ``video.pt2`` as asked for, and ``video.json``; return what that says.

    A graph of whole videos of any length, for models and heads that see the future: ``video(features) -> (latents,
    probabilities)``. The folder appears once every file has been read back and gives the numbers of `PJEPA.encode`.

    Raises:
        InputError: an ORACLE model, a package is missing, the folder holds something else, or a file does not give the
            right numbers.
    """
    if not onnx and not torch_program:
        raise InputError("nothing to write: choose an ONNX file, a torch program, or both")
    if onnx:
        onnx_files.need_packages()
    model, head = limited(model, None), _portable(head)
    video = ExportedVideo(model, head).eval()
    with owning(folder), replacing(Path(folder), VIDEO_FILES) as temporary:
        temporary.mkdir()
        with torch.enable_grad():  # where gradients are wanted, nothing is cut into chunks
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
                files[VIDEO_TORCH] = _exact_video(VIDEO_TORCH, function, trials)
            if onnx:
                onnx_files.write(program, temporary / VIDEO_ONNX, video.outputs)
                files[VIDEO_ONNX] = _exact_video(VIDEO_ONNX, onnx_files.OnnxStep(temporary / VIDEO_ONNX), trials)
        record = {
            **_origin(model, source, _rate(head, rate)),
            "attention": str(model.config.attention),
            "least_frames": LEAST,
            "features": _described("features", (1, None, video.width)),
            "outputs": [
                _described(name, (1, None, width))
                for name, width in zip(video.outputs, (model.latent_dim(), head.classes if head else 0), strict=False)
            ],
            "classes": _classes(head),
            "files": files,
        }
        write_json(temporary / VIDEO_RECORD, record)
    return record


def _exact_video(
    name: str, function: check.StepFunction, trials: Sequence[tuple[torch.Tensor, check.Outputs]]
) -> dict[str, Any]:
    """What the record says of a file, unless its numbers are wrong."""
    got = [tuple(function(features)) for features, _ in trials]
    joined = [
        tuple(torch.cat(part, dim=1) for part in zip(*outputs, strict=True))
        for outputs in (got, [right for _, right in trials])
    ]
    for output, *pair in zip(("latents", "probabilities"), *joined, strict=False):
        _check_rounding(name, output, check.difference(*pair), "PJEPA.encode")
    return {"compared_with": "PJEPA.encode", **_apart(*joined)}


def _portable(head: Head | None) -> Head | None:
    """A float32 copy on the CPU."""
    return None if head is None else copy.deepcopy(head).cpu().float().eval()


def _rate(head: Head | None, rate: str | Fraction | None) -> str | None:
    """The rate in Hz: the given one, or the head's."""
    found = (head.origin.get("rate") if head else None) if rate is None else rate
    return None if found is None else str(found)


def _classes(head: Head | None) -> list[str] | None:
    return [head.name(index) for index in range(head.classes)] if head else None


def limited(model: PJEPA, window: int | None) -> PJEPA:
    """A float32 copy on the CPU whose stream attention sees ``window`` frames, where it had no limit.

    Raises:
        InputError: the model has a window of its own.
    """
    twin = copy.deepcopy(model).cpu().float().eval()
    pattern = model.config.stream_attention
    if window is None or pattern is None:
        return twin
    if pattern.window is not None:
        raise InputError(f"this model attends {pattern}: it has a window already; leave out --window {window}")
    if window < 1:
        raise InputError(f"--window {window} leaves a frame without itself; give 1 or more")
    attention = "attention" if pattern == model.config.attention else "live_attention"
    twin.config = model.config.model_copy(update={attention: pattern.model_copy(update={"window": window})})
    return twin


def _described(name: str, shape: Sequence[int | None], dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    return {"name": name, "shape": list(shape), "dtype": str(dtype).removeprefix("torch.")}


def _origin(model: PJEPA, source: str | None, rate: str | None) -> dict[str, Any]:
    """What every record begins with."""
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
        entry = _described(tensor.name, tensor.shape, tensor.dtype)
        names = {"input": entry.pop("name"), "output": onnx_files.NEXT + tensor.name}
        state.append({**names, **entry, "initial": 0, "shareable": tensor.shareable})
    return {
        **_origin(model, source, rate),
        "attention": str(step.pattern),
        "limited_to_window": window,
        "streams": step.streams,
        "frames": step.frames,
        "delay_frames": step.frames - 1,
        "features": _described("features", step.input_shape),
        "outputs": [_described(name, shape) for name, shape in step.outputs.items()],
        "state": state,
    }


def _exact(name: str, got: check.Outputs, reference: check.Reference) -> dict[str, Any]:
    """What the record says of a file, unless its numbers are wrong.

    Its probabilities are judged by its own latents: a steep head makes much of the rounding of latents.
    """
    _check_rounding(name, "latents", check.difference(got[0], reference.right[0]))
    if reference.head is not None:
        _check_rounding(name, "probabilities", check.difference(got[1], reference.answers(got[0])))
    return {"compared_with": "keystep.stream", **_apart(got, reference.right)}


def _check_rounding(
    name: str, output: str, difference: check.Difference, compared_with: str = "keystep.stream"
) -> None:
    if not difference.is_rounding:
        raise InputError(
            f"{name} is not what {compared_with} computes: {output} differ by {difference.largest:.1e}; "
            "nothing was written"
        )


def _apart(got: check.Outputs, right: check.Outputs) -> dict[str, Any]:
    """How far one run is from another, for the record."""
    latents, *rest = map(check.difference, got, right)
    said: dict[str, Any] = {
        "frames": latents.frames,
        "largest_difference": latents.largest,
        "mean_difference": latents.mean,
        "largest_latent": latents.scale,
    }
    for probabilities in rest:
        said["probabilities"] = {
            "largest_difference": probabilities.largest,
            "mean_difference": probabilities.mean,
            "changed": probabilities.changed,
        }
    return said
