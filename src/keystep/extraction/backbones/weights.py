"""Published weights: safe reading, and hashes that identify them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from keystep.errors import InputError
from keystep.persistence import load_tensors
from keystep.reading import read_npz
from keystep.unpickling import is_pickle, load_arrays, load_torch, unwrapped

MOST_BYTES = 4 << 30
WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys that checkpoints commonly use for the state dict."""


def read_tensors(path: Path, inside: str | Sequence[str] | None = None) -> dict[str, Tensor]:
    """Read the weights in a file of any supported format. Code in it is never run.

    Args:
        path: ``.safetensors``, ``.npz``, a torch file, or a pickle of nested dictionaries of arrays (JAX), whose keys
            are joined by ``|``.
        inside: key of the state dict in a torch file, or several, of which the first that exists is used. By default,
            the common ones are tried.

    Returns:
        parameter name -> tensor on the CPU.

    Raises:
        InputError: a missing or damaged file, one of another format, or no tensors under that key.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file of weights")
    if path.suffix == ".safetensors":
        return unwrapped(load_tensors(path))
    if path.suffix == ".npz":
        return {name: torch.from_numpy(array) for name, array in read_npz(path, MOST_BYTES).items()}
    if is_pickle(path):
        return load_arrays(path)
    found = load_torch(path)  # memory-mapped, so the optimiser's state is never read
    keys = WRAPPERS if inside is None else (inside,) if isinstance(inside, str) else tuple(inside)
    for key in keys:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
            break
    else:
        if inside is not None:
            raise InputError(f"{path}: contains no {' or '.join(map(repr, keys))}")
    tensors = (
        {name: value for name, value in found.items() if isinstance(value, Tensor)} if isinstance(found, dict) else {}
    )
    if not tensors:
        raise InputError(f"{path}: contains no named tensors")
    return unwrapped(tensors)


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 in hex of all names, types, shapes and values, independent of their order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
