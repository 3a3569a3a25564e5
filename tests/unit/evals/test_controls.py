from collections.abc import Callable

import numpy as np
import pytest
from sklearn.decomposition import PCA

from keystep.errors import InputError
from keystep.evals.candidates import HALF_LIVES, HISTORIES, REACHES, WIDTHS, Candidates, offsets_within
from keystep.evals.controls import (
    Control,
    FramePCA,
    averaged_offsets,
    centre,
    elapsed,
    moving_average,
    nearest_odd,
    progress,
    running_centre,
    segment_means,
)

RATE = 3.75
TAU = 0.8
"""Seconds: three frames."""
RANDOM = np.random.default_rng(0)
VIDEO = (RANDOM.normal(size=(90, 5)).cumsum(axis=0) + 1000).astype(np.float32)
TRAIN = [
    (RANDOM.normal(size=(length, 5)) @ RANDOM.normal(size=(5, 5)) + 1000).astype(np.float32) for length in (40, 60)
]
NARROW = Candidates(TRAIN, RATE, TAU)


def wide_candidates() -> Candidates:
    """Features wider than what is kept of them."""
    return Candidates([RANDOM.normal(size=(300, 70)).astype(np.float32)], RATE, TAU)


def controls_of(candidates: Candidates) -> list[Control]:
    """Every control that can stand in a table."""
    found = [
        *candidates.smoothing(causal=False, position="progress"),
        *[each for causal in (True, False) for each in candidates.smoothing(causal=causal, position="elapsed")],
    ]
    for causal in (True, False):
        smoothing, offsets = candidates.smoothing(causal=causal), candidates.offsets(causal=causal)
        found += [*smoothing, *offsets, *candidates.histories(causal=causal).values()]
        found += [candidates.together(one, other, causal=causal) for one in smoothing[:2] for other in offsets[:2]]
    return found


ALL = controls_of(NARROW)


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
    with pytest.raises(InputError, match=f"not {width}$"):
        moving_average(VIDEO, width, causal=causal)


def test_running_centre_removes_the_mean_of_the_frames_so_far() -> None:
    expected = [VIDEO[t] - VIDEO[: t + 1].mean(0, dtype=float) for t in range(len(VIDEO))]
    np.testing.assert_allclose(running_centre(VIDEO), expected, atol=1e-4)
    assert (running_centre(VIDEO)[0] == 0).all()


def test_centring_leaves_no_mean_and_forgets_any_offset() -> None:
    assert np.abs(centre(VIDEO).mean(0, dtype=float)).max() < 1e-5
    np.testing.assert_allclose(centre(VIDEO + 64), centre(VIDEO), atol=1e-3)


def test_the_clock_counts_in_tau_and_progress_counts_the_video() -> None:
    assert elapsed(241, 240)[-1] == pytest.approx([1, np.log(2)])
    assert progress(4)[:, 0].tolist() == [0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("offset", [-40.0, -7.4, -1.2, 0.0, 3.0, 11.6, 60.0])
def test_a_moment_is_averaged_over_half_its_distance_where_frames_exist(offset: float) -> None:
    centre_of, reach = round(offset), nearest_odd(abs(offset) / 2) // 2
    found = averaged_offsets(VIDEO, [offset])
    for t in (0, 3, 30, 49, 86, 89):
        first, last = (min(max(t + centre_of + step, 0), 89) for step in (-reach, reach))
        np.testing.assert_allclose(found[t], VIDEO[first : last + 1].mean(0, dtype=float), rtol=1e-6)


def test_moments_stand_side_by_side_and_equal_ones_count_once() -> None:
    assert averaged_offsets(VIDEO, [-8.0, 0.0, 8.0]).shape == (90, 15)
    np.testing.assert_array_equal(averaged_offsets(VIDEO, [-0.3, 0.0, 0.4]), VIDEO)


def test_offsets_double_up_to_their_reach_and_causal_ones_have_no_future() -> None:
    assert offsets_within(7.2, causal=False) == (-7.2, -3.6, -1.8, -0.9, 0.0, 0.9, 1.8, 3.6, 7.2)
    assert offsets_within(7.2, causal=True) == (-7.2, -3.6, -1.8, -0.9, -0.45, 0.0)
    for reach in REACHES:
        assert offsets_within(reach, causal=False)[-1] == -offsets_within(reach, causal=True)[0] == reach


def test_principal_components_equal_those_of_scikit_learn_up_to_sign() -> None:
    reference = PCA(3, svd_solver="full").fit(np.concatenate(TRAIN))
    ours, theirs = FramePCA.fit(TRAIN, 3).transform(VIDEO), reference.transform(VIDEO)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), rtol=1e-3, atol=1e-2)


