"""Published weights: safe reading, and hashes that identify them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from keystep.errors import InputError, named
from keystep.persistence import load_tensors
from keystep.reading import check_regular, read_json, read_npz
from keystep.unpickling import is_pickle, load_arrays, load_torch, unwrapped

MOST_BYTES = 4 << 30
WRAPPERS = (
    *("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params", "checkpoint"),
    *("state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "ema"),
)
"""Keys that checkpoints commonly use for the state dict, perhaps one inside another; averages last."""
FOREIGN = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; fetch it with 'git lfs pull'",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"<": "a web page, not weights; download it again",
}
"""Starts of files that are often found where weights should be."""


def read_tensors(path: Path, inside: str | Sequence[str] | None = None) -> dict[str, Tensor]:
    """Read the weights in a file of any supported format. Code in it is never run.

    Args:
        path: ``.safetensors``, also in several files with an index (``.index.json``), ``.npz``, a torch file, or a
            pickle of nested dictionaries of arrays (JAX), whose keys are joined by ``|``.
        inside: key of the state dict in a torch file, or several, of which the first that exists is used. By default,
            the common ones are tried.

    Returns:
        parameter name -> tensor on the CPU.

    Raises:
        InputError: a missing or damaged file, one of another format, or no tensors under that key.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file of weights")
    if path.name.endswith(".index.json"):
        return unwrapped({name: value for part in listed_files(path) for name, value in read_tensors(part).items()})
    head = _head(path)
    if _is_safetensors(head) or path.suffix == ".safetensors":
        return unwrapped(load_tensors(path))
    if path.suffix == ".npz":
        return {name: torch.from_numpy(array) for name, array in read_npz(path, MOST_BYTES).items()}
    if is_pickle(path):
        return load_arrays(path)
    found = load_torch(path)  # memory-mapped, so the optimiser's state is never read
    if inside is not None:
        keys = (inside,) if isinstance(inside, str) else tuple(inside)
        parts = [found[key] for key in keys if isinstance(found, dict) and isinstance(found.get(key), dict)]
        if not parts:
            raise InputError(f"{path}: contains no {' or '.join(map(repr, keys))}")
        found = parts[0]
    return unwrapped(_named_tensors(path, _state_dict(found)))


def listed_files(index: Path) -> list[Path]:
    """Files of weights that an index (``.index.json``) of `transformers` lists.

    Raises:
        InputError: it lists none, or some outside its folder.
    """
    places = read_json(index).get("weight_map")
    names = sorted({str(file) for file in places.values()}) if isinstance(places, dict) else []
    if not names or any(Path(name).name != name or name.endswith(".json") for name in names):
        raise InputError(f"{index}: does not list the files of its folder that contain the weights")
    return [index.parent / name for name in names]


def _head(path: Path) -> bytes:
    """First bytes of a file, unless it is of a foreign kind."""
    check_regular(path)
    with path.open("rb") as file:
        head = file.read(64)
    for start, what in FOREIGN.items():
        if head.lstrip().startswith(start) and not _is_safetensors(head):
            raise InputError(f"{path}: {what}")
    return head


def _is_safetensors(head: bytes) -> bool:
    """Whether a file begins as safetensors do: any eight bytes, the length of the header, and JSON."""
    return head[8:9] == b"{"


def _state_dict(found: Any) -> Any:
    """The state dict in a checkpoint: what is under the first of `WRAPPERS` that has tensors, as deep as they go."""
    for key in WRAPPERS if isinstance(found, dict) else ():
        if isinstance(found.get(key), dict) and _has_tensors(found[key]):
            return _state_dict(found[key])
    return found


def _has_tensors(found: dict[Any, Any]) -> bool:
    return any(
        isinstance(value, Tensor) or (isinstance(value, dict) and _has_tensors(value)) for value in found.values()
    )


def _named_tensors(path: Path, found: Any) -> dict[str, Tensor]:
    values = found if isinstance(found, dict) else {}
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor) and isinstance(name, str)}
    if not tensors:
        parts = [named(str(key)) for key, value in values.items() if isinstance(value, dict) and _has_tensors(value)]
        where = f"; there are some in {', '.join(parts[:5])}: save one of these" if parts else ""
        raise InputError(f"{path}: contains no named tensors{where}")
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
            raise InputError(f"{path}: {named(name)} is sparse, quantized or without data; save plain tensors")
    return tensors


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
