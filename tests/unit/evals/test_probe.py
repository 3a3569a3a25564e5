import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression, Ridge

from keystep.errors import InputError
from keystep.evals.probe import LinearProbe, ProbeConfig, fit_probe
from keystep.evals.strengths import Search

CLASSES = 5
QUICK = ProbeConfig(penalties=(0.1, 0.01, 0.001), choice_frames=1_000)
Videos = tuple[list[np.ndarray], list[np.ndarray]]


def made_videos(seed: int, count: int, width: int = 12, length: int = 200) -> Videos:
    """Overlapping classes whose means the fixed seed 0 sets, on columns of very different scale and offset."""
    fixed, random = np.random.default_rng(0), np.random.default_rng(seed)
    means = fixed.normal(size=(CLASSES, width))
    scale, offset = 10.0 ** fixed.uniform(-3, 3, width), fixed.normal(0, 5, width)
    labels = [random.integers(0, CLASSES, length) for _ in range(count)]
    videos = [(means[label] + 1.5 * random.normal(size=(length, width)) + offset) * scale for label in labels]
    return [video.astype(np.float32) for video in videos], labels


TRAIN, VALID, TEST = made_videos(1, 12), made_videos(2, 4), made_videos(3, 100)


def accuracy(probe: LinearProbe, part: Videos) -> float:
    return 100 * float(np.concatenate([probe.predict(x) == y for x, y in zip(*part, strict=True)]).mean())


@pytest.fixture(scope="module")
def probe() -> LinearProbe:
    return fit_probe(*TRAIN, *VALID, classes=CLASSES, config=QUICK)


def test_on_few_columns_the_probe_is_nearly_as_accurate_as_logistic_regression() -> None:
    probe = fit_probe(*TRAIN, *VALID, classes=CLASSES)
    frames = np.concatenate(TRAIN[0])
    mean, std = frames.mean(0), frames.std(0)
    reference = LogisticRegression(max_iter=2000).fit((frames - mean) / std, np.concatenate(TRAIN[1]))
    expected = 100 * reference.score((np.concatenate(TEST[0]) - mean) / std, np.concatenate(TEST[1]))
    assert 60 < expected < 95
    assert accuracy(probe, TEST) == pytest.approx(expected, abs=2.5)


def test_validation_accuracy_is_that_of_the_returned_probe_on_inputs_as_they_are(probe: LinearProbe) -> None:
    assert probe.valid_accuracy == pytest.approx(accuracy(probe, VALID), abs=1e-9)
    scores = probe.scores(VALID[0][0])
    assert scores.shape == (200, CLASSES) and scores.dtype == np.float32
    assert (probe.weight.shape, probe.bias.shape) == ((12, CLASSES), (CLASSES,))


def test_the_penalty_that_is_best_on_validation_is_chosen() -> None:
    few = [video[:12] for video in TRAIN[0][:5]], [labels[:12] for labels in TRAIN[1][:5]]
    penalties = (3.0, 1.0, 0.3, 0.1, 0.01)
    alone = {
        penalty: fit_probe(*few, *VALID, classes=CLASSES, config=ProbeConfig(penalties=(penalty,)))
        for penalty in penalties
    }
    assert len({head.valid_accuracy for head in alone.values()}) > 1
    probe = fit_probe(*few, *VALID, classes=CLASSES, config=ProbeConfig(penalties=penalties))
    assert probe.valid_accuracy == max(head.valid_accuracy for head in alone.values())
    np.testing.assert_array_equal(probe.weight, alone[probe.penalty].weight)


def test_the_solution_is_that_of_ridge_regression_with_the_same_penalty() -> None:
    penalty, frames, labels = 0.3, np.concatenate(TRAIN[0]), np.concatenate(TRAIN[1])
    probe = fit_probe([frames], [labels], *VALID, classes=CLASSES, config=ProbeConfig(penalties=(penalty,)))
    standard = (frames - frames.mean(0)) / frames.std(0)
    reference = Ridge(alpha=penalty * len(frames)).fit(standard, np.eye(CLASSES)[labels]).predict(standard)
    scores = probe.scores(frames).astype(np.float64)
    factor = np.polyfit(reference.ravel(), scores.ravel(), 1)[0]
    np.testing.assert_allclose(scores / factor, reference, atol=1e-3)


