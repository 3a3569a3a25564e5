"""The trainer learns, chooses on validation videos, and goes on to the same bits after a kill."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from keystep.config.base import build
from keystep.errors import InputError
from keystep.heads import TrainedHead, TrainingConfig, head_config, load_head, train_head
from keystep.heads.training import rate_factor
from keystep.heads.videos import measure_videos, plan_batches
from keystep.metrics import segmentation_scores

CLASSES = 3
Video = tuple[np.ndarray, np.ndarray]
TINY = head_config("mstcn", {"maps": 8, "layers": 3, "refinements": 1, "refinement_layers": 2, "dropout": 0.3})
FEW = TrainingConfig(epochs=4, batch_videos=2)


def videos(count: int, seed: int, noise: float = 0.5) -> list[Video]:
    """Runs of ten frames of a class; each frame shows it, with noise, on a scale of its own, beside a dead channel."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        labels = np.repeat(rng.integers(CLASSES, size=rng.integers(3, 8)), 10)
        shown = np.eye(CLASSES)[labels] + noise * rng.normal(size=(len(labels), CLASSES))
        features = np.concatenate([1000 * shown + 5000, np.full((len(labels), 1), 7.0)], axis=1).astype(np.float32)
        found.append((features, labels))
    return found


TRAIN, VALID = videos(7, 0), videos(3, 1)


def train(folder: Path | None = None, progress: object = None, seed: int = 0, **changes: object) -> TrainedHead:
    training = build(TrainingConfig, FEW.model_dump(), changes)
    return train_head(
        TINY,
        TRAIN,
        VALID,
        classes=CLASSES,
        training=training,
        seed=seed,
        folder=folder,
        progress=progress,  # type: ignore[arg-type]
    )


def same(a: TrainedHead, b: TrainedHead) -> bool:
    own, other = a.head.state_dict(), b.head.state_dict()
    return all(torch.equal(own[name], other[name]) for name in own)


class Killed(Exception):
    pass


@pytest.mark.parametrize("preset", ["linear", "attentive", "mstcn-small", "context-small"])
def test_every_head_learns_what_the_frames_show(preset: str) -> None:
    small: dict[str, dict] = {
        "attentive": {"dim": 16, "heads": 2, "window": 16, "chunk": 8},
        "mstcn-small": {"maps": 16, "layers": 4, "refinement_layers": 3, "dropout": 0.0},
        "context-small": {"dim": 16, "layers": 2, "window": 8, "memory": 32, "stride": 8, "dropout": 0.0},
    }
    training = TrainingConfig(epochs=12, batch_videos=2, learning_rate=1e-2)
    config = head_config(preset, small.get(preset))
    trained = train_head(config, TRAIN, VALID, classes=CLASSES, training=training)
    assert trained.valid_scores["accuracy"] > 75, "chance is 33"
    assert not trained.head.training


def test_the_record_tells_the_rule_and_the_scores_of_the_chosen_epoch() -> None:
    trained = train()
    predictions = [trained.head.predict(torch.from_numpy(x)[None])[0].numpy() for x, _ in VALID]
    scores = segmentation_scores(predictions, [labels for _, labels in VALID])
    assert {name: trained.valid_scores[name] for name in scores} == pytest.approx(scores)
    five = [scores[name] for name in ("accuracy", "edit", "f1@10", "f1@25", "f1@50")]
    assert trained.valid_scores["selection"] == pytest.approx(sum(five) / 5)
    assert trained.record["selection"].startswith("highest mean of frame accuracy, edit")
    measured = [epoch["selection"] for epoch in trained.record["history"]]
    assert trained.record["best_epoch"] == 1 + measured.index(max(measured))
    assert train(selection="accuracy").record["selection"] == "highest frame accuracy on the validation videos"


def test_the_seed_fixes_everything_and_another_one_changes_it() -> None:
    first = train()
    torch.manual_seed(99)
    torch.rand(5)
    before = torch.get_rng_state()
    assert same(first, train()) and not same(first, train(seed=1))
    assert torch.equal(torch.get_rng_state(), before), "and the caller's generator is left alone"


@pytest.mark.parametrize("when", [1, 2, 3])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, when: int) -> None:
    def kill(epoch: int, epochs: int, measured: Mapping[str, float]) -> None:
        if epoch == when:
            raise Killed

    whole = train()
    with pytest.raises(Killed):
        train(tmp_path, kill)
    seen: list[int] = []
    resumed = train(tmp_path, lambda epoch, epochs, measured: seen.append(epoch))
    assert seen == list(range(when + 1, 5))
    assert same(whole, resumed) and whole.record == resumed.record
    again = train(tmp_path, kill)
    assert same(whole, again), "a run that is over is read"
    assert torch.equal(
        load_head(tmp_path / "head.safetensors").chain[0].classify.bias, whole.head.chain[0].classify.bias
    )


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    train(tmp_path)
    with pytest.raises(InputError, match=r"of another training \(training, seed differ\); choose another folder"):
        train(tmp_path, seed=1, epochs=5)


