"""Torch files of anybody: tensors and plain values are read, and no code that they name is ever run.

Training code leaves more in a file than weights: numpy numbers, an ``argparse.Namespace`` of its options, paths. Those
few kinds are read as inert values; a file that names any other class or function is refused.
"""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from keystep.errors import InputError, named, one_line
from keystep.reading import check_regular, is_archive

Value = TypeVar("Value")
_DAMAGE = (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
"""What torch and zipfile raise about bytes that are not what they expect."""
INNER = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What wrappers put into names, wherever they wrap."""
OUTER = ("module.", "model.", "_forward_module.", "network.", "net.", "ema_model.", "ema.")
"""What wrappers put before all names."""
COUNTERS = ("n_averaged",)
"""Numbers of wrappers that stand beside the weights."""


def load_torch(path: Path) -> Any:
    """What is in a torch file, on the CPU, memory-mapped where its format allows that.

    Raises:
        InputError: missing, damaged, or one that names other classes than those of plain values.
    """
    check_regular(path)
    mapped = is_archive(path)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_stand_ins()):
            warnings.simplefilter("ignore")  # torch warns of odd pickles; what it cannot read it refuses
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        names = _refused(path, mapped, str(error))
        what = f" ({', '.join(map(named, names[:3]))})" if names else ""
        raise InputError(
            f"{path}: holds more than plain tensors and numbers{what}, or is damaged; not loaded; save its state dict "
            "alone"
        ) from error
    except (*_DAMAGE, MemoryError, AssertionError, struct.error, zipfile.BadZipFile) as error:
        lines = str(error).strip().splitlines()
        line = one_line(lines[0]) if lines else type(error).__name__
        raise InputError(f"{path}: not a whole torch file: {line}") from error


def unwrapped(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Tensors by the names that they have in the network itself, without what wrappers of training put into those.

    A name before all names is taken off only where it stands before every one of them, counters aside, and where no two
    become the same.
    """
    found = {_without_inner(name): value for name, value in tensors.items()}
    if len(found) < len(tensors):
        return dict(tensors)
    while True:
        weights = {name: value for name, value in found.items() if name not in COUNTERS}
        prefix = next((each for each in OUTER if weights and all(name.startswith(each) for name in weights)), None)
        if prefix is None:
            return found
        found = {name.removeprefix(prefix): value for name, value in weights.items()}


def _without_inner(name: str) -> str:
    for inner in INNER:
        name = name.replace(inner, "")
    return name


class _DtypeName:
    """Stands for ``numpy.dtype``: remembers its name and byte order."""

    def __init__(self, name: object = "", *_: object) -> None:
        self.name, self.order = str(name), "<"

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and isinstance(state[1], str):
            self.order = state[1]


class _Inert:
    """Stands for an object whose content is of no use here: takes whatever it is made of."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _number(kind: object, data: object = b"") -> Any:
    """Stands for the function that makes numpy's numbers; gives Python's."""
    if not isinstance(kind, _DtypeName) or not re.fullmatch(r"[biuf][1248]", kind.name) or not isinstance(data, bytes):
        return None
    try:
        return np.frombuffer(data, f"{kind.order if kind.order in '<>' else '='}{kind.name}")[0].item()
    except (ValueError, TypeError, IndexError):
        return None


def _nothing(*_: object) -> _Inert:
    return _Inert()


def _stand_ins() -> list[Any]:
    """(what is used, the name in the file) of the harmless kinds that training code leaves beside weights."""
    scalars = [(_number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    arrays = [(_nothing, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    paths = [f"pathlib.{kind}" for kind in ("PosixPath", "WindowsPath", "Path", "PurePosixPath", "PureWindowsPath")]
    inert = ["numpy.ndarray", "argparse.Namespace", "types.SimpleNamespace", *paths]
    return [*scalars, *arrays, (_DtypeName, "numpy.dtype"), *((_Inert, name) for name in inert)]


def _refused(path: Path, mapped: bool, message: str) -> list[str]:
    """Names of the classes and functions in a file that are not read."""
    allowed = {name for _, name in _stand_ins()}
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path) if mapped else []
    except (*_DAMAGE, pickle.UnpicklingError):
        found = []
    return [name for name in found if name not in allowed] or re.findall(r"GLOBAL ([\w.]+)", message)[:1]