def test_probabilities_are_as_likely_as_a_factor_on_the_scores_can_make_them(probe: LinearProbe) -> None:
    labels = np.concatenate(VALID[1])
    scores = np.concatenate([probe.scores(video) for video in VALID[0]]).astype(np.float64)

    def loss(factor: float) -> float:
        scaled = factor * scores
        chances = np.exp(scaled - scaled.max(1, keepdims=True))
        return -float(np.log(chances[np.arange(len(labels)), labels] / chances.sum(1)).mean())

    assert loss(1.0) < min(loss(0.9), loss(1.1), np.log(CLASSES))


def test_choosing_between_representations_needs_no_refining(probe: LinearProbe) -> None:
    rough = fit_probe(*TRAIN, *VALID, classes=CLASSES, config=QUICK, refine=False)
    assert not np.array_equal(rough.weight, probe.weight)
    assert rough.valid_accuracy == pytest.approx(probe.valid_accuracy, abs=4)


def test_scale_and_offset_of_the_input_do_not_matter(probe: LinearProbe) -> None:
    def changed(part: Videos) -> Videos:
        return [video * np.float32(512) for video in part[0]], part[1]

    scaled = fit_probe(*changed(TRAIN), *changed(VALID), classes=CLASSES, config=QUICK)
    assert scaled.penalty == probe.penalty
    np.testing.assert_array_equal(scaled.predict(changed(TEST)[0][0]), probe.predict(TEST[0][0]))
    moved = [[video + 3 * video.std(0) for video in part[0]] for part in (TRAIN, VALID, TEST)]
    shifted = fit_probe(moved[0], TRAIN[1], moved[1], VALID[1], classes=CLASSES, config=QUICK)
    assert accuracy(shifted, (moved[2], TEST[1])) == pytest.approx(accuracy(probe, TEST), abs=1.5)


def test_the_same_again_gives_the_same_probe_bit_for_bit(probe: LinearProbe) -> None:
    again = fit_probe(*TRAIN, *VALID, classes=CLASSES, config=QUICK)
    np.testing.assert_array_equal(again.weight, probe.weight)
    np.testing.assert_array_equal(again.bias, probe.bias)


def test_frames_without_a_label_have_no_influence(probe: LinearProbe) -> None:
    def with_unlabelled(part: Videos) -> Videos:
        junk = np.full((50, 12), 1e6, dtype=np.float32)
        return (
            [np.concatenate([junk, video]) for video in part[0]],
            [np.concatenate([np.full(50, -100), label]) for label in part[1]],
        )

    ignoring = fit_probe(*with_unlabelled(TRAIN), *with_unlabelled(VALID), classes=CLASSES, config=QUICK)
    np.testing.assert_array_equal(ignoring.weight, probe.weight)
    assert ignoring.valid_accuracy == probe.valid_accuracy


def test_a_class_without_training_frames_is_allowed_and_not_predicted() -> None:
    probe = fit_probe(*TRAIN, *VALID, classes=CLASSES + 2, config=QUICK)
    assert max(probe.predict(video).max() for video in TEST[0]) < CLASSES


def test_constant_columns_and_all_zero_features_are_harmless() -> None:
    def padded(part: Videos) -> Videos:
        return [np.concatenate([video, np.full((200, 2), [0, 0.1], np.float32)], 1) for video in part[0]], part[1]

    probe = fit_probe(*padded(TRAIN), *padded(VALID), classes=CLASSES, config=QUICK)
    assert (probe.weight[-2:] == 0).all()
    zeros = [np.zeros((200, 3), np.float32)] * 2
    blind = fit_probe(zeros, TRAIN[1][:2], zeros, VALID[1][:2], classes=CLASSES, config=QUICK)
    assert set(blind.predict(zeros[0])) == {np.bincount(np.concatenate(TRAIN[1][:2])).argmax()}


