"""Arrays that are kept in the work folder: whatever is missing there, damaged or of another size is made again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from keystep.errors import InputError
from keystep.files import write_array
from keystep.reading import open_npy


def kept(
    path: Path,
    make: Callable[[], np.ndarray],
    shape: Sequence[int | None],
    dtype: type[np.generic],
    valid: Callable[[np.ndarray], bool] = lambda array: True,
) -> np.ndarray:
    """The array of a file, memory-mapped.

    Args:
        make: gives it, if the file holds none.
        shape: of the array; None: any length.
        valid: whether its numbers can be used.

    Raises:
        InputError: it cannot be written, or what ``make`` raises.
    """
    if path.exists():
        with suppress(InputError):
            found = open_npy(path)
            same = len(found.shape) == len(shape) and all(
                wanted in (None, length) for wanted, length in zip(shape, found.shape, strict=True)
            )
            if same and found.dtype == dtype and valid(found):
                return found
    write_array(path, make())
    return open_npy(path)
