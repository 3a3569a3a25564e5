from dataclasses import asdict

import numpy as np
import pytest
from scipy.stats import spearmanr

from keystep.errors import InputError
from keystep.evals.geometry import Geometry, median_geometry


def video_geometry(latents: np.ndarray, points: int = 256) -> Geometry:
    """Of one video."""
    return median_geometry([latents], points=points)


def arc(degrees: float, count: int = 100) -> np.ndarray:
    """Even steps along a circle of radius 3."""
    angle = np.radians(np.linspace(0, degrees, count))
    return 3 * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def slow_geometry(frames: np.ndarray) -> Geometry:
    """Straight from the formulas, frame by frame."""
    unit = [frame / np.linalg.norm(frame) for frame in frames.astype(float)]
    count, direction = len(unit), unit[-1] - unit[0]
    along = [(z - unit[0]) @ direction / (direction @ direction) for z in unit]
    path = sum(np.linalg.norm(unit[i + 1] - unit[i]) for i in range(count - 1))
    nearest = [min((np.linalg.norm(unit[i] - unit[j]), j) for j in range(count) if j != i)[1] for i in range(count)]
    return Geometry(
        straightness=np.linalg.norm(direction) / path,
        time_progress_spearman=spearmanr(along, range(count)).statistic,
        progress_efficiency=1 / sum(abs(along[i + 1] - along[i]) for i in range(count - 1)),
        monotonic_fraction=np.mean([along[i + 1] > along[i] for i in range(count - 1)]),
        adjacent_nearest_neighbours=np.mean([abs(i - j) == 1 for i, j in enumerate(nearest)]),
        adjacent_cosine_distance=np.mean([1 - unit[i] @ unit[i + 1] for i in range(count - 1)]),
        start_end_displacement=np.linalg.norm(direction),
    )


@pytest.mark.parametrize("seed", range(3))
def test_numbers_equal_their_formulas_on_a_random_walk(seed: int) -> None:
    walk = np.random.default_rng(seed).normal(size=(80, 6)).cumsum(axis=0)
    assert asdict(video_geometry(walk)) == pytest.approx(asdict(slow_geometry(walk)))


def test_a_straight_line_is_perfectly_ordered() -> None:
    line = np.linspace(0, 1, 100)[:, None] * np.array([0.0, 0.02]) + np.array([1.0, 0.0])
    geometry = video_geometry(line)
    assert geometry.straightness == pytest.approx(1, abs=1e-4)
    ordered = (geometry.time_progress_spearman, geometry.progress_efficiency, geometry.monotonic_fraction)
    assert ordered == pytest.approx((1, 1, 1))
    assert geometry.adjacent_nearest_neighbours == 1
    assert geometry.start_end_displacement == pytest.approx(0.02, rel=1e-3)


def test_a_half_circle_has_the_straightness_of_its_chord_over_its_arc() -> None:
    geometry = video_geometry(arc(180))
    assert geometry.straightness == pytest.approx(2 / np.pi, rel=1e-3)
    assert geometry.start_end_displacement == pytest.approx(2)
    assert geometry.adjacent_cosine_distance == pytest.approx(1 - np.cos(np.pi / 99))
    assert geometry.monotonic_fraction == 1


def test_on_three_quarters_of_a_circle_progress_turns_back() -> None:
    geometry = video_geometry(arc(270, 1001), points=1001)
    # progress runs along (-1, -1): back for 45 degrees, forth for 180, back for 45
    assert geometry.progress_efficiency == pytest.approx(np.sqrt(2) / (2 + 2 * (1 - np.sqrt(0.5))), rel=1e-3)
    assert geometry.monotonic_fraction == pytest.approx(180 / 270, abs=0.01)


def test_a_closed_loop_goes_nowhere() -> None:
    geometry = video_geometry(arc(360))
    progress = (geometry.time_progress_spearman, geometry.progress_efficiency, geometry.monotonic_fraction)
    assert progress == (0, 0, 0)
    assert (geometry.straightness, geometry.start_end_displacement) == (0, 0)
    assert geometry.adjacent_cosine_distance > 0


@pytest.mark.parametrize("brightness", [1.0, np.linspace(0.1, 7, 50)[:, None]])
def test_a_collapsed_representation_scores_zero_everywhere(brightness: float | np.ndarray) -> None:
    constant = np.broadcast_to(np.array([0.3, -0.7, 0.1]), (50, 3)) * brightness
    assert list(asdict(video_geometry(constant)).values()) == pytest.approx([0] * 7, abs=1e-12)
    assert set(asdict(video_geometry(np.zeros((9, 4)))).values()) == {0.0}


def test_independent_noise_has_no_order() -> None:
    videos = [np.random.default_rng(seed).normal(size=(200, 16)) for seed in range(15)]
    geometry = median_geometry(videos)
    assert geometry.adjacent_nearest_neighbours < 0.03
    assert geometry.monotonic_fraction == pytest.approx(0.5, abs=0.03)
    assert abs(geometry.time_progress_spearman) < 0.1
    assert geometry.straightness < 0.01
    assert geometry.adjacent_cosine_distance == pytest.approx(1, abs=0.03)


def test_the_length_of_frames_does_not_matter() -> None:
    walk = np.random.default_rng(0).normal(size=(60, 4)).cumsum(axis=0)
    louder = walk * np.random.default_rng(1).uniform(0.5, 100, (60, 1))
    assert asdict(video_geometry(louder)) == pytest.approx(asdict(video_geometry(walk)))


def test_a_long_video_is_thinned_to_its_first_last_and_evenly_spaced_frames() -> None:
    walk = np.random.default_rng(0).normal(size=(50_001, 3)).cumsum(axis=0)
    assert video_geometry(walk, points=101) == video_geometry(walk[::500], points=101)


def test_the_median_is_taken_number_by_number() -> None:
    videos = [np.random.default_rng(seed).normal(size=(30, 3)) for seed in range(4)]
    each = [asdict(video_geometry(video)) for video in videos]
    expected = {name: np.median([numbers[name] for numbers in each]) for name in each[0]}
    assert asdict(median_geometry(videos)) == pytest.approx(expected)


@pytest.mark.parametrize("broken", [np.ones((2, 4)), np.ones(9), np.array([[1.0], [np.nan], [2.0]])])
def test_an_unusable_video_is_named(broken: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"^video 1: "):
        median_geometry([arc(90), broken])


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(InputError, match="at least one video"):
        median_geometry([])
    with pytest.raises(InputError, match=r"\(100, 2\) and 2"):
        video_geometry(arc(90), points=2)
