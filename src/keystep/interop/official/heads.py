"""The authors' linear heads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from keystep.errors import InputError, named
from keystep.heads.linear import Affine, LinearHead, linear_head
from keystep.interop.official.reading import find_state_dict, read_payload

PLAIN = ("fc", "classifier")
FOREGROUND, ACTIVITY = "foreground_fc", "activity_fc"


def load_head(path: Path | str, background: int = 0) -> LinearHead:
    """Load a linear head from one of the authors' files.

    Args:
        path: of the file.
        background: class id of the background, for heads with a separate activity output (EgoProceL: 0).

    Raises:
        InputError: a missing, damaged or unsafe file, or not a linear head.
    """
    path = Path(path)
    tensors = find_state_dict(path, read_payload(path, verify=True), "model_state_dict", "state_dict", "model")
    names = sorted({name.rpartition(".")[0] for name in tensors})
    if sorted(tensors) != sorted(f"{name}.{part}" for name in names for part in ("weight", "bias")):
        raise InputError(f"{path}: not a linear head: it contains {_some(tensors)}...")
    layers = {name: _affine(path, name, tensors) for name in names}
    if names == [ACTIVITY, FOREGROUND]:
        if len(layers[ACTIVITY].bias) != 2 or layers[ACTIVITY].weight.shape[1] != layers[FOREGROUND].weight.shape[1]:
            raise InputError(f"{path}: {ACTIVITY} is {tuple(layers[ACTIVITY].weight.shape)}; expected (2, D)")
        classes = len(layers[FOREGROUND].bias) + 1
        if not 0 <= background < classes:
            raise InputError(f"{path}: background {background} is not one of its {classes} classes")
        return linear_head(layers[FOREGROUND], layers[ACTIVITY], background)
    if len(names) == 1 and names[0] in PLAIN:
        return linear_head(layers[names[0]])
    known = f"{' or '.join(PLAIN)}, or {FOREGROUND} with {ACTIVITY}"
    raise InputError(f"{path}: unknown linear head with layers {_some(names)}; expected {known}")


def _some(names: Iterable[str]) -> str:
    """The first three names."""
    return ", ".join(map(named, sorted(names)[:3]))


def _affine(path: Path, name: str, tensors: dict[str, Tensor]) -> Affine:
    weight, bias = (tensors[f"{name}.{part}"].to(torch.float32, copy=True) for part in ("weight", "bias"))
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise InputError(f"{path}: {name} is not affine: weight {tuple(weight.shape)}, bias {tuple(bias.shape)}")
    return Affine(weight, bias)
