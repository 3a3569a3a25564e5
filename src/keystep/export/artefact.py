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
from keystep.export.step import ExportedStep
from keystep.files import replacing, write_json
from keystep.heads import LinearHead
from keystep.persistence import weights_signature
from keystep.pjepa import PJEPA

FORMAT = "keystep-step"
FORMAT_VERSION = 1
RECORD, ONNX, INT8, TORCH = "step.json", "step.onnx", "step.int8.onnx", "step.pt2"
FILES = (RECORD, ONNX, INT8, TORCH)


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
    head: LinearHead | None = None,
    features: np.ndarray | Sequence[np.ndarray] = (),
    source: str | None = None,
    rate: str | Fraction | None = None,
) -> dict[str, Any]:
    """Write ``step.onnx``, ``step.int8.onnx`` and ``step.pt2`` as asked for, and ``step.json``; return what that says.

    The folder appears once every file has been read back and gives the numbers of `keystep.stream`.

    Args:
        frames: frames a call; None: one, or one block for block-causal models.
        window: for models without one: how many frames attention is limited to from now on.
        int8: also with int8 weights; brings ``step.onnx`` with it.
        head: gives class probabilities as a second output.
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
    model = limited(model, window)
    if frames is None:
        pattern = model.config.stream_attention
        frames = (pattern and pattern.block) or 1
    step = ExportedStep(model, frames, streams, head).eval()
    real = check.of_videos(step, videos)
    with replacing(Path(folder), FILES) as temporary, torch.no_grad():
        temporary.mkdir()
        program = torch.export.export(step, (torch.zeros(step.input_shape), *step.initial()))
        trial, right = check.prepare(model, step, head)
        files = {}
        if torch_program:
            torch.export.save(program, temporary / TORCH)
            got = trial.run(torch.export.load(temporary / TORCH).module(), step.frames)
            files[TORCH] = _exact(TORCH, got, right, head)
        if onnx:
            onnx_files.write(step, program, temporary / ONNX)
            fine = onnx_files.OnnxStep(temporary / ONNX)
            got = trial.run(fine, step.frames)
            files[ONNX] = _exact(ONNX, got, right, head)
        if int8:
            onnx_files.write_int8(temporary / ONNX, temporary / INT8)
            rough = onnx_files.OnnxStep(temporary / INT8)
            files[INT8] = {"compared_with": ONNX, **_apart(trial.run(rough, step.frames), got)}
            if videos:
                outputs = [real.run(function, step.frames) for function in (rough, fine)]
                files[INT8]["features"] = {"videos": len(videos), **_apart(*outputs)}
        rate = (head.origin.get("rate") if head else None) if rate is None else rate
        record = {**_record(model, step, window, source, rate), "files": files}
        record["classes"] = [head.name(index) for index in range(head.classes)] if head else None
        write_json(temporary / RECORD, record)
    return record


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


def _record(
    model: PJEPA, step: ExportedStep, window: int | None, source: str | None, rate: str | Fraction | None
) -> dict[str, Any]:
    def described(name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> dict[str, Any]:
        return {"name": name, "shape": list(shape), "dtype": str(dtype).removeprefix("torch.")}

    state = []
    for tensor in step.state:
        entry = described(tensor.name, tensor.shape, tensor.dtype)
        names = {"input": entry.pop("name"), "output": onnx_files.NEXT + tensor.name}
        state.append({**names, **entry, "initial": 0, "shareable": tensor.shareable})
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "keystep": __version__,
        "model": source,
        "weights": weights_signature(model),
        "attention": str(step.columns.pattern),
        "limited_to_window": window,
        "rate": None if rate is None else str(rate),
        "streams": step.streams,
        "frames": step.frames,
        "delay_frames": step.frames - 1,
        "features": described("features", step.input_shape),
        "outputs": [described(name, shape) for name, shape in step.outputs.items()],
        "state": state,
    }


def _exact(name: str, got: check.Outputs, right: check.Outputs, head: LinearHead | None) -> dict[str, Any]:
    """What the record says of a file, unless its numbers are wrong.

    Its probabilities are judged by its own latents: a steep head makes much of the rounding of latents.
    """
    judged = {"latents": check.difference(got[0], right[0])}
    if head is not None:
        judged["probabilities"] = check.difference(got[1], head.probabilities(got[0]))
    for output, difference in judged.items():
        if not difference.is_rounding:
            raise InputError(
                f"{name} is not what keystep.stream computes: {output} differ by {difference.largest:.1e}; "
                "nothing was written"
            )
    return {"compared_with": "keystep.stream", **_apart(got, right)}


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