def test_narrow_features_keep_all_their_components() -> None:
    assert FramePCA.fit(TRAIN, 24).transform(VIDEO).shape == (90, 5)


def test_segment_means_average_each_run_of_a_label() -> None:
    labels = np.array([1] * 10 + [2] * 5 + [1] * 74 + [3])
    means = segment_means(VIDEO, labels)
    for start, stop in ((0, 10), (10, 15), (15, 89), (89, 90)):
        expected = np.broadcast_to(VIDEO[start:stop].mean(0, dtype=float), (stop - start, 5))
        np.testing.assert_allclose(means[start:stop], expected, rtol=1e-6)
    with pytest.raises(InputError, match=r"labels have shape .*; expected \(90,\)"):
        segment_means(VIDEO, labels[:-1])


@pytest.mark.parametrize("tau", [0.1, 1.0, 7.3, 35.0])
def test_widths_are_those_of_the_same_data_in_another_time(tau: float) -> None:
    """Features at twice the rate, half as long alike: the same frames, and the same controls of them."""
    slow, fast = Candidates(TRAIN, 1.0, tau), Candidates(TRAIN, 2.0, tau / 2)
    for one, other in zip(controls_of(slow), controls_of(fast), strict=True):
        np.testing.assert_array_equal(one.transform(VIDEO), other.transform(VIDEO))


def test_the_last_of_the_widths_and_reaches_says_that_it_is_the_last() -> None:
    for causal in (True, False):
        assert [bool(each.edge) for each in NARROW.smoothing(causal=causal)][-2:] == [False, True]
        assert [bool(each.edge) for each in NARROW.offsets(causal=causal)] == [False] * 4 + [True] * 2
    assert WIDTHS[-1] == HALF_LIVES[-1] == 64


def test_all_controls_stand_side_by_side_in_named_bands() -> None:
    smoothing, offsets = NARROW.smoothing(causal=True), NARROW.offsets(causal=True)
    together = NARROW.together(smoothing[3], offsets[1], causal=True)
    assert list(together.parts) == ["frame", "average", "offsets", "history"], "nearest first"
    columns = np.concatenate([part.transform(VIDEO) for part in together.parts.values()], axis=1)
    np.testing.assert_array_equal(together.transform(VIDEO), columns)
    assert "average" not in NARROW.together(smoothing[0], offsets[1], causal=True).parts, "it is the frame itself"
    assert set(NARROW.histories(causal=True)) == set(HISTORIES)


def test_histories_of_wide_features_are_those_of_their_components() -> None:
    wide = wide_candidates()
    video = RANDOM.normal(size=(20, 70)).astype(np.float32)
    narrow = FramePCA.fit(wide.train, 64).transform(video)
    for name, width in (("mean so far", 64), ("log-counts", 128), ("seen yet", 256), ("exponential averages", 512)):
        assert wide.histories(causal=True)[name].transform(video).shape == (20, width)
    np.testing.assert_array_equal(wide.histories(causal=True)["mean so far"].transform(video)[0], narrow[0])


def test_all_controls_of_wide_features_are_no_thousands_of_columns() -> None:
    wide = Candidates([RANDOM.normal(size=(300, 200)).astype(np.float32)], RATE, TAU)
    for causal, history in ((True, 8 * 24 + 48 + 96 + 2), (False, 16 * 24 + 96 + 192 + 5)):
        offsets = wide.offsets(causal=causal)[0]
        together = wide.together(wide.smoothing(causal=causal)[3], offsets, causal=causal)
        widths = {name: part.transform(wide.train[0]).shape[1] for name, part in together.parts.items()}
        assert widths == {"frame": 128, "average": 128, "offsets": widths["offsets"], "history": history}
        assert widths["offsets"] <= 9 * 64


def test_a_causal_control_cannot_ask_for_progress() -> None:
    with pytest.raises(InputError, match="use elapsed"):
        NARROW.smoothing(causal=True, position="progress")


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
        lambda: Candidates(TRAIN, 0, 1),
        lambda: Candidates(TRAIN, 1, 0),
        lambda: Candidates(TRAIN, 1, float("inf")),
        lambda: elapsed(3, -1),
        lambda: averaged_offsets(VIDEO, ()),
        lambda: FramePCA.fit([], 3),
        lambda: FramePCA.fit(TRAIN, 0),
        lambda: FramePCA.fit([np.ones((3, 2)), np.ones((3, 4))], 1),
        lambda: FramePCA.fit(TRAIN, 3).transform(np.ones((3, 2))),
    ],
)
def test_settings_without_meaning_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(InputError):
        call()
