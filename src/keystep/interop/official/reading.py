"""Reading the authors' torch files: plain tensors and numbers only, memory-mapped where their format allows it."""

from __future__ import annotations

import logging
import pickle
import re
from pathlib import Path
from typing import Any

import torch

from keystep.errors import InputError

log = logging.getLogger(__name__)


def read_payload(path: Path, mmap: bool = True) -> dict[str, Any]:
    """The dictionary in a torch file, on the CPU; with ``mmap``, its tensors stay on disk until they are used.

    Only ``weights_only=True`` is ever used: a file cannot run code. Files in torch's format of before 2020, which is no
    zip, cannot be mapped; they are read into memory, with a warning.

    Raises:
        InputError: no such file, a damaged one, one with more than plain tensors, or no dictionary in it.
    """
    try:
        mapped = mmap and _is_zip(path)
        if mmap and not mapped:
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
        raise InputError(f"{path}: holds a {type(payload).__name__}, not a dictionary")
    return payload


def _is_zip(path: Path) -> bool:
    """By its first bytes, so that a zip that was cut off counts as one."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"
