"""Safe reading of torch files and pickled arrays: tensors and plain values are read, and no code is ever run.

Training code saves more than weights: numpy scalars, an ``argparse.Namespace`` of its options, paths. These few types
are read as inert values; a file that names any other class or function is refused.
"""

from __future__ import annotations

import math
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from keystep.errors import InputError, named, one_line
from keystep.reading import check_regular, is_archive
from keystep.reading.text import DEPTH

Value = TypeVar("Value")
_DAMAGE = (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
"""Errors of torch and zipfile for unexpected data."""
_LEGACY = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)
"""Start of a file in torch's format before 1.6, which is a pickle as well."""
_FLOATS = ("f2", "f4", "f8")
"""Element types of the arrays that `load_arrays` reads."""
INNER = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""Parts that wrappers insert anywhere in a parameter name."""
OUTER = ("module.", "model.", "_forward_module.", "network.", "net.", "ema_model.", "ema.")
"""Prefixes that wrappers add to all parameter names."""
COUNTERS = ("n_averaged",)
"""Numbers that wrappers store beside the weights."""
FREE = 1 << 24
"""Bytes that a tensor may have beyond those in the file, as one that repeats a row does."""
MOST_VALUES = 20_000_000
"""Maximum number of values in a file; a value that is referred to several times counts each time."""
MOST_PLACES = 1 << 20
"""Maximum number of values that a pickle may refer to again."""


def load_torch(path: Path) -> Any:
    """Load a torch file on the CPU, memory-mapped if its format allows it.

    Raises:
        InputError: a missing or damaged file, or one with other classes than those of plain values.
    """
    check_regular(path)
    mapped = is_archive(path)
    stand_ins: list[Any] = [(stand_in, name) for name, stand_in in _STAND_INS.items()]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
            warnings.simplefilter("ignore")  # torch warns about odd pickles, and refuses what it cannot read
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        check_values(found)
        return found
    except pickle.UnpicklingError as error:
        names = _refused(path, mapped, str(error))
        what = f" ({', '.join(map(named, names[:3]))})" if names else ""
        raise InputError(
            f"{path}: contains more than plain tensors and numbers{what}, or is damaged; not loaded; save only its "
            "state dict"
        ) from error
    except (*_DAMAGE, MemoryError, AssertionError, struct.error, zipfile.BadZipFile, SafetensorError) as error:
        lines = str(error).strip().splitlines()
        line = one_line(lines[0].partition(". ")[0]) if lines else type(error).__name__
        raise InputError(f"{path}: not a complete torch file: {line}") from error


def is_pickle(path: Path) -> bool:
    """Whether a file is a plain pickle, and not in one of torch's formats."""
    with path.open("rb") as file:
        head = file.read(len(_LEGACY))
    return head[:1] == pickle.PROTO and head != _LEGACY


def load_arrays(path: Path) -> dict[str, Tensor]:
    """Load nested dictionaries of float arrays from a pickle, as JAX models are often saved.

    Returns:
        the arrays, with the keys of nested dictionaries joined: ``{"a": {"b": array}}`` becomes ``{"a|b": tensor}``.

    Raises:
        InputError: a missing or damaged file, or one with anything but such dictionaries.
    """
    check_regular(path)
    try:
        with path.open("rb") as file:
            _check_places(file)
            file.seek(0)
            loaded = _Unpickler(file).load()
        check_values(loaded)
        found = _flat(loaded)
    except Exception as error:  # a damaged pickle can raise almost anything
        raise InputError(f"{path}: not a readable pickle of arrays, or truncated: {one_line(error, 120)}") from error
    if not found:
        raise InputError(f"{path}: contains no arrays")
    return found


def _check_places(file: IO[bytes]) -> None:
    """Refuse memo indices for which the unpickler would allocate gigabytes."""
    for operation, place, _ in pickletools.genops(file):
        if operation.name.endswith("PUT") and isinstance(place, int) and place > MOST_PLACES:
            raise pickle.UnpicklingError(f"a value is to be remembered at place {place}")


def _flat(value: object, name: str = "") -> dict[str, Tensor]:
    if isinstance(value, _Array):
        return {name: value.tensor()}
    if not isinstance(value, dict):
        raise pickle.UnpicklingError(f"a {type(value).__name__} instead of an array")
    parts: dict[str, Tensor] = {}
    for key, inner in value.items():
        parts |= _flat(inner, f"{name}|{key}" if name else str(key))
    return parts


