"""Safe reading of the authors' files."""

from __future__ import annotations

import logging
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from keystep.errors import InputError, named, one_line, quoted
from keystep.reading import check_regular, is_archive
from keystep.unpickling import load_torch, unwrapped

_ZIP = b"PK\x03\x04"
_ORDINARY = {
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool),
}
_DAMAGE = (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
"""Errors of torch and zipfile for unexpected data."""

log = logging.getLogger(__name__)


def read_payload(path: Path, size: int | None = None, *, verify: bool = False) -> dict[str, Any]:
    """Read the dictionary in a torch file, with memory-mapped tensors.

    The file is read with ``weights_only=True``, so a file that would run code is rejected. Tensors, including those in
    nested dictionaries, are detached, dense, on the CPU and of standard types. (Files of the format before torch 1.6
    cannot be memory-mapped; they are read completely, with a warning.)

    Args:
        path: of the file.
        size: expected number of bytes, for the message about a truncated file.
        verify: compare the file with its checksums first, which torch does not do.

    Raises:
        InputError: a missing or damaged file, one with more than plain tensors, or not a dictionary.
    """
    check_file(path, size)
    if verify:
        check_sums(path)
    payload = _load(path)
    if not isinstance(payload, dict):
        raise InputError(f"{path}: contains a {type(payload).__name__}; expected a dictionary")
    return {_text(path, key): _plain_inside(path, key, value) for key, value in payload.items()}


def read_tensor(path: Path) -> Tensor:
    """Read the tensor in a torch file, with the checks of `read_payload`.

    Raises:
        InputError: a missing or damaged file, or not a single plain tensor.
    """
    check_file(path)
    payload = _load(path)
    if not isinstance(payload, Tensor):
        raise InputError(f"{path}: contains a {type(payload).__name__}; expected a tensor")
    found: Tensor = _plain(path, "it", payload)
    return found


def _load(path: Path) -> Any:
    """Load a torch file without running code."""
    payload = load_torch(path)
    if not _is_zip(path):
        log.warning("%s: torch's old format cannot be memory-mapped; it was read into memory completely", path)
    return payload


def check_file(path: Path, size: int | None = None) -> None:
    """Check the start and end of a file, to detect failed downloads before torch reads it.

    Raises:
        InputError: a missing or empty file, a Git LFS pointer, text, or a truncated zip file.
    """
    check_regular(path)
    try:
        with path.open("rb") as file:
            head = file.read(512)
            held = file.seek(0, 2)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: not a complete torch file: {error.strerror}") from error
    if not head:
        raise InputError(f"{path}: an empty file; download it again")
    if head.startswith(b"version https://git-lfs"):
        raise InputError(f"{path}: a Git LFS pointer, not the file itself; run 'git lfs pull'")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        raise InputError(f"{path}: a web page (such as a login or error page), not the file; download it again")
    if _ZIP.startswith(head[:4]) and not is_archive(path):
        whole = "" if size is None else f" of {size:,}"
        raise InputError(f"{path}: truncated: {held:,} bytes{whole}; download it again")
    if head[0] < 0x80 and all(byte >= 0x20 or byte in b"\t\n\r\f" for byte in head):
        begin = quoted(head[:40].decode(errors="replace"))
        raise InputError(f"{path}: a text file, not a torch file; it starts with {begin}")


def check_sums(path: Path) -> None:
    """Compare every part of a file with its checksum (files in torch's old format have none).

    Raises:
        InputError: a checksum that does not match.
    """
    if not _is_zip(path):
        return
    try:
        with zipfile.ZipFile(path) as file:
            bad = file.testzip()
    except (*_DAMAGE, zipfile.BadZipFile, zlib.error, struct.error) as error:
        raise InputError(f"{path}: damaged: {_line(error)}; download it again") from error
    if bad is not None:
        raise InputError(f"{path}: damaged: {named(bad)} does not match its checksum; download it again")


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def _line(error: BaseException) -> str:
    """The first line of an error message."""
    lines = str(error).strip().splitlines()
    return one_line(lines[0]) if lines else type(error).__name__


def _text(path: Path, key: object) -> str:
    if not isinstance(key, str):
        raise InputError(f"{path}: keys must be strings, not {quoted(key)}")
    return key


def _plain_inside(path: Path, key: str, value: Any) -> Any:
    """Convert tensors in a value, or in a dictionary one level deep, to plain tensors."""
    if isinstance(value, Mapping):
        return {name: _plain(path, name, item) for name, item in value.items()}
    return _plain(path, key, value)


def _plain(path: Path, name: object, value: Any) -> Any:
    """Convert a tensor to plain data: detached, dense, and completely stored in the file."""
    if not isinstance(value, Tensor):
        return value
    kind = str(value.dtype).removeprefix("torch.")
    if value.layout != torch.strided or value.is_quantized or value.dtype not in _ORDINARY:
        layout = str(value.layout).removeprefix("torch.")
        raise InputError(f"{path}: {quoted(name)} is a {layout} {kind} tensor; expected a dense one of a standard type")
    if value.device.type != "cpu":
        raise InputError(f"{path}: {quoted(name)} has a shape but no data ({value.device} tensor)")
    held = value.untyped_storage().nbytes()
    if value.numel() * value.element_size() > held:
        raise InputError(f"{path}: {quoted(name)} has shape {tuple(value.shape)} ({kind}), but only {held:,} bytes")
    return value.detach().resolve_neg()


def find_state_dict(path: Path, payload: Mapping[str, Any], *wrappers: str) -> dict[str, Tensor]:
    """The state dict under the first of the keys ``wrappers`` that exists, or the payload itself.

    Raises:
        InputError: an entry is not a finite floating-point tensor.
    """
    found = next((payload[key] for key in wrappers if key in payload), payload)
    if not isinstance(found, Mapping):
        raise InputError(f"{path}: its {wrappers[0]} is a {type(found).__name__}, not a state dict")
    for name, value in found.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, Tensor) else f"a {type(value).__name__}"
            what = f"{quoted(name)} is {kind}"
            raise InputError(f"{path}: not a state dict of P-JEPA: {what}, not a tensor of weights")
        if not bool(value.isfinite().all()):
            what = f"{quoted(name)} has NaN or infinite values"
            raise InputError(f"{path}: {what}; the file is damaged or the training failed")
    return unwrapped({_text(path, name): value for name, value in found.items()})
