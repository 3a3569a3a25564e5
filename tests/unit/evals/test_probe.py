import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression

from keystep.errors import InputError
from keystep.evals.probe import LinearProbe, ProbeConfig, fit_probe

CLASSES = 5
QUICK = ProbeConfig(epochs=5, min_steps=300, batch_size=256)
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


def test_the_probe_is_as_accurate_as_logistic_regression() -> None:
    probe = fit_probe(*TRAIN, *VALID, classes=CLASSES)
    frames = np.concatenate(TRAIN[0])
    mean, std = frames.mean(0), frames.std(0)
    reference = LogisticRegression(max_iter=2000).fit((frames - mean) / std, np.concatenate(TRAIN[1]))
    expected = 100 * reference.score((np.concatenate(TEST[0]) - mean) / std, np.concatenate(TEST[1]))
    assert 60 < expected < 95
    assert accuracy(probe, TEST) == pytest.approx(expected, abs=0.5)


def test_validation_accuracy_is_that_of_the_returned_probe_on_inputs_as_they_are(probe: LinearProbe) -> None:
    assert probe.valid_accuracy == pytest.approx(accuracy(probe, VALID), abs=1e-9)
    scores = probe.scores(VALID[0][0])
    assert scores.shape == (200, CLASSES) and scores.dtype == np.float32
    assert (probe.weight.shape, probe.bias.shape) == ((12, CLASSES), (CLASSES,))


def test_the_best_head_of_the_grid_on_validation_is_chosen(probe: LinearProbe) -> None:
    alone = {
        (rate, decay): fit_probe(
            *TRAIN,
            *VALID,
            classes=CLASSES,
            config=QUICK.model_copy(update={"learning_rates": (rate,), "weight_decays": (decay,)}),
        )
        for rate in QUICK.learning_rates
        for decay in QUICK.weight_decays
    }
    assert len({head.valid_accuracy for head in alone.values()}) > 1
    assert probe.valid_accuracy == max(head.valid_accuracy for head in alone.values())
    same = alone[probe.learning_rate, probe.weight_decay]
    np.testing.assert_allclose(probe.scores(TEST[0][0]), same.scores(TEST[0][0]), rtol=1e-3, atol=1e-3)


def test_one_head_of_the_grid_follows_torch_adamw_step_by_step() -> None:
    frames = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    labels = np.random.default_rng(1).integers(0, 3, 64)
    config = ProbeConfig(learning_rates=(0.02,), weight_decays=(0.3,), min_steps=40, epochs=1, batch_size=64)
    ours = fit_probe([frames], [labels], [frames], [labels], classes=3, config=config)
    inputs = torch.from_numpy((frames - frames.mean(0)) / frames.std(0))
    linear = torch.nn.Linear(6, 3)
    for part in linear.parameters():
        torch.nn.init.zeros_(part)
    groups = [{"params": [linear.weight], "weight_decay": 0.3}, {"params": [linear.bias], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=0.02)
    for step in range(40):
        for group in optimiser.param_groups:
            group["lr"] = 0.02 * (1.0 if step < 40 / 6 else 0.1 if step < 20 else 0.01)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(linear(inputs), torch.from_numpy(labels)).backward()
        optimiser.step()
    np.testing.assert_allclose(ours.scores(frames), linear(inputs).detach().numpy(), atol=1e-4)


def test_scale_and_offset_of_the_input_do_not_matter(probe: LinearProbe) -> None:
    def changed(part: Videos) -> Videos:
        return [video * np.float32(512) for video in part[0]], part[1]

    scaled = fit_probe(*changed(TRAIN), *changed(VALID), classes=CLASSES, config=QUICK)
    assert (scaled.learning_rate, scaled.weight_decay) == (probe.learning_rate, probe.weight_decay)
    np.testing.assert_array_equal(scaled.predict(changed(TEST)[0][0]), probe.predict(TEST[0][0]))
    moved = [[video + 3 * video.std(0) for video in part[0]] for part in (TRAIN, VALID, TEST)]
    shifted = fit_probe(moved[0], TRAIN[1], moved[1], VALID[1], classes=CLASSES, config=QUICK)
    assert accuracy(shifted, (moved[2], TEST[1])) == pytest.approx(accuracy(probe, TEST), abs=1.5)


def test_a_seed_fixes_the_probe_bit_for_bit(probe: LinearProbe) -> None:
    again = fit_probe(*TRAIN, *VALID, classes=CLASSES, config=QUICK)
    np.testing.assert_array_equal(again.weight, probe.weight)
    np.testing.assert_array_equal(again.bias, probe.bias)
    other = fit_probe(*TRAIN, *VALID, classes=CLASSES, config=QUICK, seed=1)
    assert not np.array_equal(other.weight, probe.weight)


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


def test_steps_follow_epochs_bounded_by_frames_above_and_steps_below() -> None:
    config = ProbeConfig(epochs=30, max_frames=1_000_000, min_steps=600, batch_size=500)
    assert [config.steps(count) for count in (100, 20_001, 10_000_000)] == [600, 1201, 2000]
    factors = [config.rate_factor(step, 30) for step in (0, 4, 5, 14, 15, 29)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("wrong", [{"learning_rates": ()}, {"epochs": 0}, {"drops": (1.5,)}, {"lr": 1e-3}])
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
        ([np.array([0, 1])], "3 frames need as many integer labels"),
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
    with pytest.raises(InputError, match="reads width 12"):
        probe.predict(np.ones((4, 3)))
