from collections.abc import Iterator

import numpy as np
import pytest

from keystep.data.time_scale import decorrelation_time
from keystep.errors import InputError


def wandering(frames: int, half_life: float, seed: int, width: int = 12) -> np.ndarray:
    """(frames, width) of a process whose autocorrelation is one half after ``half_life`` frames."""
    kept = 0.5 ** (1 / half_life)
    noise = np.random.default_rng(seed).normal(size=(frames, width)) * np.sqrt(1 - kept**2)
    video = np.zeros((frames, width))
    for frame in range(1, frames):
        video[frame] = kept * video[frame - 1] + noise[frame]
    return video


VIDEOS = [wandering(4000, 12.0, seed) for seed in range(8)]


def test_the_half_life_of_a_known_process_is_found() -> None:
    clock = decorrelation_time(VIDEOS, rate=4)
    assert clock.low < 3.0 < clock.high
    assert clock.tau == pytest.approx(3.0, rel=0.1)


def test_it_is_an_average_over_all_lags_computed_one_by_one() -> None:
    centred = [video - video.mean(axis=0) for video in VIDEOS]
    variance = sum(np.square(video).sum(axis=0) for video in centred) / sum(map(len, centred))

    def correlation(lag: int) -> float:
        products = [(video[lag:] * video[: len(video) - lag] / variance).mean(axis=1) for video in centred]
        return float(np.concatenate(products).mean())

    lags = np.arange(30)
    relative = np.array([correlation(lag) for lag in lags]) / correlation(0)
    expected = np.interp(-0.5, -relative[:20], lags[:20])
    assert decorrelation_time(VIDEOS, rate=1).tau == pytest.approx(expected, rel=1e-6)


def test_seconds_do_not_hang_on_the_rate() -> None:
    slow = [wandering(4000, 24.0, seed) for seed in range(8)]
    at_half_rate = [video[::2] for video in slow]
    assert decorrelation_time(slow, 8).tau == pytest.approx(decorrelation_time(at_half_rate, 4).tau, rel=0.02)


def test_offsets_of_videos_and_scales_of_channels_count_for_nothing() -> None:
    scale = np.geomspace(1e-3, 1e3, VIDEOS[0].shape[1])
    moved = [video * scale + 100 * number for number, video in enumerate(VIDEOS)]
    assert decorrelation_time(moved, 4).tau == pytest.approx(decorrelation_time(VIDEOS, 4).tau, rel=1e-6)


def test_videos_may_come_from_a_generator_and_differ_in_length() -> None:
    def read() -> Iterator[np.ndarray]:
        yield from (video[: 500 * (number + 1)] for number, video in enumerate(VIDEOS))

    assert decorrelation_time(read(), 4) == decorrelation_time(list(read()), 4)


def test_a_still_video_and_one_of_a_single_frame_say_nothing() -> None:
    others = [np.ones((90, 12)), VIDEOS[0][:1]]
    assert decorrelation_time([*VIDEOS, *others], 4).tau == pytest.approx(decorrelation_time(VIDEOS, 4).tau, rel=1e-9)


def test_a_channel_that_never_changes_is_left_out() -> None:
    still = [np.concatenate([video, np.full((len(video), 1), 7.0)], axis=1) for video in VIDEOS]
    assert decorrelation_time(still, 4) == decorrelation_time(VIDEOS, 4)


@pytest.mark.parametrize(
    ("videos", "said"),
    [
        ([], "no videos"),
        ([np.full((50, 3), 2.0)], "are constant"),
        ([np.full((50, 3), 1e6) + np.random.default_rng(0).normal(size=(50, 3)) * 1e-4], "are constant"),
        ([np.ones((1, 3)), np.zeros((1, 3))], "are constant"),
    ],
)
def test_features_without_a_time_scale_are_refused_in_one_line(videos: list[np.ndarray], said: str) -> None:
    with pytest.raises(InputError, match=said):
        decorrelation_time(videos, 1)
