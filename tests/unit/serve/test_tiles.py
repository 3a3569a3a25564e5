"""Rows of the time line at any zoom level."""

import numpy as np
import pytest

from keystep.data.annotation import IGNORED
from keystep.serve.tiles import columns, majority, means


@pytest.mark.parametrize(("start", "stop", "width"), [(0, 100, 7), (3, 10, 50), (5, 6, 1), (0, 8, 8), (2, 1000, 999)])
def test_every_slot_is_in_a_column_and_every_column_shows_slots_in_range(start: int, stop: int, width: int) -> None:
    first, last = columns(start, stop, width)
    assert len(first) == width and (first < last).all() and first.min() >= start and last.max() <= stop
    assert set(range(start, stop)) == {slot for a, b in zip(first, last, strict=True) for slot in range(a, b)}


@pytest.mark.parametrize(("start", "stop", "width"), [(0, 60, 9), (7, 53, 5), (0, 60, 200), (10, 11, 1)])
def test_columns_show_the_most_frequent_class(start: int, stop: int, width: int) -> None:
    ids = np.random.default_rng(0).choice([IGNORED, 0, 1, 5], 60)
    found = majority(ids, start, stop, width)
    for column, (a, b) in enumerate(zip(*columns(start, stop, width), strict=True)):
        known = [int(label) for label in ids[a:b] if label >= 0]
        assert found[column] == (min(set(known), key=lambda label: (-known.count(label), label)) if known else -1)


def test_a_row_without_labels_is_empty() -> None:
    assert (majority(np.full(50, IGNORED), 0, 50, 5) == -1).all()


@pytest.mark.parametrize(("start", "stop", "width"), [(0, 60, 9), (7, 53, 5), (0, 60, 200)])
def test_columns_show_means(start: int, stop: int, width: int) -> None:
    rows = np.random.default_rng(0).random((60, 3))
    expected = [rows[a:b].mean(0) for a, b in zip(*columns(start, stop, width), strict=True)]
    np.testing.assert_allclose(means(rows, start, stop, width), expected)
