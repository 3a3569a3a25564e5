"""Opening the authors' files without trusting them."""

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
"""What torch and zipfile raise about bytes that are not what they expect."""

log = logging.getLogger(__name__)


def read_payload(path: Path, size: int | None = None, *, verify: bool = False) -> dict[str, Any]:
    """The dictionary in a torch file; its tensors stay on disk, memory-mapped, until they are used.

    Read with ``weights_only=True``: a file that would run code is refused. Tensors come plain (detached, dense, on the
    CPU, of ordinary types), those of dictionaries inside of it too. (Files of the format before torch 1.6 cannot be
    mapped; they are read whole, with a warning.)

    Args:
        size: bytes that a file of this name should have, for the message about one that was cut off.
        verify: compare all of the file with its checksums first (torch does not).

    Raises:
        InputError: no such file, a damaged one, one with more than plain tensors, or no dictionary.
    """
    check_file(path, size)
    if verify:
        check_sums(path)
    payload = _load(path)
    if not isinstance(payload, dict):
        raise InputError(f"{path}: holds a {type(payload).__name__}, expected names and values")
    return {_text(path, key): _plain_inside(path, key, value) for key, value in payload.items()}


def read_tensor(path: Path) -> Tensor:
    """The one tensor in a torch file, with the care of `read_payload`.

    Raises:
        InputError: no such file, a damaged one, or one that holds anything but a plain tensor.
    """
    check_file(path)
    payload = _load(path)
    if not isinstance(payload, Tensor):
        raise InputError(f"{path}: holds a {type(payload).__name__}, expected one tensor")
    found: Tensor = _plain(path, "it", payload)
    return found


def _load(path: Path) -> Any:
    """What is in a torch file; code in it is never run."""
    payload = load_torch(path)
    if not _is_zip(path):
        log.warning("%s: torch's old format cannot be memory-mapped; all of it was read into memory", path)
    return payload


def check_file(path: Path, size: int | None = None) -> None:
    """Look at a file's ends: what a broken download leaves is told apart before torch sees it.

    Raises:
        InputError: no such file, an empty one, a pointer of Git LFS, text, or a zip file that was cut off.
    """
    check_regular(path)
    try:
        with path.open("rb") as file:
            head = file.read(512)
            held = file.seek(0, 2)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: not a whole torch file: {error.strerror}") from error
    if not head:
        raise InputError(f"{path}: an empty file; download it again")
    if head.startswith(b"version https://git-lfs"):
        raise InputError(f"{path}: a pointer of Git LFS, not the file itself; run 'git lfs pull'")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        raise InputError(f"{path}: a web page, such as a login or an error, not the file; download it again")
    if _ZIP.startswith(head[:4]) and not is_archive(path):
        whole = "" if size is None else f" of {size:,}"
        raise InputError(f"{path}: cut off: {held:,} bytes{whole}; download it again")
    if head[0] < 0x80 and all(byte >= 0x20 or byte in b"\t\n\r\f" for byte in head):
        begin = quoted(head[:40].decode(errors="replace"))
        raise InputError(f"{path}: a text file, no torch file; it begins with {begin}")


def check_sums(path: Path) -> None:
    """Compare every part of a file with its checksum (files of torch's old format have none).

    Raises:
        InputError: a part that does not fit.
    """
    if not _is_zip(path):
        return
    try:
        with zipfile.ZipFile(path) as file:
            bad = file.testzip()
    except (*_DAMAGE, zipfile.BadZipFile, zlib.error, struct.error) as error:
        raise InputError(f"{path}: damaged: {_line(error)}; download it again") from error
    if bad is not None:
        raise InputError(f"{path}: damaged: {named(bad)} in it does not fit its checksum; download it again")


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def _line(error: BaseException) -> str:
    """The first line of a foreign error."""
    lines = str(error).strip().splitlines()
    return one_line(lines[0]) if lines else type(error).__name__


def _text(path: Path, key: object) -> str:
    if not isinstance(key, str):
        raise InputError(f"{path}: has {quoted(key)} among its names; names are text")
    return key


def _plain_inside(path: Path, key: str, value: Any) -> Any:
    """Plain tensors for a value and for what a dictionary holds; nothing deeper is ever read as tensors."""
    if isinstance(value, Mapping):
        return {name: _plain(path, name, item) for name, item in value.items()}
    return _plain(path, key, value)


def _plain(path: Path, name: object, value: Any) -> Any:
    """A tensor as data: no gradients, and nothing that numpy cannot see or that is not in the file."""
    if not isinstance(value, Tensor):
        return value
    kind = str(value.dtype).removeprefix("torch.")
    if value.layout != torch.strided or value.is_quantized or value.dtype not in _ORDINARY:
        layout = str(value.layout).removeprefix("torch.")
        raise InputError(f"{path}: {quoted(name)} is a {layout} {kind} tensor; expected dense numbers of usual types")
    if value.device.type != "cpu":
        raise InputError(f"{path}: {quoted(name)} has a shape but no numbers ({value.device} tensor)")
    held = value.untyped_storage().nbytes()
    if value.numel() * value.element_size() > held:
        raise InputError(f"{path}: {quoted(name)} claims {tuple(value.shape)} {kind} numbers of {held:,} bytes")
    return value.detach().resolve_neg()


def tensors_of(path: Path, payload: Mapping[str, Any], *wrappers: str) -> dict[str, Tensor]:
    """A state dict: that under the first of the keys ``wrappers`` that is there, or else the payload itself.

    Raises:
        InputError: something in it is no finite floating tensor.
    """
    found = next((payload[key] for key in wrappers if key in payload), payload)
    if not isinstance(found, Mapping):
        raise InputError(f"{path}: its {wrappers[0]} is a {type(found).__name__}, no state dict")
    for name, value in found.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, Tensor) else f"a {type(value).__name__}"
            what = f"{quoted(name)} is {kind}"
            raise InputError(f"{path}: {what}, not a tensor of weights; this is no state dict of P-JEPA's")
        if not bool(value.isfinite().all()):
            what = f"{quoted(name)} holds NaN or infinity"
            raise InputError(f"{path}: {what}; the file is damaged or the training failed")
    return unwrapped({_text(path, name): value for name, value in found.items()})
