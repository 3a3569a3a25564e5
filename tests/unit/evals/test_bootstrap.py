import numpy as np
import pytest

from keystep.errors import InputError
from keystep.evals.bootstrap import RatioSums, paired_bootstrap, paired_ratios

FRAMES = np.array([300, 500, 800, 400, 1000, 600])


def simulated(random: np.random.Generator, gain: float, seeds: int, spread: float) -> tuple[np.ndarray, ...]:
    """Right frames of two sides over 40 videos: shared difficulty, per-video gain, and per-seed luck (points / 100)."""
    frames = random.integers(300, 1200, 40)
    difficulty = random.normal(0.6, 0.12, 40)
    sides = []
    for shift in (gain, 0.0):
        luck = random.normal(0, spread, (seeds, 1))
        rates = np.clip(difficulty + shift + luck + random.normal(0, 0.04, 40), 0, 1)
        sides.append(np.rint(rates * frames))
    return sides[0], sides[1], frames


def coverage(gain: float, *, spread: float, seeds: int, pool: bool = False) -> float:
    """Share of 300 simulated comparisons whose interval holds the true difference."""
    random = np.random.default_rng(7)
    held = 0
    for trial in range(300):
        right_a, right_b, frames = simulated(random, gain, seeds, spread)
        if pool:  # averaging the seeds beforehand hides how much they differ
            right_a, right_b = right_a.mean(0, keepdims=True), right_b.mean(0, keepdims=True)
        result = paired_bootstrap(right_a, right_b, frames, resamples=400, seed=trial)
        held += result.low <= 100 * gain <= result.high
    return held / 300


@pytest.mark.parametrize("gain", [0.0, 0.03])
def test_the_interval_holds_the_true_difference_about_95_times_in_a_hundred(gain: float) -> None:
    assert 0.89 <= coverage(gain, spread=0.01, seeds=8) <= 0.99


def test_leaving_out_the_seeds_would_make_the_interval_too_narrow() -> None:
    with_seeds = coverage(0.0, spread=0.03, seeds=5)
    assert with_seeds > 0.85 > coverage(0.0, spread=0.03, seeds=5, pool=True)


def test_the_mean_is_the_difference_of_seed_averaged_pooled_accuracies() -> None:
    right_a = np.array([FRAMES * 0.5, FRAMES * 0.7])
    right_b = np.array([FRAMES * 0.5])
    right_b[0, 4] += 180  # the longest video counts by its frames
    result = paired_bootstrap(right_a, right_b, FRAMES)
    assert result.mean == pytest.approx(100 * (0.6 - (0.5 + 180 / FRAMES.sum())))
    assert (result.seeds, result.videos) == ((2, 1), 6)
    assert result.low <= result.mean <= result.high


def test_a_constant_gain_in_every_video_leaves_no_doubt_however_hard_the_videos_differ() -> None:
    right_b = FRAMES[None] * np.array([[0.1, 0.9, 0.4, 0.6, 0.2, 0.5]])
    result = paired_bootstrap(right_b + 0.02 * FRAMES, right_b, FRAMES)
    assert [result.low, result.mean, result.high] == pytest.approx([2, 2, 2])


def test_swapping_the_sides_flips_the_mean_and_nearly_the_interval() -> None:
    right_a, right_b, frames = simulated(np.random.default_rng(0), 0.02, 3, 0.01)
    there, back = paired_bootstrap(right_a, right_b, frames), paired_bootstrap(right_b, right_a, frames)
    assert there.mean == pytest.approx(-back.mean)
    assert [there.low, there.high] == pytest.approx([-back.high, -back.low], abs=0.3)


def test_a_seed_reproduces_the_interval_and_another_moves_it_little() -> None:
    arrays = simulated(np.random.default_rng(0), 0.02, 3, 0.01)
    first = paired_bootstrap(*arrays, seed=3)
    assert first == paired_bootstrap(*arrays, seed=3)
    other = paired_bootstrap(*arrays, seed=4)
    assert other != first
    assert [other.low, other.high] == pytest.approx([first.low, first.high], abs=0.3)


@pytest.mark.parametrize(
    ("right_a", "frames", "message"),
    [
        (np.ones(6), FRAMES, r"correct_a has shape \(6,\); expected \(seeds, 6 videos\)"),
        (np.ones((2, 5)), FRAMES, r"shape \(2, 5\)"),
        (np.ones((0, 6)), FRAMES, "correct_a has shape"),
        (np.full((1, 6), 301), FRAMES, "seed 0, video 0: 301 correct frames of 300"),
        (np.full((1, 6), -1), FRAMES, "-1 correct frames"),
        (np.full((1, 6), np.nan), FRAMES, "nan correct frames"),
        (np.ones((1, 1)), np.array([300]), "at least 2 videos"),
        (np.ones((1, 2)), np.array([300, 0]), "at least one scored frame"),
    ],
)
def test_counts_that_do_not_fit_are_refused(right_a: np.ndarray, frames: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        paired_bootstrap(right_a, np.ones((1, len(frames))), frames)


def test_too_few_resamples_are_refused() -> None:
    with pytest.raises(InputError, match="at least 100, not"):
        paired_bootstrap(np.ones((1, 6)), np.ones((1, 6)), FRAMES, resamples=10)


def test_shares_that_are_means_of_videos_and_seeds_are_compared_video_by_video():
    rng = np.random.default_rng(1)
    level = rng.uniform(0, 1, 20)  # videos differ a lot, the two sides always by 0.1
    one = np.ones((3, 20))
    difference = paired_ratios(RatioSums(level + 0.1 + 0 * one, one), RatioSums(level + 0 * one, one))
    assert abs(difference.mean - 10) < 1e-9 and 9.9 < difference.low <= difference.high < 10.1
    assert paired_ratios(RatioSums(0 * one, 0 * one), RatioSums(0 * one, 0 * one)).mean == 0
    with pytest.raises(InputError, match="at least 2 videos"):
        paired_ratios(RatioSums(one[:, :1], one[:, :1]), RatioSums(one[:, :1], one[:, :1]))