@pytest.mark.parametrize("wrong", [{"penalties": ()}, {"penalties": (0.1, 1.0)}, {"choice_frames": 0}, {"lr": 1e-3}])
def test_a_config_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ProbeConfig(**wrong)  # type: ignore[arg-type]


def test_a_nan_is_named_by_video_and_frame() -> None:
    broken = [video.copy() for video in TRAIN[0]]
    broken[3][17, 2] = np.nan
    with pytest.raises(InputError, match="training video 3, frame 17: NaN"):
        fit_probe(broken, TRAIN[1], *VALID, classes=CLASSES)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([np.array([0, 1, 7])], "training video 0, frame 2: label 7 is outside of 0..4"),
        ([np.array([0, -1, 1])], "frame 1: label -1"),
        ([np.array([0, 1])], "3 frames need integer labels"),
        ([np.array([0.0, 1.0, 1.0])], "integer labels"),
        ([np.full(3, -100)], "no training frame has a label"),
        ([], "1 training videos, but labels for 0"),
    ],
)
def test_labels_that_do_not_fit_are_refused_in_one_line(labels: list[np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        fit_probe([np.ones((3, 12))], labels, *VALID, classes=CLASSES)
    assert "\n" not in str(caught.value)


def test_widths_that_disagree_are_refused(probe: LinearProbe) -> None:
    with pytest.raises(InputError, match="different widths"):
        fit_probe([*TRAIN[0][:1], np.ones((200, 3))], TRAIN[1][:2], *VALID, classes=CLASSES)
    with pytest.raises(InputError, match="width 12, but validation width 3"):
        fit_probe(*TRAIN, [np.ones((200, 3))], VALID[1][:1], classes=CLASSES)
    with pytest.raises(InputError, match="expects width 12"):
        probe.predict(np.ones((4, 3)))


def test_strengths_of_other_bands_are_refused() -> None:
    train, valid = banded_videos(1, 2, True), banded_videos(2, 2, True)
    with pytest.raises(InputError, match="all bands but the last"):
        fit_probe(*train, *valid, classes=6, bands=BANDS, chosen={"context": 1.0})


def test_bands_that_do_not_add_up_are_refused() -> None:
    for bands, line in (({"frame": 7, "far": 4}, "have 11 columns in total, not 12"), ({}, "must not be empty")):
        with pytest.raises(InputError, match=line):
            fit_probe(*TRAIN, *VALID, classes=CLASSES, bands=bands)
    with pytest.raises(InputError, match="band 'far' has 0 columns"):
        fit_probe(*TRAIN, *VALID, classes=CLASSES, bands={"frame": 12, "far": 0})


def test_a_penalty_at_the_end_of_its_grid_is_told() -> None:
    few = [TRAIN[0][0][:60]], [TRAIN[1][0][:60]]

    def edge(*penalties: float) -> bool:
        return fit_probe(*few, *VALID, classes=CLASSES, config=ProbeConfig(penalties=penalties)).at_edge

    assert edge(100.0, 1.0) and edge(0.1, 1e-7) and not edge(100.0, 0.1, 1e-7) and not edge(0.1)


def banded_videos(seed: int, count: int, own: bool, needed: bool = False) -> Videos:
    """A band of 8 columns, the frame, and one of 40, the context, which tells the labels of ``own`` persons only.

    The frame tells all labels, though noisily; where the context is ``needed`` the frame does not tell odd classes from
    the even ones before them, and the context carries over to all.
    """
    fixed, random = np.random.default_rng(5), np.random.default_rng(seed)
    frame, context = fixed.normal(size=(6, 8)), fixed.normal(size=(6, 40))
    if needed:
        frame[1::2] = frame[::2]
    videos, labels = [], []
    for _ in range(count):
        label = np.repeat(random.integers(0, 6, 40), random.integers(2, 9, 40))
        told = label if own or needed else random.permutation(6)[label]
        parts = frame[label] + 1.2 * random.normal(size=(len(label), 8)), context[told]
        noisy = parts[1] + (4 if needed else 1.5) * random.normal(size=parts[1].shape)
        videos.append(np.concatenate([parts[0], noisy], axis=1).astype(np.float32))
        labels.append(label)
    return videos, labels


BANDS = {"frame": 8, "context": 40}


def only(part: Videos, columns: slice) -> Videos:
    return [video[:, columns] for video in part[0]], part[1]


@pytest.mark.parametrize("persons", [1, 2, 6])
def test_a_band_that_does_not_carry_over_to_others_costs_nothing(persons: int) -> None:
    train, valid, test = banded_videos(1, 12, True), banded_videos(2, persons, False), banded_videos(3, 20, False)
    frame = fit_probe(*only(train, slice(8)), *only(valid, slice(8)), classes=6)
    plain = fit_probe(*train, *valid, classes=6)
    banded = fit_probe(*train, *valid, classes=6, bands=BANDS)
    alone = accuracy(frame, only(test, slice(8)))
    assert accuracy(plain, test) < alone - 10
    assert accuracy(banded, test) > alone - 1
    assert banded.strengths["frame"] == 1 and banded.strengths["context"] < 1


@pytest.mark.parametrize("persons", [1, 2, 6])
def test_a_band_that_is_needed_is_used(persons: int) -> None:
    train, valid = banded_videos(1, 12, True, needed=True), banded_videos(2, persons, False, needed=True)
    test = banded_videos(3, 20, False, needed=True)
    frame = fit_probe(*only(train, slice(8)), *only(valid, slice(8)), classes=6)
    plain = fit_probe(*train, *valid, classes=6)
    banded = fit_probe(*train, *valid, classes=6, bands=BANDS)
    assert accuracy(banded, test) > accuracy(frame, only(test, slice(8))) + 20
    assert accuracy(banded, test) > accuracy(plain, test) - 1
    assert banded.strengths["context"] == 1


def test_all_weight_on_the_first_band_is_the_probe_on_its_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Search, "best", lambda search: (1.0, 0.0))
    train, valid = banded_videos(1, 40, True), banded_videos(2, 3, False)
    banded = fit_probe(*train, *valid, classes=6, bands=BANDS)
    frame = fit_probe(*only(train, slice(8)), *only(valid, slice(8)), classes=6)
    np.testing.assert_allclose(banded.weight[:8], frame.weight, atol=1e-5)
    np.testing.assert_allclose(banded.bias, frame.bias, atol=1e-5)
    assert (banded.weight[8:] == 0).all()
    assert (banded.penalty, banded.valid_accuracy) == (frame.penalty, frame.valid_accuracy)
    assert banded.strengths == {"frame": 1, "context": 0}


@pytest.mark.parametrize(("needed", "strength"), [(True, {1.0}), (False, {0.0, 0.3})])
def test_beside_a_band_whose_strength_is_known_only_that_of_the_last_is_chosen(
    needed: bool, strength: set[float]
) -> None:
    train, valid = banded_videos(1, 12, True, needed), banded_videos(2, 6, False, needed)
    beside = fit_probe(*train, *valid, classes=6, bands=BANDS, chosen={"frame": 1.0})
    assert beside.strengths["frame"] == 1 and beside.strengths["context"] in strength


def test_one_band_is_no_band() -> None:
    one = fit_probe(*TRAIN, *VALID, classes=CLASSES, config=QUICK, bands={"frame": 12})
    np.testing.assert_array_equal(one.weight, fit_probe(*TRAIN, *VALID, classes=CLASSES, config=QUICK).weight)
    assert one.strengths == {"frame": 1}
