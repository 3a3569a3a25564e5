from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystep.config import MaskingConfig
from keystep.masking import draw_hidden, hidden_count

KINDS = st.sampled_from(["random", "spans"])


def runs(hidden: np.ndarray) -> list[int]:
    """Lengths of the runs of hidden frames."""
    return [len(run) for run in "".join("x" if frame else " " for frame in hidden).split()]


@pytest.mark.parametrize(
    ("frames", "ratio", "count"),
    [
        (10, 0.6, 6),
        (5, 0.5, 2),
        (7, 0.5, 4),
        (3, 0.5, 2),
        (10, 0.01, 1),
        (10, 0.99, 9),
        (2, 0.9, 1),
        (1, 0.6, 0),
        (0, 0.6, 0),
    ],
)
def test_the_count_is_rounded_half_to_even_at_least_one_and_never_all(frames: int, ratio: float, count: int) -> None:
    assert hidden_count(frames, ratio) == count


@given(st.integers(2, 500), st.integers(1, 63))
def test_the_count_follows_the_authors_rule(frames: int, parts: int) -> None:
    exact = frames * Fraction(parts, 64)  # 64ths are exact in floating point, so ties are ties
    assert hidden_count(frames, parts / 64) == min(frames - 1, max(1, round(exact)))


@given(st.integers(0, 400), KINDS, st.floats(0.01, 0.99), st.integers(1, 40), st.integers(0, 40), st.integers(0, 99))
def test_exactly_that_many_frames_are_hidden(
    frames: int, kind: str, ratio: float, shortest: int, more: int, seed: int
) -> None:
    config = MaskingConfig(kind=kind, ratio=ratio, shortest=shortest, longest=shortest + more)  # type: ignore[arg-type]
    hidden = draw_hidden(frames, config, np.random.default_rng(seed))
    assert hidden.shape == (frames,) and hidden.dtype == bool and hidden.sum() == hidden_count(frames, ratio)


@pytest.mark.parametrize("kind", ["random", "spans"])
def test_the_generator_fixes_the_mask(kind: str) -> None:
    config = MaskingConfig(kind=kind, shortest=4, longest=32)  # type: ignore[arg-type]
    first, second, other = (draw_hidden(200, config, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first, second) and not np.array_equal(first, other)


@pytest.mark.parametrize("kind", ["random", "spans"])
@pytest.mark.parametrize(("frames", "ratio"), [(100, 0.6), (40, 0.25)])
def test_every_position_is_hidden_equally_often_the_ends_too(kind: str, frames: int, ratio: float) -> None:
    config = MaskingConfig(kind=kind, ratio=ratio, shortest=4, longest=32)  # type: ignore[arg-type]
    draws = 4000
    rng = np.random.default_rng(0)
    share = np.mean([draw_hidden(frames, config, rng) for _ in range(draws)], axis=0)
    expected = hidden_count(frames, ratio) / frames
    assert np.abs(share - expected).max() < 4.5 * np.sqrt(expected * (1 - expected) / draws)


def test_spans_are_as_long_as_asked_but_for_the_cut_one_and_those_that_touch() -> None:
    config = MaskingConfig(ratio=0.05, shortest=8, longest=12)
    rng, whole, all_runs = np.random.default_rng(0), 0, 0
    for _ in range(300):
        found = runs(draw_hidden(2000, config, rng))
        short = [length for length in found if length < 8]
        assert len(short) <= 3, "one span is cut to the count, and one by the crop's ends into two"
        whole += sum(8 <= length <= 12 for length in found)
        all_runs += len(found)
    assert whole > 0.8 * all_runs


def test_span_lengths_are_uniform_between_their_bounds() -> None:
    config, rng = MaskingConfig(ratio=0.01, shortest=2, longest=5), np.random.default_rng(0)
    lengths = [length for _ in range(200) for length in runs(draw_hidden(10_000, config, rng))]
    shares = np.bincount(lengths, minlength=6)[2:6] / len(lengths)
    assert np.abs(shares - 0.25).max() < 0.03


def test_spans_hide_neighbours_and_random_masks_do_not() -> None:
    found = {}
    for kind in ("random", "spans"):
        config, rng = MaskingConfig(kind=kind, shortest=4, longest=32), np.random.default_rng(0)
        found[kind] = np.mean([length for _ in range(50) for length in runs(draw_hidden(1000, config, rng))])
    assert found["random"] < 3 and found["spans"] > 15
