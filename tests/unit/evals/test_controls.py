from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from sklearn.decomposition import PCA

from keystep.errors import InputError
from keystep.evals.controls import (
    CAUSAL_OFFSETS_SECONDS,
    OFFSETS_SECONDS,
    WIDTHS_SECONDS,
    Control,
    FramePCA,
    centre,
    elapsed,
    moving_average,
    offset_controls,
    plain_controls,
    progress,
    running_centre,
    segment_means,
    smoothing_controls,
    temporal_offsets,
    token_widths,
)

RATE = Fraction(15, 4)
RANDOM = np.random.default_rng(0)
VIDEO = (RANDOM.normal(size=(90, 5)).cumsum(axis=0) + 1000).astype(np.float32)
TRAIN = [RANDOM.normal(size=(length, 5)) @ RANDOM.normal(size=(5, 5)) for length in (40, 60)]
ALL: list[Control] = [
    *plain_controls(),
    *[control for causal in (True, False) for control in smoothing_controls(RATE, causal=causal)],
    *[control for causal in (True, False) for control in smoothing_controls(RATE, causal=causal, position="elapsed")],
    *smoothing_controls(RATE, causal=False, position="progress"),
    *[
        control
        for causal in (True, False)
        for control in offset_controls(TRAIN, RATE, causal=causal, components=(3, 9))
    ],
]


def future_changes_the_past(transform: Callable[[np.ndarray], np.ndarray]) -> bool:
    """Whether another future, or none, changes what was said before it, in a video longer than any window."""
    video = np.tile(VIDEO, (5, 1))
    whole = transform(video)
    for cut in (1, 2, 30, 89):
        disturbed = video.copy()
        disturbed[cut:] = 1e4 * np.random.default_rng(cut).normal(size=disturbed[cut:].shape)
        for other in (transform(disturbed)[:cut], transform(video[:cut])):
            # another length may round apart, by some 1e-4 around 1000; a future of some 1e4 changes far more
            if not np.allclose(other, whole[:cut], rtol=0, atol=1e-3):
                return True
    return False


@pytest.mark.parametrize("control", ALL, ids=lambda control: control.name)
def test_a_control_is_causal_exactly_when_it_says_so(control: Control) -> None:
    assert future_changes_the_past(control.transform) is not control.causal
    output = control.transform(VIDEO)
    assert output.dtype == np.float32 and output.ndim == 2 and len(output) == len(VIDEO)
    assert np.isfinite(output).all()


def test_every_control_has_its_own_name() -> None:
    assert len({control.name for control in ALL}) == len(ALL)
    assert not any(control.oracle for control in ALL)


def test_the_clock_is_causal_and_progress_is_not() -> None:
    assert not future_changes_the_past(lambda video: elapsed(len(video), RATE))
    assert future_changes_the_past(lambda video: progress(len(video)))


@pytest.mark.parametrize("width", [1, 2, 7, 89, 500])
@pytest.mark.parametrize("causal", [True, False])
def test_moving_average_equals_the_mean_over_the_window_that_exists(width: int, causal: bool) -> None:
    width += not causal and width % 2 == 0
    reach = width // 2
    expected = [
        VIDEO[max(0, t - width + 1) : t + 1].mean(0, dtype=float)
        if causal
        else VIDEO[max(0, t - reach) : t + reach + 1].mean(0, dtype=float)
        for t in range(len(VIDEO))
    ]
    np.testing.assert_allclose(moving_average(VIDEO, width, causal=causal), expected, rtol=1e-6)


def test_moving_average_of_a_long_constant_video_does_not_drift() -> None:
    constant = np.full((200_000, 1), 1234.567, dtype=np.float32)
    # a sum divided by its count is another operation than the constant: one float32 step, where a drift is hundreds
    np.testing.assert_allclose(moving_average(constant, 41, causal=False), constant, rtol=2e-7)


@pytest.mark.parametrize(("width", "causal"), [(4, False), (0, False), (0, True), (-3, False)])
def test_a_window_without_a_middle_or_without_frames_is_refused(width: int, causal: bool) -> None:
    with pytest.raises(InputError, match=f"over {width} frames"):
        moving_average(VIDEO, width, causal=causal)


def test_running_centre_removes_the_mean_of_the_frames_so_far() -> None:
    expected = [VIDEO[t] - VIDEO[: t + 1].mean(0, dtype=float) for t in range(len(VIDEO))]
    np.testing.assert_allclose(running_centre(VIDEO), expected, atol=1e-4)
    assert (running_centre(VIDEO)[0] == 0).all()


