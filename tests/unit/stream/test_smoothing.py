"""Smoothing looks at the past only, and says what it promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystep.errors import InputError
from keystep.stream import Smoothing
from keystep.stream.smoothing import SmoothingState


def run(rows: list[list[float]], smoothing: Smoothing, rate: float = 2.0) -> list[SmoothingState]:
    state, states = SmoothingState(), []
    for row in rows:
        state = state.update(np.array(row, np.float32), smoothing, rate)
        states.append(state)
    return states


ROWS = st.lists(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), min_size=1, max_size=30)


@given(ROWS)
def test_without_smoothing_each_frame_speaks_for_itself(rows: list[list[float]]) -> None:
    for row, state in zip(rows, run(rows, Smoothing()), strict=True):
        assert state.average is not None and state.average.tolist() == np.array(row, np.float32).tolist()
        assert state.announced == int(np.argmax(np.array(row, np.float32)))


@given(ROWS, st.floats(0.1, 20))
def test_the_average_is_the_weighted_sum_of_the_past(rows: list[list[float]], half_life: float) -> None:
    """Frame 0 keeps what is left, so the weights add up to one from the start."""
    share = 0.5 ** (1 / (2.0 * half_life))
    for index, state in enumerate(run(rows, Smoothing(half_life=half_life))):
        weights = np.array([share**index, *((1 - share) * share ** (index - i) for i in range(1, index + 1))])
        assert weights.sum() == pytest.approx(1)
        assert state.average == pytest.approx(weights @ np.array(rows[: index + 1]), abs=1e-4)


def test_a_step_is_announced_once_it_has_led_for_long_enough() -> None:
    a, b, c = [0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]
    rows = [a, b, b, a, b, b, b, c, b, b, b, b]
    announced = [state.announced for state in run(rows, Smoothing(hold=1.5))]  # three frames at 2 Hz
    assert announced == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]


@given(ROWS, ROWS, st.floats(0, 5), st.floats(0, 5))
def test_later_frames_change_nothing(
    past: list[list[float]], future: list[list[float]], half_life: float, hold: float
) -> None:
    smoothing = Smoothing(half_life, hold)
    alone, followed = run(past, smoothing), run(past + future, smoothing)
    assert [state.announced for state in alone] == [state.announced for state in followed[: len(past)]]


@pytest.mark.parametrize("wrong", [{"half_life": -1.0}, {"hold": float("nan")}, {"hold": float("inf")}])
def test_what_is_no_time_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="give seconds, 0 or more"):
        Smoothing(**wrong)
