"""The forecaster reads the future off what it is given, and its file gives the same forecasts."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from keystep.errors import InputError
from keystep.evals.forecasting import fit_forecaster, weighted_quantiles
from keystep.foresight import Clock, Forecaster, load_forecaster
from keystep.persistence import load_tensors, read_metadata, save_tensors

NAMES, RATE = ("cut", "sew", "tie"), 2.0


class Video(NamedTuple):
    frames: np.ndarray
    labels: np.ndarray


def video(seed: int) -> Video:
    """Steps in a fixed order with random lengths; the frames show the step, and that of 5 s later."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1, 2, 1, 0, 2], rng.integers(8, 40, 6))
    later = np.concatenate([labels[10:], np.full(10, 2)])
    shown = np.concatenate([np.eye(3)[labels], np.eye(3)[later]], axis=1)
    return Video((shown + 0.1 * rng.normal(size=shown.shape)).astype(np.float32), labels)


def fit(train: Iterable[int], valid: Iterable[int], horizons: tuple[float, ...]) -> Forecaster:
    parts = [zip(*map(video, seeds), strict=True) for seeds in (train, valid)]
    return fit_forecaster(*(list(each) for part in parts for each in part), names=NAMES, rate=RATE, horizons=horizons)


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    return fit(range(12), range(20, 24), (1.0, 5.0))


def test_what_the_frames_show_of_the_future_is_read(forecaster: Forecaster) -> None:
    tested = video(40)
    found = forecaster.forecast(tested.frames)
    assert (found.now.argmax(1) == tested.labels).mean() > 0.98
    assert (found.later[1].argmax(1)[:-10] == tested.labels[10:]).mean() > 0.95
    assert found.later.shape == (2, len(tested.labels), 4) and found.following.shape == (len(tested.labels), 4)
    assert found.later.sum(2) == pytest.approx(1) and found.following.sum(1) == pytest.approx(1)


def test_times_have_their_range_and_their_interval(forecaster: Forecaster) -> None:
    for seed in range(40, 44):
        found = forecaster.forecast(video(seed).frames)
        for each in (found.start, found.remaining, found.progress):
            assert (each.low <= each.high).all() and (each.low >= 0).all()
        assert (found.start.expected >= 1 / RATE).all() and (found.progress.expected <= 1).all()


def test_chunks_give_the_forecasts_of_the_whole_video(forecaster: Forecaster) -> None:
    frames = video(40).frames
    whole, chunk = forecaster.forecast(frames), forecaster.forecast(frames[30:50], first=30)
    assert chunk.later == pytest.approx(whole.later[:, 30:50], abs=1e-6)
    assert chunk.remaining.high == pytest.approx(whole.remaining.high[30:50], rel=1e-5)


def test_the_file_gives_the_same_forecasts(forecaster: Forecaster, tmp_path: Path) -> None:
    forecaster.save(tmp_path / "f.safetensors")
    loaded, frames = load_forecaster(tmp_path / "f.safetensors"), video(40).frames
    assert (loaded.names, loaded.horizons, loaded.rate, loaded.origin) == (NAMES, (1.0, 5.0), RATE, {})
    one, other = forecaster.forecast(frames), loaded.forecast(frames)
    assert (one.later == other.later).all() and (one.start.low == other.start.low).all()


def test_what_does_not_fit_is_refused_in_one_line(forecaster: Forecaster, tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    forecaster.save(path)
    tensors, header = load_tensors(path), read_metadata(path)
    for name, change, words in (
        ("margins", lambda x: x[:2], "weights do not fit"),
        ("weight", lambda x: x * float("nan"), "damaged: NaN"),
        ("durations", lambda x: -x, "damaged: NaN or infinite numbers, or durations"),
    ):
        save_tensors(path, {**tensors, name: change(tensors[name])}, header)
        with pytest.raises(InputError, match=words):
            load_forecaster(path)
    save_tensors(path, tensors, {**header, "forecaster": "{}"})
    with pytest.raises(InputError, match="its record is damaged"):
        load_forecaster(path)
    with pytest.raises(InputError, match=r"shape \(3, 2\); this forecaster reads \(T, 6\)"):
        forecaster.forecast(np.zeros((3, 2), np.float32))
    with pytest.raises(InputError, match=r"a horizon of 0\.1 s is less than a slot at 2 Hz"):
        fit([0], [1], (0.1,))
    (frames, labels), unknown = video(0), np.full(len(video(0).labels), -100)
    with pytest.raises(InputError, match="no validation frame has a label"):
        fit_forecaster([frames], [labels], [frames], [unknown], names=NAMES, rate=RATE, horizons=(1.0,))


def test_the_clock_is_the_median_of_the_videos_that_go_on() -> None:
    clock = Clock(np.array([10.0, 20.0, 40.0]))
    assert clock.remaining(np.array([0.0, 10.0, 15.0, 20.0, 50.0])).tolist() == [20.0, 20.0, 15.0, 20.0, 0.0]
    assert clock.progress(np.array([0.0, 20.0, 60.0])).tolist() == [0.0, 0.5, 1.0]


def test_margins_weigh_videos_alike() -> None:
    short, long = np.linspace(0, 1, 11), np.full(1000, 5.0)
    weights = np.concatenate([np.full(11, 1 / 11), np.full(1000, 1 / 1000)])
    low, high = weighted_quantiles(np.concatenate([short, long]), weights)
    assert low == pytest.approx(0.1) and high == 5
