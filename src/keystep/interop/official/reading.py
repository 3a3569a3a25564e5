"""Opening the authors' files without trusting them."""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from keystep.errors import InputError

log = logging.getLogger(__name__)


def read_payload(path: Path) -> dict[str, Any]:
    """The dictionary in a torch file; its tensors stay on disk, memory-mapped, until they are used.

    Read with ``weights_only=True``: a file that would run code is refused. (Files of the format before torch 1.6 cannot
    be mapped; they are read whole, with a warning.)

    Raises:
        InputError: no such file, a damaged one, one with more than plain tensors, or no dictionary.
    """
    try:
        mapped = _is_zip(path)
        if not mapped:
            log.warning("%s: torch's old format cannot be memory-mapped; all of it is read into memory", path)
        payload = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f" ({found[1]})" if found else ""
        raise InputError(
            f"{path}: holds more than plain tensors and numbers{what}, or is damaged; not loaded"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path}: not a whole torch file: {line}") from error
    if not isinstance(payload, dict):
        raise InputError(f"{path}: holds a {type(payload).__name__}, expected names and values")
    return payload


def _is_zip(path: Path) -> bool:
    """By its first bytes, so that a zip that was cut off counts as one."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


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
            raise InputError(f"{path}: {name!r} is {kind}, not a tensor of weights; this is no state dict of P-JEPA's")
        if not bool(value.isfinite().all()):
            raise InputError(f"{path}: {name!r} holds NaN or infinity; the file is damaged or the training failed")
    return dict(found)
