"""Read Assembly101's features, one vector per frame, from LMDB (one environment per view) or arrays (one per video).

::

    TSM_features/<view>/data.mdb                    key <recording>/<view>/<view>_%010d.jpg, value 2048 float32
    TSM_features/<recording>/<view>/features.npy    (2048, T)

The first is the official layout (data/data_stat.py of assembly-101/assembly101-temporal-action-segmentation: keys,
"all the frame numbers are at 30fps", consecutive numbers). The second is that of LTContext/LTContext
(ltc/dataset/assembly101.py), where the column is the frame number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from keystep.data.slots import open_array
from keystep.errors import InputError, quoted

WIDTH = 2048
"""Width of the features: TSM with 8 input frames (README of the segmentation repository)."""
FOLDERS = ("TSM_features", "db_TSM_features", "TSM", "features", ".")
ARRAY = "features.npy"


class FrameFeatures(Protocol):
    """Features by recording, view and frame number."""

    views: tuple[str, ...]

    def span(self, recording: str, view: str) -> tuple[int, int] | None:
        """The first frame and the one after the last. None: no features."""
        ...

    def read(self, recording: str, view: str, frames: Sequence[int] | np.ndarray) -> np.ndarray:
        """Read the features of frames, (n, 2048) float32.

        Raises:
            InputError: a missing frame, or another width.
        """
        ...


def features_folder(root: Path) -> Path | None:
    """The folder below the root with features in one of the two layouts. None: there is none."""
    places = (root / name for name in FOLDERS)
    return next((place for place in places if _databases(place) or _array_views(place)), None)


@contextmanager
def open_features(folder: Path, first_frame: int = 0) -> Iterator[FrameFeatures]:
    """Open features in either layout, as a context manager.

    Args:
        folder: of the features.
        first_frame: frame number of the first column of arrays.

    Raises:
        InputError: no features, or the package ``lmdb`` is needed and missing.
    """
    databases = _databases(folder)
    if not databases:
        views = _array_views(folder)
        if not views:
            raise InputError(f"{folder}: neither <view>/data.mdb nor <recording>/<view>/{ARRAY} here")
        yield _Arrays(folder, views, first_frame)
        return
    features = _Databases(databases)
    try:
        yield features
    finally:
        features.close()


def _databases(folder: Path) -> dict[str, Path]:
    """View -> the folder of its LMDB environment."""
    return {path.parent.name: path.parent for path in sorted(folder.glob("*/data.mdb"))}


def _array_views(folder: Path) -> tuple[str, ...]:
    return tuple(sorted({path.parent.name for path in folder.glob(f"*/*/{ARRAY}")}))


class _Databases:
    """LMDB environments, opened on demand."""

    def __init__(self, folders: dict[str, Path]) -> None:
        try:
            import lmdb
        except ImportError as error:
            place = next(iter(folders.values()))
            raise InputError(
                f"{place}: reading LMDB needs lmdb; install it with: pip install 'keystep[data]'"
            ) from error
        self.views = tuple(folders)
        self._folders, self._lmdb = folders, lmdb
        self._open: dict[str, Any] = {}

    def span(self, recording: str, view: str) -> tuple[int, int] | None:
        """See `FrameFeatures`. Two look-ups suffice, because keys are sorted and numbers have leading zeros."""
        prefix = f"{recording}/{view}/{view}_".encode()
        with self._transaction(view) as transaction:
            cursor = transaction.cursor()
            if not cursor.set_range(prefix) or not cursor.key().startswith(prefix):
                return None
            first = self._number(view, cursor.key(), prefix)
            found = cursor.set_range(prefix + b":")  # the character after 9
            _ = cursor.prev() if found else cursor.last()
            return first, self._number(view, cursor.key(), prefix) + 1

    def read(self, recording: str, view: str, frames: Sequence[int] | np.ndarray) -> np.ndarray:
        """(n, 2048) float32."""
        rows = np.empty((len(frames), WIDTH), dtype=np.float32)
        with self._transaction(view) as transaction:
            for row, frame in zip(rows, frames, strict=True):
                key = f"{recording}/{view}/{view}_{int(frame):010d}.jpg"
                value = transaction.get(key.encode())
                if value is None or len(value) != 4 * WIDTH:
                    found = "is missing" if value is None else f"has {len(value)} bytes, not {4 * WIDTH}"
                    raise InputError(f"{self._folders[view]}: {key} {found}; download this view again")
                row[:] = np.frombuffer(value, dtype="<f4")
        return rows

    def close(self) -> None:
        """Close the files, because an environment cannot be opened twice."""
        for environment in self._open.values():
            environment.close()
        self._open.clear()

    @contextmanager
    def _transaction(self, view: str) -> Iterator[Any]:
        try:
            if view not in self._open:
                # downloads may be read-only; most pages between two frames are not needed
                self._open[view] = self._lmdb.open(
                    str(self._folders[view]), readonly=True, lock=False, readahead=False, create=False
                )
            with self._open[view].begin(buffers=False) as transaction:
                yield transaction
        except self._lmdb.Error as error:
            raise InputError(f"{self._folders[view]}: not a readable LMDB environment, or cut off: {error}") from error

    def _number(self, view: str, key: bytes, prefix: bytes) -> int:
        number = key[len(prefix) :].removesuffix(b".jpg")
        if not number.isdigit():
            raise InputError(f"{self._folders[view]}: the key {quoted(key)} has no frame; download this view again")
        return int(number)


class _Arrays:
    """One (2048, T) or (T, 2048) array per recording and view."""

    def __init__(self, folder: Path, views: tuple[str, ...], first_frame: int) -> None:
        self.views = views
        self._folder, self._first = folder, first_frame

    def span(self, recording: str, view: str) -> tuple[int, int] | None:
        """See `FrameFeatures`; reads the header of the array."""
        if not self._path(recording, view).exists():
            return None
        return self._first, self._first + len(self._rows(recording, view))

    def read(self, recording: str, view: str, frames: Sequence[int] | np.ndarray) -> np.ndarray:
        """(n, 2048) float32."""
        rows, places = self._rows(recording, view), np.asarray(frames) - self._first
        outside = (places < 0) | (places >= len(rows))
        if outside.any():
            frame = int(np.asarray(frames)[outside][0])
            raise InputError(f"{self._path(recording, view)}: no frame {frame} among {len(rows)}")
        return np.asarray(rows[places], dtype=np.float32)

    def _path(self, recording: str, view: str) -> Path:
        return self._folder / recording / view / ARRAY

    def _rows(self, recording: str, view: str) -> np.ndarray:
        """(T, 2048), memory-mapped."""
        path = self._path(recording, view)
        array = open_array(path)
        if WIDTH not in array.shape:
            raise InputError(f"{path}: shape {array.shape}; expected ({WIDTH}, T)")
        return array.T if array.shape[0] == WIDTH else array
