from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystep.boundaries.agreement import Agreement, agreement, equally_spaced

LENGTHS = st.lists(st.integers(1, 4), min_size=1, max_size=5)


def most_pairs(ours: list[int], theirs: list[int], tolerance: int) -> int:
    """The largest matching, by trying all."""
    pairs = [(i, j) for i, a in enumerate(ours) for j, b in enumerate(theirs) if abs(a - b) <= tolerance]
    for count in range(min(len(ours), len(theirs)), 0, -1):
        for chosen in combinations(pairs, count):
            if len({i for i, _ in chosen}) == len({j for _, j in chosen}) == count:
                return count
    return 0


@given(found=LENGTHS, true=LENGTHS, tolerance=st.integers(0, 3))
def test_hits_are_the_largest_matching_of_boundaries_within_the_tolerance(
    found: list[int], true: list[int], tolerance: int
) -> None:
    ours, theirs = (np.cumsum(lengths)[:-1].tolist() for lengths in (found, true))
    expected = Agreement(most_pairs(ours, theirs, tolerance), len(ours), len(theirs))
    assert agreement(found, true, tolerance) == expected


def test_scores_are_pooled_counts() -> None:
    pooled = Agreement(1, 2, 4) + Agreement(1, 2, 1)
    assert (pooled.precision, pooled.recall) == (50, 40) and pooled.f1 == pytest.approx(100 * 4 / 9)
    assert Agreement().f1 == 0


def test_the_control_divides_a_video_evenly() -> None:
    assert equally_spaced(10, 3) == [3, 4, 3] and equally_spaced(2, 5) == [1, 1]
