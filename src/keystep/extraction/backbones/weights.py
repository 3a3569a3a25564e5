"""Weights of other people: safe reading, and which file it was."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from keystep.errors import InputError
from keystep.persistence import load_tensors
from keystep.reading import read_npz
from keystep.unpickling import load_torch, unwrapped

MOST_BYTES = 4 << 30
WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which checkpoints commonly keep the state dict."""


def read_tensors(path: Path, inside: str | Sequence[str] | None = None) -> dict[str, Tensor]:
    """Names and tensors of a checkpoint: ``.safetensors``, ``.npz`` or torch's own format; code in it is never run.

    Args:
        inside: the key under which the state dict stands, or several of which the first that is there counts; by
            default the usual ones are tried.

    Raises:
        InputError: missing, damaged or of another kind; no tensors under that key.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file of weights")
    if path.suffix == ".safetensors":
        return unwrapped(load_tensors(path))
    if path.suffix == ".npz":
        return {name: torch.from_numpy(array) for name, array in read_npz(path, MOST_BYTES).items()}
    found = load_torch(path)  # mapped: what stands beside the state dict (the optimiser's numbers) is never read
    keys = WRAPPERS if inside is None else (inside,) if isinstance(inside, str) else tuple(inside)
    for key in keys:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
            break
    else:
        if inside is not None:
            raise InputError(f"{path}: holds no {' or '.join(map(repr, keys))}")
    tensors = (
        {name: value for name, value in found.items() if isinstance(value, Tensor)} if isinstance(found, dict) else {}
    )
    if not tensors:
        raise InputError(f"{path}: holds no tensors by name")
    return unwrapped(tensors)


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 in hex of all names, types, shapes and numbers; the order of the names does not matter."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
