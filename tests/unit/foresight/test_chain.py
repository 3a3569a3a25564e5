"""The semi-Markov chain foresees what its counts imply."""

import numpy as np
import pytest

from keystep.foresight import StepChain
from keystep.foresight.targets import ages, later_steps, next_steps, remaining_slots

CYCLE = np.repeat([0, 1, 2, 0, 1, 2, 0, 1, 2], [4, 6, 2] * 3)


def test_targets_are_the_labels_further_on() -> None:
    labels = np.array([0, 0, 1, 1, 1, -100, 2])
    assert later_steps(labels, 2, 3).tolist() == [1, 1, 1, -100, 2, 3, 3]
    assert later_steps(labels, 9, 3).tolist() == [3] * 7
    steps, slots = next_steps(labels, 3)
    assert steps.tolist() == [1, 1, -100, -100, -100, -100, 3]
    assert slots[[0, 1, 6]].tolist() == [2, 1, 1] and np.isnan(slots[2:6]).all()
    assert remaining_slots(3).tolist() == [2, 1, 0]
    assert ages(labels).tolist() == [0, 1, 0, 1, 2, 0, 0]


def test_steps_of_fixed_length_in_a_fixed_order_are_foreseen() -> None:
    chain = StepChain.fit([CYCLE] * 300, 3, furthest=10)
    for slots in (1, 3, 10):
        steps, kept = CYCLE[:-slots], CYCLE[slots:] >= 0
        found = chain.later(steps, ages(CYCLE)[:-slots], slots)
        assert found.sum(1) == pytest.approx(1)
        before_the_last = np.arange(len(steps)) < 24 - slots  # after the third round, the video may end or go on
        right = found.argmax(1) == CYCLE[slots:]
        assert right[kept & before_the_last].all()
    steps, slots = next_steps(CYCLE, 3)
    wait = chain.wait(CYCLE, ages(CYCLE))
    assert (wait == slots).all()


def test_distributions_are_those_of_simulated_executions() -> None:
    rng = np.random.default_rng(0)
    chain = StepChain(
        np.array([[0.0, 0.7, 0.3], [0.5, 0.0, 0.5]]), np.array([[0.1, 0.3, 0.5, 0.5], [0.6, 0.2, 0.1, 0.3]]), 1, 5
    )

    def simulated(step: int, age: int, slots: int) -> int:
        for _ in range(slots):
            if step == 2:
                return 2
            if rng.random() < chain.hazards[step, min(age, 3)]:
                step, age = int(rng.choice(3, p=chain.transitions[step])), 0
            else:
                age += 1
        return step

    for step, age, slots in ((0, 0, 5), (1, 2, 3), (0, 7, 4)):
        drawn = np.bincount([simulated(step, age, slots) for _ in range(4000)], minlength=3) / 4000
        assert chain.later(np.array([step]), np.array([age]), slots)[0] == pytest.approx(drawn, abs=0.03)
    alike = chain.mixed(np.array([[1.0, 0.0]]), np.array([0]), np.array([1]), 3)
    assert alike == pytest.approx(chain.later(np.array([0]), np.array([1]), 3))


def test_long_horizons_are_computed_in_ticks() -> None:
    slow = np.repeat(CYCLE, 200)
    chain = StepChain.fit([slow] * 50, 3, furthest=2000)
    assert (chain.slots, chain.ticks) == (5, 400)
    found = chain.later(slow[:3000], ages(slow)[:3000], 1000).argmax(1)
    assert (found == slow[1000:4000]).mean() > 0.97
    assert np.abs(chain.wait(slow, ages(slow)) - next_steps(slow, 3).slots).max() <= 5