def test_early_stop_counts_from_the_best_epoch() -> None:
    trained = train(epochs=30, patience=2, learning_rate=1e-2)
    assert trained.record["epochs"] == trained.record["best_epoch"] + 2 < 30


def test_every_option_of_the_loss_trains() -> None:
    trained = train(class_weights="inverse_root", logit_adjustment=1.0, boundary_radius=2, crop=20, schedule="constant")
    assert all(np.isfinite(epoch["loss"]) for epoch in trained.record["history"])
    assert not same(trained, train())


def test_statistics_are_those_of_all_training_frames_and_dead_channels_drop_out() -> None:
    known, frames = measure_videos(TRAIN, CLASSES, "training"), np.concatenate([x for x, _ in TRAIN])
    np.testing.assert_allclose(known.mean.numpy(), frames.mean(0), rtol=1e-5)
    np.testing.assert_allclose(known.deviation.numpy()[:3], frames.std(0)[:3], rtol=1e-4)
    assert np.isinf(known.deviation.numpy()[3])
    assert known.counts.tolist() == np.bincount(np.concatenate([y for _, y in TRAIN])).tolist()
    head = train().head
    x = torch.from_numpy(VALID[0][0])[None]
    other = x.clone()
    other[..., 3] = 1e6
    assert torch.equal(head(x), head(other))


def test_batches_hold_every_video_once_an_epoch_and_similar_lengths() -> None:
    lengths = np.random.default_rng(0).integers(10, 1000, size=50).tolist()
    plan = plan_batches(lengths, 4, seed=0, epoch=0)
    assert sorted(index for batch in plan for index in batch) == list(range(50))
    assert all(len(batch) <= 4 for batch in plan) and len(plan) == 13
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in plan)
    assert padded < 1.25 * sum(lengths)
    assert plan == plan_batches(lengths, 4, seed=0, epoch=0)
    assert plan != plan_batches(lengths, 4, seed=0, epoch=1) and plan != plan_batches(lengths, 4, seed=1, epoch=0)


def test_the_rate_warms_up_and_falls_along_a_cosine() -> None:
    rates = [rate_factor(step, 100, 10, "cosine") for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[55] == pytest.approx(0.5) and rates[99] < 0.001
    assert [rate_factor(step, 100, 0, "constant") for step in (0, 50, 99)] == [1, 1, 1]


class Lazy:
    """Videos that are read when they are asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(TRAIN)

    def __getitem__(self, index: int) -> Video:
        self.asked.append(index)
        return TRAIN[index]


def test_videos_need_not_lie_in_memory() -> None:
    lazy = Lazy()
    trained = train_head(TINY, lazy, VALID, classes=CLASSES, training=FEW)
    assert same(trained, train())
    assert len(lazy.asked) == len(TRAIN) * (1 + FEW.epochs)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, y: (x, y[:-1]), r"training video 2: \d+ frames need as many integer labels"),
        (lambda x, y: (x, y + 1), "training video 2, frame .*: label 3 is outside of 0..2"),
        (lambda x, y: (x * np.nan, y), "training video 2, frame 0: NaN or infinite"),
        (lambda x, y: (x[:, :2], y), "training video 2 has width 2, the first one 4"),
        (lambda x, y: (x[0], y), "training video 2: features of shape"),
    ],
)
def test_videos_that_do_not_fit_are_named(change: object, words: str) -> None:
    broken = [change(x, y % 3 if index != 2 else np.where(y == y[0], 2, y)) if index == 2 else (x, y)  # type: ignore[operator]
              for index, (x, y) in enumerate(TRAIN)]  # fmt: skip
    with pytest.raises(InputError, match=words):
        train_head(TINY, broken, VALID, classes=CLASSES, training=FEW)


def test_unlabelled_sets_and_other_widths_are_refused() -> None:
    unlabelled = [(x, np.full(len(x), -100)) for x, _ in VALID]
    with pytest.raises(InputError, match=r"no validation frame has a label \(of 3 videos\)"):
        train_head(TINY, TRAIN, unlabelled, classes=CLASSES, training=FEW)
    with pytest.raises(InputError, match="training width 4, but validation width 3"):
        train_head(TINY, TRAIN, [(x[:, :3], y) for x, y in VALID], classes=CLASSES, training=FEW)
    with pytest.raises(
        InputError, match=r"step 6 \(epoch 3\): the loss or its gradient was not finite in 5 steps in a row"
    ):
        train_head(TINY, TRAIN, VALID, classes=CLASSES, training=build(TrainingConfig, {"learning_rate": 1e30}))


def test_the_linear_head_learns_faster_unless_a_rate_is_given() -> None:
    assert (TrainingConfig().rate("linear"), TrainingConfig().rate("mstcn")) == (1e-2, 1e-3)
    assert TrainingConfig(learning_rate=0.5).rate("linear") == 0.5
