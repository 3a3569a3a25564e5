"""What is remembered without learning: counts, maxima and averages, against the slow and obvious way."""

import numpy as np
import pytest

from keystep.errors import InputError
from keystep.evals.history import Amounts, both_ways, clock, exponential_averages, mean_so_far

RANDOM = np.random.default_rng(0)
SIGNED = RANDOM.normal(size=(50, 3)).astype(np.float32)
TOOLS = (RANDOM.random(size=(50, 2)) < 0.3).astype(np.float32)


def test_an_exponential_average_halves_a_frame_after_each_half_life() -> None:
    found = exponential_averages(SIGNED, [0.5, 4.0])
    for t in (0, 1, 7, 49):
        for place, half_life in enumerate((0.5, 4.0)):
            weights = 0.5 ** (np.arange(t, -1, -1) / half_life)
            expected = weights @ SIGNED[: t + 1] / weights.sum()
            np.testing.assert_allclose(found[t, 3 * place : 3 * place + 3], expected, rtol=1e-5, atol=1e-6)


def test_the_average_of_a_long_constant_video_is_the_constant() -> None:
    constant = np.full((100_000, 1), 1234.5, dtype=np.float32)
    np.testing.assert_allclose(exponential_averages(constant, [1.0, 5_000.0]), np.tile(constant, 2), rtol=1e-6)


def test_the_mean_so_far_is_the_mean_of_the_frames_so_far() -> None:
    np.testing.assert_allclose(mean_so_far(SIGNED), [SIGNED[: t + 1].mean(0) for t in range(50)], rtol=1e-4, atol=1e-6)


def test_a_channel_that_is_never_negative_is_counted_as_it_is() -> None:
    amounts = Amounts.fit([TOOLS])
    assert amounts.positive.all()
    counts = np.expm1(amounts.log_counts(TOOLS, 10.0)) * 10 * TOOLS.std(axis=0)
    np.testing.assert_allclose(counts, TOOLS.cumsum(axis=0), rtol=1e-4, atol=1e-4)


def test_highs_and_lows_of_a_signed_channel_do_not_cancel() -> None:
    wave = np.tile([3.0, -3.0], 100).astype(np.float32)[:, None]
    amounts = Amounts.fit([wave])
    high, low = amounts.log_counts(wave, 1.0)[-1]
    assert high == pytest.approx(np.log(101)) and low == pytest.approx(np.log(101))
    assert (amounts.of(wave) >= 0).all() and amounts.of(wave).shape == (200, 2)


def test_once_seen_is_seen_for_ever() -> None:
    video = np.zeros((30, 1), dtype=np.float32)
    video[12] = 1
    most, much = Amounts.fit([video]).seen_yet(video).T
    assert (most[:12] == 0).all() and (most[12:] == most[12]).all() and most[12] > 0
    assert much.tolist() == [0.0] * 12 + [1.0] * 18


def test_both_ways_adds_what_is_still_to_come() -> None:
    found = both_ways(mean_so_far)(SIGNED)
    np.testing.assert_array_equal(found[:, :3], mean_so_far(SIGNED))
    np.testing.assert_allclose(found[:, 3:], [SIGNED[t:].mean(0) for t in range(50)], rtol=1e-4, atol=1e-6)


def test_offline_the_clock_also_runs_backwards() -> None:
    since, until = clock(SIGNED, 7.0, causal=True), clock(SIGNED, 7.0, causal=False)
    assert since.shape == (50, 2) and until.shape == (50, 5)
    np.testing.assert_array_equal(until[:, 3:], since[::-1])


def test_a_channel_that_never_changes_is_no_number_without_meaning() -> None:
    still = np.concatenate([SIGNED, np.full((50, 1), 7.0)], axis=1)
    amounts = Amounts.fit([still])
    for remembered in (amounts.log_counts(still, 3.0), amounts.seen_yet(still)):
        assert np.isfinite(remembered).all()


@pytest.mark.parametrize("half_life", [0.0, -1.0, float("inf")])
def test_a_half_life_without_meaning_is_refused(half_life: float) -> None:
    with pytest.raises(InputError, match="half-life must be above 0"):
        exponential_averages(SIGNED, [half_life])
