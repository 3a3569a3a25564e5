"""Columns of Parquet files, with pyarrow."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from keystep.errors import InputError, named, one_line
from keystep.reading.text import check_regular


def column_names(path: Path) -> list[str]:
    """Names of the columns of a Parquet file, from its footer.

    Raises:
        InputError: no such file, no Parquet file, or pyarrow is missing.
    """
    check_regular(path)
    return list(_attempt(path, lambda parquet: parquet.read_schema(path).names))


def read_columns(path: Path, columns: Collection[str]) -> dict[str, np.ndarray]:
    """Columns of a Parquet file; others, such as pictures, are not read.

    Args:
        path: the file.
        columns: their names.

    Returns:
        Column -> (rows,) numbers, booleans or texts; (rows, D) for a column of lists of D numbers.

    Raises:
        InputError: no such file or column, no Parquet file, empty cells, lists of several lengths, or pyarrow is
            missing.
    """
    there = column_names(path)
    absent = [column for column in columns if column not in there]
    if absent:
        raise InputError(f"{path}: no column {named(absent[0])}; it has {', '.join(map(named, there))}")
    table = _attempt(path, lambda parquet: parquet.read_table(path, columns=list(columns), partitioning=None))
    return {column: _array(path, column, table.column(column)) for column in columns}


def _attempt(path: Path, read: Any) -> Any:
    """The result of a function of ``pyarrow.parquet``."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(
            f"{path}: reading Parquet needs pyarrow; install it with: pip install 'keystep[exchange]'"
        ) from error
    try:
        return read(parquet)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file, or cut off: {one_line(error)}") from error


def _array(path: Path, name: str, column: Any) -> np.ndarray:
    """A column as an array."""
    if column.null_count:
        raise InputError(f"{path}: column {named(name)} has {column.null_count} empty cells")
    kind = str(column.type)
    if "list" not in kind:
        return np.asarray(column.to_numpy())
    numbers = column.combine_chunks().flatten()
    rows = len(column)
    if not rows:
        raise InputError(f"{path}: has no rows")
    lengths = {len(cell) for cell in column} if not kind.startswith("fixed_size_list") else set()
    if len(lengths) > 1 or numbers.null_count or "list" in str(numbers.type):
        raise InputError(f"{path}: column {named(name)}, {kind}, does not hold lists of one length")
    return np.asarray(numbers.to_numpy(zero_copy_only=False)).reshape(rows, -1)