def test_centring_leaves_no_mean_and_forgets_any_offset() -> None:
    assert np.abs(centre(VIDEO).mean(0, dtype=float)).max() < 1e-5
    np.testing.assert_allclose(centre(VIDEO + 64), centre(VIDEO), atol=1e-3)


def test_the_clock_counts_minutes_and_progress_counts_the_video() -> None:
    assert elapsed(241, 4)[-1] == pytest.approx([1, np.log(2)])
    assert progress(4)[:, 0].tolist() == [0, 0.25, 0.5, 0.75]


def test_temporal_offsets_stack_frames_and_repeat_the_edges() -> None:
    seconds = (-10.0, 0.0, 0.6)
    stacked = temporal_offsets(VIDEO, 5, seconds)
    for t in (0, 3, 49, 50, 86, 89):
        expected = [VIDEO[min(max(t + shift, 0), 89)] for shift in (-50, 0, 3)]
        np.testing.assert_array_equal(stacked[t], np.concatenate(expected))


def test_both_sets_of_offsets_have_nine_moments_and_the_causal_one_no_future() -> None:
    assert len(set(OFFSETS_SECONDS)) == len(set(CAUSAL_OFFSETS_SECONDS)) == 9
    assert max(CAUSAL_OFFSETS_SECONDS) == 0 < max(OFFSETS_SECONDS)


def test_principal_components_equal_those_of_scikit_learn_up_to_sign() -> None:
    reference = PCA(3, svd_solver="full").fit(np.concatenate(TRAIN))
    ours, theirs = FramePCA.fit(TRAIN, 3).transform(VIDEO), reference.transform(VIDEO)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), rtol=1e-3, atol=1e-2)


def test_narrow_features_keep_all_their_components_and_are_offered_once() -> None:
    assert FramePCA.fit(TRAIN, 24).transform(VIDEO).shape == (90, 5)
    assert [control.name for control in offset_controls(TRAIN, 4, causal=False)] == ["offsets of 5 components"]


def test_segment_means_average_each_run_of_a_label() -> None:
    labels = np.array([1] * 10 + [2] * 5 + [1] * 74 + [3])
    means = segment_means(VIDEO, labels)
    for start, stop in ((0, 10), (10, 15), (15, 89), (89, 90)):
        expected = np.broadcast_to(VIDEO[start:stop].mean(0, dtype=float), (stop - start, 5))
        np.testing.assert_allclose(means[start:stop], expected, rtol=1e-6)
    with pytest.raises(InputError, match="90 frames need as many labels"):
        segment_means(VIDEO, labels[:-1])


@pytest.mark.parametrize("rate", [1, RATE, 5, 30, 29.97])
def test_token_widths_are_odd_rising_and_near_the_seconds_asked_for(rate: float) -> None:
    widths = token_widths(rate)
    assert all(width % 2 == 1 for width in widths)
    assert list(widths) == sorted(set(widths))
    assert all(min(abs(width - seconds * rate) for width in widths) <= 1 for seconds in WIDTHS_SECONDS)


def test_a_causal_control_cannot_ask_for_progress() -> None:
    with pytest.raises(InputError, match="use elapsed"):
        smoothing_controls(4, causal=True, position="progress")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (np.ones(5), r"shape \(5,\)"),
        (np.ones((0, 5)), "at least one frame"),
        (np.array([[0.0], [np.nan]]), "frame 1: NaN"),
    ],
)
@pytest.mark.parametrize("function", [centre, running_centre, lambda x: moving_average(x, 3, causal=True)])
def test_unusable_features_are_refused_by_name(
    function: Callable[..., object], broken: np.ndarray, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        function(broken)


@pytest.mark.parametrize(
    "call",
    [
        lambda: token_widths(0),
        lambda: token_widths(4, ()),
        lambda: token_widths(4, (0.0,)),
        lambda: elapsed(3, -1),
        lambda: temporal_offsets(VIDEO, 4, ()),
        lambda: FramePCA.fit([], 3),
        lambda: FramePCA.fit(TRAIN, 0),
        lambda: FramePCA.fit([np.ones((3, 2)), np.ones((3, 4))], 1),
        lambda: FramePCA.fit(TRAIN, 3).transform(np.ones((3, 2))),
    ],
)
def test_settings_without_meaning_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(InputError):
        call()
