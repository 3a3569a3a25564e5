import numpy as np
import pytest
from sklearn.linear_model import Ridge

from keystep.data.annotation import IGNORED
from keystep.serve.ridge import DEFAULT_PENALTY, PENALTIES, Basis, Evidence, Sums, Weights, add, cross_validate

WIDTH, CLASSES = 6, 3
MEANS = np.random.default_rng(0).normal(size=(CLASSES, WIDTH))


def made(seed: int, length: int = 150, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Columns (T, K) and labels (T,) of a video, a tenth of them missing."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, length)
    columns = (MEANS[labels] + noise * random.normal(size=(length, WIDTH)) + 2).astype(np.float32)
    return columns, np.where(random.random(length) < 0.1, IGNORED, labels)


def evidence(seeds: range, noise: float = 1.0) -> dict[str, Evidence]:
    return {f"v{seed}": Evidence.of(*made(seed, noise=noise), CLASSES) for seed in seeds}


def refitted(seeds: list[int], penalty: float) -> Ridge:
    """From frames, by somebody else."""
    frames, labels = (np.concatenate(parts) for parts in zip(*map(made, seeds), strict=True))
    known = labels != IGNORED
    return Ridge(alpha=penalty * known.sum()).fit(frames[known].astype(float), np.eye(CLASSES)[labels[known]])


@pytest.mark.parametrize("penalty", PENALTIES[::5])
def test_added_sums_give_the_ridge_regression_of_all_frames(penalty: float) -> None:
    weights = add(each.sums for each in evidence(range(4)).values()).solve([penalty])[0]
    expected = refitted([0, 1, 2, 3], penalty)
    np.testing.assert_allclose(weights.weight.T, expected.coef_, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(weights.bias, expected.intercept_, rtol=1e-6)


def test_what_was_added_can_be_taken_away() -> None:
    one, other = (each.sums for each in evidence(range(2)).values())
    for name in ("counts", "total", "gram", "cross"):
        np.testing.assert_allclose(getattr(one + other - other, name), getattr(one, name), atol=1e-9)


def test_a_new_class_changes_no_other_weight() -> None:
    sums = evidence(range(1))["v0"].sums
    before, after = sums.solve([0.01])[0], sums.widened(CLASSES + 2).solve([0.01])[0]
    np.testing.assert_allclose(after.weight[:, :CLASSES], before.weight)
    assert not after.weight[:, CLASSES:].any() and not after.bias[CLASSES:].any()


def test_cross_validation_scores_each_video_as_a_fit_without_it_would() -> None:
    videos = range(4)
    found = cross_validate(evidence(videos)).accuracy
    right, counts = np.zeros((4, len(PENALTIES))), np.zeros(4)
    for video in videos:
        frames, labels = made(video)
        known = labels != IGNORED
        counts[video] = known.sum()
        for at, penalty in enumerate(PENALTIES):
            scores = refitted([other for other in videos if other != video], penalty).predict(frames[known])
            right[video, at] = (scores.argmax(axis=1) == labels[known]).sum()
    chosen = right[:, PENALTIES.index(DEFAULT_PENALTY)]  # no other one is clearly better on such videos
    assert found is not None
    assert found.mean == pytest.approx(100 * chosen.sum() / counts.sum())
    assert found.spread == pytest.approx(100 * np.std(chosen / counts, ddof=1))
    assert (found.folds, found.videos) == (4, 4)


def test_many_videos_are_held_out_in_ten_parts() -> None:
    found = cross_validate(evidence(range(23))).accuracy
    assert found is not None and (found.folds, found.videos) == (10, 23)


def test_one_video_chooses_nothing() -> None:
    found = cross_validate(evidence(range(1)))
    assert found.accuracy is None and found.penalty == DEFAULT_PENALTY


def test_a_rare_class_is_not_given_up_where_nearly_all_videos_show_another() -> None:
    random = np.random.default_rng(0)

    def video(label: int) -> Evidence:
        frames = 0.1 * (MEANS[label] + 0.3 * random.normal(size=(100, WIDTH))).astype(np.float32)
        return Evidence.of(frames, np.full(100, label), CLASSES)

    known = {f"v{index}": video(0) for index in range(9)} | {"rare": video(1)}
    found = cross_validate(known)
    weights = add(each.sums for each in known.values()).solve([found.penalty])[0]
    assert (weights.scores(0.1 * MEANS[1:2].astype(np.float32)).argmax(axis=1) == 1).all()


def test_another_penalty_is_chosen_where_held_out_videos_clearly_need_it() -> None:
    """Two columns tell the classes apart by a difference that is small beside what both share."""
    random = np.random.default_rng(0)

    def video() -> Evidence:
        labels, common = random.integers(0, 2, 300), random.normal(size=300)
        columns = np.stack([common + 0.01 * labels, common], axis=1) + 0.002 * random.normal(size=(300, 2))
        return Evidence.of(columns.astype(np.float32), labels, 2)

    found = cross_validate({f"v{index}": video() for index in range(8)})
    assert found.penalty < DEFAULT_PENALTY / 10
    assert found.accuracy is not None and found.accuracy.mean > 95


@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_confidence_is_calibrated_on_videos_that_no_fit_saw(noise: float) -> None:
    known = evidence(range(12), noise)
    found = cross_validate(known)
    weights = add(each.sums for each in known.values()).solve([found.penalty])[0]
    frames, labels = made(99, 5_000, noise)
    scores = np.exp(found.factor * weights.scores(frames))
    confidence = scores.max(axis=1) / scores.sum(axis=1)
    right = (scores.argmax(axis=1) == labels)[labels != IGNORED].mean()
    assert confidence.mean() == pytest.approx(right, abs=0.04)


def test_bands_weigh_the_same_whatever_their_widths_and_scales() -> None:
    random = np.random.default_rng(0)
    narrow, wide = random.normal(size=(500, 1)), 1_000 * random.normal(size=(500, 20)) + 7
    basis = Basis.fit(np.concatenate([narrow, wide], axis=1), {"narrow": 1, "wide": 20})
    share = np.square(basis.apply(np.concatenate([narrow, np.full((500, 20), wide.mean(0))], axis=1))).sum() / 500
    assert share == pytest.approx(0.5, abs=0.02)


def test_a_basis_keeps_few_columns_of_total_variance_one_and_drops_constant_ones() -> None:
    sample = np.random.default_rng(0).normal(size=(300, 10)).astype(np.float32)
    sample[:, 3] = 5.0
    columns = Basis.fit(sample, columns=4).apply(sample)
    assert columns.shape == (300, 4) and columns.dtype == np.float32
    assert columns.var(axis=0).sum() == pytest.approx(1, abs=1e-4)
    sample[0, 3] = 1e6
    assert np.isfinite(Basis.fit(sample[1:], columns=4).apply(sample)).all()


def test_only_some_slots_of_a_long_video_are_held_and_stand_for_all() -> None:
    frames, labels = made(0, 5_000)
    found = Evidence.of(frames, labels, CLASSES)
    assert len(found.held) == 1_000 and found.sums.counts.sum() == (labels != IGNORED).sum()


def test_weights_score_frames() -> None:
    weights = Weights(np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([0.5, 0.0]))
    np.testing.assert_allclose(weights.scores(np.array([[1, 1]], np.float32)), [[1.5, 2.0]])


def test_sums_need_no_frames_of_a_class() -> None:
    sums = Sums.of(np.ones((2, WIDTH), np.float32), np.array([0, 2]), CLASSES)
    assert sums.counts.tolist() == [1, 0, 1] and np.isfinite(sums.solve([0.1])[0].weight).all()
