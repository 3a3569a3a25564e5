from fractions import Fraction

import pytest

from keystep.data.timeline import Timeline
from keystep.errors import InputError
from keystep.types import parse_rate

NTSC = Fraction(30000, 1001)


def test_index_and_seconds_are_inverse_even_after_ten_hours_of_ntsc() -> None:
    timeline = Timeline(rate=NTSC, start=Fraction(1, 7))
    for index in (0, 1, 999, 1_078_921):
        assert timeline.index(timeline.seconds(index)) == index


def test_seconds_go_to_the_nearest_slot() -> None:
    timeline = Timeline(rate=Fraction(4))
    assert [timeline.index(t) for t in (0.0, 0.12, 0.13, 0.25, 1.0)] == [0, 0, 1, 1, 4]
    assert timeline.index(-0.3) == -1


def test_pooled_slots_stand_for_the_middle_of_what_they_saw() -> None:
    pooled = Timeline(rate=Fraction(30)).pooled(6)
    assert pooled.rate == 5
    assert pooled.seconds(0) == Fraction(5, 2) / 30
    assert pooled.span == Fraction(6, 30)


def test_right_aligned_slots_never_look_ahead_and_stay_so_when_pooled() -> None:
    timeline = Timeline(rate=Fraction(30), window=Fraction(2), alignment="right")
    assert timeline.look_ahead == 0
    pooled = timeline.pooled(3)
    assert pooled.look_ahead == 0
    assert pooled.seconds(0) == timeline.seconds(2)
    assert pooled.span == 2 + Fraction(2, 30)


def test_a_rate_that_does_not_divide_names_one_that_does() -> None:
    with pytest.raises(InputError, match=r"30 Hz cannot be pooled to 7 Hz.*6 Hz"):
        Timeline(rate=Fraction(30)).pool_factor(Fraction(7))
    assert Timeline(rate=Fraction(30)).pool_factor(Fraction(5)) == 6


def test_json_round_trip_is_exact() -> None:
    timeline = Timeline(rate=NTSC, start=Fraction(1, 3), window=Fraction(64, 30), alignment="right")
    assert Timeline.from_json(timeline.to_json()) == timeline


@pytest.mark.parametrize(
    "data", [{}, {"rate": "0"}, {"rate": "x"}, {"rate": "4", "fps": "4"}, {"rate": "4", "alignment": "top"}]
)
def test_an_unusable_timeline_is_refused(data: dict[str, str]) -> None:
    with pytest.raises(InputError):
        Timeline.from_json(data)


@pytest.mark.parametrize(("text", "rate"), [("30", 30), ("3.75", Fraction(15, 4)), ("30000/1001", NTSC), (4.0, 4)])
def test_rates_are_read_exactly(text: str, rate: Fraction) -> None:
    assert parse_rate(text) == rate
