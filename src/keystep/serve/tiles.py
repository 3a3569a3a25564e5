"""Rows of the time line at the zoom level asked for: one column for each pixel, whatever lies behind it."""

from __future__ import annotations

import numpy as np

from keystep.data.annotation import IGNORED


def columns(start: int, stop: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(first slot, slot after the last) of each of ``width`` columns over slots ``start`` to ``stop``.

    Every column shows at least one slot, and every slot is shown by a column.
    """
    edges = start + (stop - start) * np.arange(width + 1, dtype=np.int64) // width
    return edges[:-1], np.maximum(edges[1:], edges[:-1] + 1)


def majority(ids: np.ndarray, start: int, stop: int, width: int) -> np.ndarray:
    """(width,) int16: the most frequent class of each column, the smaller id on ties; -1 where no slot has one."""
    first, last = columns(start, stop, width)
    if stop - start <= width:
        return _as_int16(ids[first])
    part = ids[start:stop]
    column = np.repeat(np.arange(width), last - first)
    known, place = np.unique(part[part >= 0], return_inverse=True)
    if not len(known):
        return np.full(width, -1, np.int16)
    counts = np.bincount(column[part >= 0] * len(known) + place, minlength=width * len(known)).reshape(width, -1)
    return _as_int16(np.where(counts.any(axis=1), known[counts.argmax(axis=1)], IGNORED))


def _as_int16(ids: np.ndarray) -> np.ndarray:
    columns: np.ndarray = np.where(ids == IGNORED, -1, ids).astype(np.int16)
    return columns


def means(rows: np.ndarray, start: int, stop: int, width: int) -> np.ndarray:
    """(width, ...) float64: the mean of each column of (T, ...) numbers."""
    first, last = columns(start, stop, width)
    if stop - start <= width:
        shown: np.ndarray = rows[first].astype(np.float64)
        return shown
    sums = np.add.reduceat(rows[start:stop].astype(np.float64), first - start, axis=0)
    sizes = (last - first).reshape(-1, *[1] * (rows.ndim - 1))
    result: np.ndarray = sums / sizes
    return result


def as_bytes(levels: np.ndarray) -> np.ndarray:
    """Numbers from 0 to 1 as uint8 from 0 to 255."""
    found: np.ndarray = np.rint(255 * np.clip(levels, 0, 1)).astype(np.uint8)
    return found