def check_values(found: object) -> None:
    """Refuse a value of which a few bytes of a pickle make endlessly many, or a tensor larger than what it is made of.

    Raises:
        ValueError: deep nesting, a value inside itself, too many values, or a tensor of more numbers than the file has.
    """
    if _count(found, {}, 0) > MOST_VALUES:
        raise ValueError(f"a value inside itself, or more than {MOST_VALUES:,} values")


def _count(value: object, known: dict[int, float], depth: int) -> float:
    """Values in a value, itself included. known: what was counted before, by identity."""
    if isinstance(value, Tensor):
        _check_held(value)
    if not isinstance(value, dict | list | tuple | set | frozenset):
        return 1
    if depth > DEPTH:
        raise ValueError(f"nested more than {DEPTH} deep")
    if id(value) not in known:
        known[id(value)] = math.inf  # until it is counted: only what stands in itself asks before
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(part, known, depth + 1) for part in parts)
    return known[id(value)]


def _check_held(tensor: Tensor) -> None:
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        return
    claimed, held = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
    if claimed > max(held, FREE):
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)}, {claimed:,} bytes, that is made of {held:,}")


def unwrapped(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Remove what training wrappers add to parameter names.

    A prefix is removed only if every name has it (counters aside) and the names stay distinct.
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


class _DType:
    """Stand-in for ``numpy.dtype`` that keeps its name and byte order."""

    def __init__(self, name: object = "", *_: object) -> None:
        self.name, self.order = str(name), "<"

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and isinstance(state[1], str):
            self.order = state[1]


class _Inert:
    """Stand-in for an object whose content is not needed; accepts any arguments."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _Array(_Inert):
    """Stand-in for ``numpy.ndarray`` that keeps its shape, element type and bytes."""

    state: Any = None

    def __setstate__(self, state: object) -> None:
        self.state = state

    def tensor(self) -> Tensor:
        """The array as a tensor; UnpicklingError for one that is not of little-endian floats in C order."""
        _, shape, dtype, by_column, data = self.state
        if not isinstance(dtype, _DType) or dtype.name not in _FLOATS or dtype.order != "<" or by_column:
            raise pickle.UnpicklingError("an array that is not of little-endian floats in C order")
        return torch.from_numpy(np.frombuffer(data, f"<{dtype.name}").reshape(shape).copy())


def _number(dtype: object, data: object = b"") -> Any:
    """Stand-in for the constructor of numpy scalars; returns a Python number."""
    if not isinstance(dtype, _DType) or not re.fullmatch(r"[biuf][1248]", dtype.name) or not isinstance(data, bytes):
        return None
    try:
        return np.frombuffer(data, f"{dtype.order if dtype.order in '<>' else '='}{dtype.name}")[0].item()
    except (ValueError, TypeError, IndexError):
        return None


def _table(*_: object) -> dict[Any, Any]:
    """Stand-in for ``collections.defaultdict``, which is filled like a dict."""
    return {}


def _row(*_: object) -> list[Any]:
    """Stand-in for ``collections.deque``, which is filled like a list."""
    return []


_FACTORIES = ("list", "dict", "int", "float", "str", "range", "slice", "frozenset")
_TIMES = ("datetime", "date", "time", "timedelta", "timezone")
_PATHS = ("PosixPath", "WindowsPath", "Path", "PurePosixPath", "PureWindowsPath")
_STAND_INS: dict[str, Any] = {
    **{f"numpy.{core}.multiarray.scalar": _number for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray._reconstruct": _Array for core in ("core", "_core")},
    **{"numpy.ndarray": _Array, "numpy.dtype": _DType},
    **{f"pathlib.{name}": _Inert for name in _PATHS},
    **{"argparse.Namespace": _Inert, "types.SimpleNamespace": _Inert},
    **{"collections.defaultdict": _table, "collections.deque": _row},
    **{f"builtins.{name}": _Inert for name in _FACTORIES},
    **{f"datetime.{name}": _Inert for name in _TIMES},
}
"""Name in a file -> what is used instead, for the harmless types that training code saves beside weights."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _STAND_INS:
            raise pickle.UnpicklingError(f"it contains {named(f'{module}.{name}')}, which is not run")
        return _STAND_INS[f"{module}.{name}"]


def _refused(path: Path, mapped: bool, message: str) -> list[str]:
    """Names of the classes and functions in a file that are not read."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path) if mapped else []
    except (*_DAMAGE, pickle.UnpicklingError):
        found = []
    return [name for name in found if name not in _STAND_INS] or re.findall(r"GLOBAL ([\w.]+)", message)[:1]
