from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from keystep.data import statistics
from keystep.data.folder import FeatureFolder, open_dataset
from keystep.data.problems import Problems
from keystep.data.statistics import measure
from keystep.errors import InputError

MakeFolder = Callable[..., Path]


def opened(root: Path, on_error: str = "raise") -> FeatureFolder:
    return open_dataset(root, source_rate=Fraction(30), problems=Problems(on_error=on_error))  # type: ignore[arg-type]


def shifted(root: Path, change: Callable[[np.ndarray, int], np.ndarray]) -> Path:
    """Replace each stored array (D, T) by ``change(array, number of the video)``."""
    for number, path in enumerate(sorted((root / "features").iterdir())):
        np.save(path, change(np.load(path), number))
    return root


@pytest.mark.parametrize("centred", [False, True])
def test_mean_and_deviation_are_those_of_all_frames_together(make_folder: MakeFolder, centred: bool) -> None:
    root = shifted(make_folder(), lambda array, number: (1 + number) * array + 10 * number)
    folder = opened(root)
    frames = [folder.features(name).astype(np.float64) for name in folder.videos]
    together = np.concatenate([video - video.mean(0) for video in frames] if centred else frames)
    measured, readable = measure(folder, folder.videos, 0, centred=centred)
    np.testing.assert_allclose(measured.mean, together.mean(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(measured.deviation, together.std(0), rtol=1e-5)
    assert readable == tuple(folder.videos) and measured.mean.dtype == measured.deviation.dtype == np.float32


@pytest.mark.parametrize("centred", [False, True])
def test_of_several_tokens_a_frame_mean_and_deviation_are_those_of_all_tokens(
    make_folder: MakeFolder, centred: bool
) -> None:
    folder = opened(shifted(make_folder(), lambda array, number: (1 + number) * array + 10 * number))
    frames = [folder.features(name).astype(np.float64) for name in folder.videos]
    single = [video.reshape(-1, 2) for video in frames]
    together = np.concatenate([video - video.mean(0) for video in single] if centred else single)
    measured, _ = measure(folder.with_tokens(3), folder.videos, 0, centred=centred)
    np.testing.assert_allclose(measured.mean, together.mean(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(measured.deviation, together.std(0), rtol=1e-5)
    whole = np.concatenate([video - video.mean(0) for video in frames] if centred else frames)
    assert measured.sample.shape == whole.shape  # so few frames are all kept
    np.testing.assert_allclose(np.sort(measured.sample, axis=0), np.sort(whole, axis=0), rtol=1e-5, atol=1e-5)


def test_a_small_movement_on_a_large_offset_is_not_lost(make_folder: MakeFolder) -> None:
    root = shifted(make_folder(), lambda array, number: (array + 1e5).astype(np.float64))
    folder = opened(root)
    together = np.concatenate([folder.features(name) for name in folder.videos]).astype(np.float64)
    np.testing.assert_allclose(measure(folder, folder.videos, 0)[0].deviation, together.std(0), rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-4, 1e-9])
def test_small_units_are_standardised_too(make_folder: MakeFolder, scale: float) -> None:
    folder = opened(shifted(make_folder(), lambda array, number: (scale * array).astype(np.float32)))
    assert np.all(measure(folder, folder.videos, 0)[0].deviation < 2 * scale)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("value", [0.0, 0.1, 123.456, -1e6])
def test_channels_that_never_change_get_deviation_one(make_folder: MakeFolder, value: float, centred: bool) -> None:
    def still(array: np.ndarray, number: int) -> np.ndarray:
        array[2] = value
        return array

    folder = opened(shifted(make_folder(), still))
    measured, _ = measure(folder, folder.videos, 0, centred=centred)
    assert measured.deviation[2] == 1 and not np.any(measured.deviation[[0, 1, 3]] == 1)
    assert measured.mean[2] == (0 if centred else np.float32(value))


def test_the_sample_holds_real_frames_of_every_video(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "SAMPLE_FRAMES", 60)
    folder = opened(make_folder())
    sample = measure(folder, folder.videos, 0)[0].sample
    assert sample.shape == (60, 6) and sample.dtype == np.float32
    for number, name in enumerate(folder.videos):
        own = {row.tobytes() for row in folder.features(name)}
        assert all(row.tobytes() in own for row in sample[10 * number : 10 * number + 10])
    again, other = (measure(folder, folder.videos, seed)[0].sample for seed in (0, 1))
    assert np.array_equal(sample, again) and not np.array_equal(sample, other)


def test_a_centred_sample_holds_centred_frames(make_folder: MakeFolder) -> None:
    folder = opened(shifted(make_folder(), lambda array, number: array + 100 * number))
    sample = measure(folder, folder.videos, 0, centred=True)[0].sample
    assert len(sample) == sum(folder.length(name) for name in folder.videos) and np.abs(sample).max() < 10


@pytest.mark.parametrize("centred", [False, True])
def test_a_smoothed_sample_holds_averages_and_leaves_the_statistics_alone(
    make_folder: MakeFolder, centred: bool
) -> None:
    folder = opened(make_folder(lengths={"a": 40, "b": 50}))
    plain, smoothed = (measure(folder, folder.videos, 0, centred=centred, smooth=width)[0] for width in (1, 5))
    video = folder.features("a") - (folder.features("a").mean(0) if centred else 0)
    for frame in (2, 17, 37):
        np.testing.assert_allclose(smoothed.sample[frame], video[frame - 2 : frame + 3].mean(0), atol=1e-5)
    assert smoothed.sample.shape == plain.sample.shape
    assert np.array_equal(smoothed.mean, plain.mean) and np.array_equal(smoothed.deviation, plain.deviation)


def test_bad_videos_stop_the_pass_or_are_left_out_and_listed(make_folder: MakeFolder) -> None:
    def spoil(array: np.ndarray, number: int) -> np.ndarray:
        if number == 1:
            array[0, 7] = np.nan
        return array

    root = shifted(make_folder(), spoil)
    with pytest.raises(InputError, match=r"video1\.npy: NaN or infinite value in frame 7"):
        measure(opened(root), opened(root).videos, 0)
    folder = opened(root, "skip")
    seen: list[str] = []
    measured, readable = measure(folder, folder.videos, 0, progress=seen.append)
    assert readable == ("video0", "video2", "video3", "video4", "video5") and len(seen) == 6
    assert list(folder.problems.skipped) == ["video1"] and np.isfinite(measured.mean).all()
    assert "video1" not in {*folder.split("1").train, *folder.split("1").valid}
    with pytest.raises(InputError, match="none of 1 videos can be read"):
        measure(folder, ["video1"], 0)
