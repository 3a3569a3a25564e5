"""Arrays in ``.npy`` and ``.npz`` files, whose claims are held against the file before anything is allocated."""

from __future__ import annotations

import math
import tokenize
import warnings
import zipfile
import zlib
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np

from keystep.errors import InputError, named, one_line
from keystep.reading.shards import Place, located
from keystep.reading.text import check_regular

MOST_HEADER = 10_000
"""Bytes that numpy accepts of a header."""
MOST_RATIO = 1100
"""A compressed part is at most so many times as large as in the file; deflate does no better."""
_DAMAGE = (ValueError, EOFError, OSError, SyntaxError, tokenize.TokenError, MemoryError, RecursionError, LookupError)
"""What numpy raises about a header that is none."""


def open_npy(path: Path) -> np.ndarray:
    """Memory-map the one array of a ``.npy`` file.

    Raises:
        InputError: missing, truncated or foreign file, one that is longer than its header says, pickled objects, or an
            archive of arrays.
    """
    return _opened(path, mapped=True)


def npy_header(path: Path) -> np.ndarray:
    """An array without memory that has the shape and type of the one in a ``.npy`` file.

    Raises:
        InputError: as for `open_npy`.
    """
    return _opened(path, mapped=False)


def _opened(path: Path, mapped: bool) -> np.ndarray:
    place = located(path) or Place(path, 0, check_regular(path))
    try:
        with place.shard.open("rb") as file:
            file.seek(place.start)
            if file.peek(4)[:4] == b"PK\x03\x04":
                raise InputError(f"{path}: an archive of arrays; expected a single one")
            shape, by_column, kind, offset = _file_header(file)
            _check_size(shape, kind, place.size - offset)
            if not math.prod(shape):
                return np.empty(shape, kind)
            if not mapped:
                return np.broadcast_to(np.empty((), kind), shape)
            return np.memmap(file, kind, "r", place.start + offset, shape, "F" if by_column else "C")
    except InputError:
        raise
    except (*_DAMAGE, OverflowError, TypeError) as error:
        raise InputError(f"{path}: not a readable .npy array, or cut off: {one_line(error)}") from error


def read_npz(path: Path, most: int) -> dict[str, np.ndarray]:
    """The arrays of a ``.npz`` archive, each compared with its checksum.

    Args:
        most: bytes that all of them may have in memory.

    Raises:
        InputError: missing, truncated or foreign file, pickled objects, arrays of other sizes than they claim, or more
            of them.
    """
    check_regular(path, most + (1 << 20))
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            claimed = sum(part.file_size for part in parts)
            if claimed > most or len({part.filename for part in parts}) < len(parts):
                raise ValueError(f"{claimed:,} bytes of arrays claimed (at most {most:,}), or a name given twice")
            return {part.filename.removesuffix(".npy"): _part(archive, part) for part in parts}
    except (*_DAMAGE, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, TypeError) as error:
        raise InputError(f"{path}: not a readable .npz archive, or cut off: {one_line(error)}") from error


def is_archive(path: Path) -> bool:
    """Whether a file ends as a zip archive does; a damaged end is none."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # such as one that claims to be of several disks
        return False


def _part(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> np.ndarray:
    name = named(part.filename)
    if not part.filename.endswith(".npy"):
        raise ValueError(f"{name} is no array")
    if part.file_size > MOST_RATIO * max(part.compress_size, 64):
        raise ValueError(f"{name} claims {part.file_size:,} bytes of {part.compress_size:,}")
    with archive.open(part) as file:
        shape, by_column, kind = _header(file)
        _check_size(shape, kind, part.file_size - file.tell())
        data = file.read()
    array: np.ndarray = np.frombuffer(bytearray(data), kind).reshape(shape, order="F" if by_column else "C")
    return array


def _file_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """`_header`, and the place of the first number. Many files of a folder have equal headers, parsed once."""
    start = file.read(len(np.lib.format.MAGIC_PREFIX) + 2)
    digits = file.read(2 if start[-2:] == b"\1\0" else 4)
    length = int.from_bytes(digits, "little")
    return _parsed(start + digits + file.read(min(length, MOST_HEADER)))


@lru_cache(maxsize=1024)
def _parsed(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    shape, by_column, kind = _header(BytesIO(header))
    return shape, by_column, kind, len(header)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, whether columns come first, type) at the beginning of a file.

    Raises:
        ValueError: no such header, or Python objects.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"format version {version}")
    first = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of headers that Python 2 wrote, and of damaged ones
        shape, by_column, kind = read(file)
    if kind.hasobject:
        raise ValueError("Python objects, which are not loaded")
    return shape, by_column, kind


def _check_size(shape: tuple[int, ...], kind: np.dtype[Any], held: int) -> None:
    """Compare the bytes that a header claims with those that are there."""
    claimed = math.prod(shape) * kind.itemsize  # Python's numbers have no largest
    if any(length < 0 for length in shape) or claimed != held:
        said = f"{claimed:,}" if claimed < 10**20 else f"{claimed:.0e}" if claimed < 10**300 else "countless"
        raise ValueError(f"its header says {kind} numbers of {said} bytes; it has {held:,}")
