import math
from itertools import pairwise
from typing import Any

import pytest

from keystep.config import TargetConfig, TrainConfig
from keystep.schedules import learning_rate, momentum


def rates(**fields: Any) -> list[float]:
    config = TrainConfig(**{"learning_rate": 0.1, "steps": 100, "warmup": 10, "final_share": 0.02, **fields})
    return [learning_rate(step, config) for step in range(config.steps)]


@pytest.mark.parametrize("schedule", ["cosine", "constant", "drop"])
def test_warm_up_rises_evenly_from_its_first_share_to_the_whole_rate(schedule: str) -> None:
    found = rates(schedule=schedule)
    assert found[:10] == pytest.approx([0.01 * (step + 1) for step in range(10)])
    assert found[10] == pytest.approx(0.1)


def test_the_cosine_ends_exactly_at_its_final_share() -> None:
    found = rates()
    assert found[-1] == pytest.approx(0.1 * 0.02)
    assert all(before > after for before, after in pairwise(found[10:]))
    for step in (10, 37, 80):
        half = (1 + math.cos(math.pi * (step - 10) / 89)) / 2
        assert found[step] == pytest.approx(0.1 * (0.02 + 0.98 * half))


@pytest.mark.parametrize("steps", [100, 101, 2])
def test_the_drop_is_to_a_tenth_after_exactly_half_of_the_steps(steps: int) -> None:
    found = rates(schedule="drop", steps=steps, warmup=0)
    half = math.ceil(steps / 2)
    assert found == pytest.approx([0.1] * half + [0.01] * (steps - half))


@pytest.mark.parametrize(("steps_an_epoch", "drop_at", "first"), [(5, 0.499, 499), (43, 0.499, 499), (66, 0.6, 600)])
def test_the_drop_falls_on_the_first_step_of_an_epoch(steps_an_epoch: int, drop_at: float, first: int) -> None:
    """The authors' epoch 500, counted from 1, already runs at a tenth; on the surgical set it is 601."""
    found = rates(schedule="drop", steps=1000 * steps_an_epoch, warmup=0, drop_at=drop_at)
    assert found.index(min(found)) == first * steps_an_epoch


def test_a_constant_rate_stays_and_no_warm_up_starts_at_once() -> None:
    assert rates(schedule="constant", warmup=0) == [0.1] * 100


@pytest.mark.parametrize("schedule", ["cosine", "constant", "drop"])
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 1), (5, 5), (5, 4), (5, 50), (2, 1)])
def test_short_runs_have_positive_rates_too(schedule: str, steps: int, warmup: int) -> None:
    assert all(0 < rate <= 0.1 for rate in rates(schedule=schedule, steps=steps, warmup=warmup))


def test_momentum_stays_or_goes_from_its_first_to_its_final_value() -> None:
    assert [momentum(step, 50, TargetConfig(momentum=0.99)) for step in (0, 25, 49)] == [0.99] * 3
    config = TargetConfig(momentum=0.9, final_momentum=1.0)
    found = [momentum(step, 51, config) for step in range(51)]
    assert found[0] == pytest.approx(0.9) and found[25] == pytest.approx(0.95) and found[50] == pytest.approx(1.0)
    assert found == sorted(found)
    assert momentum(0, 1, config) == pytest.approx(0.9)
