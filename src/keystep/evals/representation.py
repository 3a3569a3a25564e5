"""Representations of the videos of a split, which need not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import overload

import numpy as np

from keystep.errors import InputError

Representation = Mapping[str, np.ndarray]
"""Video name -> (T, D) float32 at the folder's pooled rate. An array may be computed anew on each access."""

KEPT_BYTES = 512 << 20
"""Bytes of one representation that are kept in memory; the rest is computed or read again."""


class Computed(Representation):
    """A representation that is computed on access. The first arrays, up to a number of bytes, are kept.

    Args:
        names: of the videos.
        compute: video name -> (T, D).
        most: bytes that are kept.
    """

    def __init__(self, names: Iterable[str], compute: Callable[[str], np.ndarray], most: int = KEPT_BYTES) -> None:
        self._names, self._compute, self._left = dict.fromkeys(names), compute, most
        self._kept: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __getitem__(self, name: str) -> np.ndarray:
        if name in self._kept:
            return self._kept[name]
        if name not in self._names:
            raise KeyError(name)
        array = self._compute(name)
        if array.nbytes <= self._left:
            self._left -= array.nbytes
            self._kept[name] = array
        return array


def stored(videos: Iterable[tuple[str, np.ndarray]], folder: Path | None, most: int = KEPT_BYTES) -> Representation:
    """Keep computed arrays, such as latents: in memory, or in a temporary file if they have more than ``most`` bytes.

    Args:
        videos: (name, (T, D) float32) pairs.
        folder: of the temporary file, created if necessary. None: the system's folder for temporary files.
        most: bytes that are kept in memory.

    Raises:
        InputError: the file cannot be written.
    """
    places: dict[str, tuple[int, tuple[int, ...]]] = {}
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        file = SpooledTemporaryFile(most, dir=None if folder is None else str(folder))  # noqa: SIM115  # closed and deleted with the last reference
        for name, array in videos:
            places[name] = file.tell(), array.shape
            file.write(np.ascontiguousarray(array, np.float32).data)
    except OSError as error:
        raise InputError(f"{folder or 'temporary files'}: latents cannot be written: {error.strerror}") from error

    def read(name: str) -> np.ndarray:
        place, shape = places[name]
        file.seek(place)
        return np.frombuffer(bytearray(file.read(4 * shape[0] * shape[1])), np.float32).reshape(shape)

    return Computed(places, read, most=0)


class Listed(Sequence[np.ndarray]):
    """Some videos of a representation, by index."""

    def __init__(self, videos: Representation, names: Sequence[str]) -> None:
        self._videos, self._names = videos, names

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> Listed: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | Listed:
        if isinstance(index, slice):
            return Listed(self._videos, self._names[index])
        return self._videos[self._names[index]]
