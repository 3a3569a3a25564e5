"""Claims about the alignment of frames to an ordered list of steps."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystep.errors import InputError
from keystep.procedure.alignment import NOWHERE, align, uniform

COSTS = st.none() | st.integers(0, 6).map(lambda number: number / 2)


def value(places: tuple[int, ...], scores: np.ndarray, skip: float | None, drop: float | None) -> float:
    """The value of an alignment as the module's first lines define it; -inf for what is no alignment."""
    placed = [place for place in places if place != NOWHERE]
    without = scores.shape[1] - len(set(placed))
    dropped = len(places) - len(placed)
    if any(b < a for a, b in pairwise(placed)) or (skip is None and without) or (drop is None and dropped):
        return -np.inf
    matched = sum(scores[time, place] for time, place in enumerate(places) if place != NOWHERE)
    return float(matched + dropped * (drop or 0) - without * (skip or 0))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(0, 2**32 - 1),
    COSTS,
    st.none() | st.integers(-4, 2),
    st.booleans(),
)
def test_no_alignment_is_better(
    frames: int, steps: int, seed: int, skip: float | None, drop: float | None, tied: bool
) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(-3, 1, (frames, steps)).astype(float) if tied else rng.normal(size=(frames, steps)) - 1
    if skip is None and frames < steps:
        with pytest.raises(InputError, match="let steps be skipped"):
            align(scores, skip=skip, drop=drop)
        return
    best = max(value(each, scores, skip, drop) for each in product(range(NOWHERE, steps), repeat=frames))
    found = align(scores, skip=skip, drop=drop)
    assert value(tuple(found.tolist()), scores, skip, drop) == pytest.approx(best, abs=1e-9)


def test_a_step_that_is_not_shown_is_skipped_and_a_frame_of_no_step_has_no_place() -> None:
    shown = [0, 0, NOWHERE, 2, 2, NOWHERE]
    scores = np.array([[0.0 if place == step else -9.0 for step in range(3)] for place in shown])
    assert align(scores, skip=1, drop=-1).tolist() == shown
    assert align(scores).tolist() == [0, 0, 1, 2, 2, 2]


def test_uniform_gives_every_step_its_share() -> None:
    assert uniform(7, 3).tolist() == [0, 0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("scores", "costs", "message"),
    [
        (np.zeros((0, 2)), {}, "shape"),
        (np.full((2, 2), np.nan), {}, "NaN"),
        (np.zeros((2, 2)), {"skip": -1}, "skip -1"),
        (np.zeros((2, 2)), {"drop": np.inf}, "drop inf"),
    ],
)
def test_what_cannot_be_aligned_is_refused(scores: np.ndarray, costs: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        align(scores, **costs)
