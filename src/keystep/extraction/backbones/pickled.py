"""Arrays in a pickle, read without running anything that stands in it.

A pickle names the functions that its reader is to call. This reader knows three names, those that numpy writes for a
plain array, and gives inert stand-ins for them: what comes out is dictionaries, numbers and bytes, of which arrays are
made here. Any other name is refused.
"""

from __future__ import annotations

import pickle
import pickletools
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from keystep.errors import InputError, named, one_line
from keystep.reading import check_regular
from keystep.unpickling import check_values

KINDS = {"f2", "f4", "f8"}
"""Element types that are read."""
MOST_PLACES = 1 << 20
"""Values that a pickle may refer to again."""


class _Kind:
    """Stands for ``numpy.dtype``: remembers its name and its byte order."""

    def __init__(self, name: object, *_: object) -> None:
        self.name, self.order = name, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


class _Array:
    """Stands for an array: remembers shape, element type and bytes."""

    tensor: Tensor

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, by_column, data = state
        if not isinstance(kind, _Kind) or kind.name not in KINDS or kind.order != "<" or by_column:
            raise pickle.UnpicklingError("an array that is not of little-endian floats in C order")
        array = np.frombuffer(data, dtype=f"<{kind.name}").reshape(shape)
        self.tensor = torch.from_numpy(array.copy())


def _new_array(*_: object) -> _Array:
    return _Array()


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _new_array,
    ("numpy._core.multiarray", "_reconstruct"): _new_array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it names {named(f'{module}.{name}')}, which is not run")
        return _STAND_INS[module, name]


def pickled_arrays(path: Path) -> dict[str, Tensor]:
    """Nested dictionaries of float arrays in a pickle as one: ``{"a": {"b": array}}`` gives the name ``a|b``.

    Raises:
        InputError: damaged, or anything but such dictionaries.
    """
    check_regular(path)
    try:
        with path.open("rb") as file:
            _check_places(file)
            file.seek(0)
            loaded = _Reader(file).load()
        check_values(loaded)
        found = _flat(loaded)
    except Exception as error:  # a damaged pickle raises nearly anything
        raise InputError(f"{path}: not readable as a pickle of arrays, or cut off: {one_line(error, 120)}") from error
    if not found:
        raise InputError(f"{path}: holds no arrays")
    return found


def _check_places(file: IO[bytes]) -> None:
    """Refuse places in the reader's memory for which it would take gigabytes."""
    for operation, place, _ in pickletools.genops(file):
        if operation.name.endswith("PUT") and isinstance(place, int) and place > MOST_PLACES:
            raise pickle.UnpicklingError(f"a value is to be remembered at place {place}")


def _flat(value: object, name: str = "") -> dict[str, Tensor]:
    if isinstance(value, _Array):
        return {name: value.tensor}
    if not isinstance(value, dict):
        raise pickle.UnpicklingError(f"a {type(value).__name__} where arrays were expected")
    parts: dict[str, Tensor] = {}
    for key, inner in value.items():
        parts |= _flat(inner, f"{name}|{key}" if name else str(key))
    return parts
