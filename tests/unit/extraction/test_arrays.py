"""Pictures in memory: their times mean what a person means by them."""

from fractions import Fraction

import numpy as np
import pytest

from keystep.errors import InputError
from keystep.extraction.backbone import ClipSpec, Picture
from keystep.extraction.sampling import Sampling, sample
from keystep.extraction.video.arrays import array_frames

PICTURE = Picture(height=2, width=2)


def shown(times: list[Fraction] | list[float], sampling: Sampling) -> list[list[int]]:
    """What each slot saw."""
    images = [np.full((2, 2, 3), index, np.uint8) for index in range(len(times))]
    return [made.seen.tolist() for made in sample(array_frames(images, times), sampling, PICTURE)]


@pytest.mark.parametrize("rate", [10, 25, 30])
@pytest.mark.parametrize("window", ["center", "right"])
@pytest.mark.parametrize("start", [0, 1_700_000_000])
def test_float_seconds_show_the_frames_that_fractions_show(rate: int, window: str, start: int):
    sampling = Sampling(rate=Fraction(rate), clip=ClipSpec(frames=3, frame_rate=Fraction(rate)), window=window)  # type: ignore[arg-type]
    exact = [start + Fraction(index, rate) for index in range(60)]
    assert shown([start + index / rate for index in range(60)], sampling) == shown(exact, sampling)


def test_clocks_of_real_cameras_jitter_and_nothing_later_than_the_moment_is_seen():
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.02, 0.05, 200)).tolist()
    sampling = Sampling(rate=Fraction(4), clip=ClipSpec(frames=4, frame_rate=Fraction(8)), window="right")
    images = [np.zeros((2, 2, 3), np.uint8)] * len(times)
    for made in sample(array_frames(images, times), sampling, PICTURE):
        assert times[made.seen[0, 2]] <= made.slots[0] / 4 + 1e-6


@pytest.mark.parametrize(
    ("images", "times", "says"),
    [
        (2, [0.0], "frame 1 has no time"),
        (1, [0.0, 1.0], "more times than images"),
        (2, [0.0, float("nan")], "frame 1 at nan s is not after"),
    ],
)
def test_times_that_do_not_fit_are_one_line(images: int, times: list[float], says: str):
    with pytest.raises(InputError, match=says):
        list(array_frames([np.zeros((2, 2, 3), np.uint8)] * images, times))


@pytest.mark.parametrize("interpolation", ["area", "bilinear", "bicubic"])
def test_pictures_are_resized_and_cropped_in_the_middle(interpolation: str):
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, 10:50] = 200  # the middle that stays, and bars that are cut off
    (frame,) = array_frames([image], [0])
    picture = Picture(height=8, width=8, short=8, interpolation=interpolation)  # type: ignore[arg-type]
    made = frame.rgb(picture)
    assert made.shape == (8, 8, 3) and np.abs(made[2:6, 1:7].astype(int) - 200).max() <= 4
