from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from keystep.batch import SequenceBatch
from keystep.config import ModelConfig, ObjectiveConfig, TargetConfig
from keystep.config.attention import AttentionPattern
from keystep.data.crops import TrainingBatch
from keystep.data.statistics import Statistics
from keystep.diagnostics import Health, Monitor, effective_rank, nearest_visible, pad_labels, ridge_accuracy
from keystep.pjepa import PJEPA
from keystep.target import build_target

WIDTH = 5
HEALTHY = Health(
    effective_rank=20.0, neighbour_cosine=0.8, hidden_loss=1.0, mean_loss=2.0, copy_loss=1.5, probe_accuracy=60.0
)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def crops() -> list[TrainingBatch]:
    rng = np.random.default_rng(0)
    made = []
    for lengths in ((12, 20), (15,), (9, 9)):
        batch = SequenceBatch.pad([randn(length, WIDTH, seed=length) for length in lengths])
        hidden = torch.from_numpy(rng.random(batch.valid.shape) < 0.5) & batch.valid
        made.append((batch, hidden))
    return made


def parts(kind: str, output_dim: int | None) -> tuple[PJEPA, Any]:
    torch.manual_seed(0)
    model = PJEPA(ModelConfig(input_dim=WIDTH, dim=16, depth=2, heads=2, readout_dim=24, output_dim=output_dim)).eval()
    sample = randn(200, WIDTH).numpy()
    statistics = Statistics(sample.mean(0), sample.std(0), sample)
    return model, build_target(TargetConfig(kind=kind, clusters=6, offsets=(0,)), model.encoder, statistics, 0, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_the_effective_rank_counts_equally_strong_directions(rank: int) -> None:
    basis = torch.linalg.qr(randn(8, 8)).Q[:rank]
    signs = torch.linalg.qr(randn(100, rank) - randn(100, rank).mean(0)).Q
    latents = signs @ basis
    latents = torch.cat([latents, -latents])  # already centred
    assert effective_rank(7 + 5 * latents) == pytest.approx(rank, rel=1e-4)


def test_the_effective_rank_of_unequal_directions_is_between_and_agrees_with_its_definition() -> None:
    latents = randn(500, 6) * torch.tensor([10.0, 3, 1, 0.1, 0, 0])
    values = np.linalg.svd((latents - latents.mean(0)).double().numpy(), compute_uv=False)
    shares = values[values > 1e-12] / values.sum()
    assert effective_rank(latents) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-6)
    assert effective_rank(torch.ones(50, 6)) == pytest.approx(1, abs=0.01), "latents that are all equal: no direction"


def test_the_nearest_visible_frame_agrees_with_a_search() -> None:
    rng = np.random.default_rng(0)
    for ratio in (0.2, 0.6, 0.95):
        valid = torch.arange(40) < torch.tensor([40, 25, 3])[:, None]
        hidden = torch.from_numpy(rng.random((3, 40)) < ratio) & valid
        hidden[:, 1] = False  # one frame stays visible
        found = nearest_visible(hidden, valid)
        for row, frame in valid.nonzero().tolist():
            seen = (valid[row] & ~hidden[row]).nonzero().flatten().tolist()
            assert found[row, frame] == min(seen, key=lambda other: (abs(other - frame), other))


def test_a_row_without_a_visible_frame_gives_an_index_inside_the_row() -> None:
    valid = torch.ones(1, 5, dtype=torch.bool)
    found = nearest_visible(valid, valid)
    assert int(found.min()) >= 0 and int(found.max()) < 5


def test_ridge_reads_what_is_linear_and_no_more() -> None:
    latents, labels = randn(3000, 10), torch.randint(4, (3000,), generator=torch.Generator().manual_seed(1))
    told = latents + 8 * functional.one_hot(labels, 10) + 100
    split = (slice(0, 2000), slice(2000, None))
    assert ridge_accuracy(told[split[0]], labels[split[0]], told[split[1]], labels[split[1]]) > 98
    assert ridge_accuracy(latents[split[0]], labels[split[0]], latents[split[1]], labels[split[1]]) < 35
    still = torch.ones(100, 3)
    ids = torch.tensor([0] * 70 + [1] * 30)
    assert ridge_accuracy(still, ids, still, ids) == pytest.approx(70), "nothing to see: the most frequent class"
    assert ridge_accuracy(still, ids * 0, still, ids + 1) == 0, "a class that training never saw"


def test_a_healthy_representation_brings_no_warning() -> None:
    assert HEALTHY.warnings(HEALTHY) == {}
    assert replace(HEALTHY, probe_accuracy=None).warnings(HEALTHY) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"effective_rank": 4.0}, "the latents are collapsing: effective rank 4.0, 20.0 before training"),
        ({"neighbour_cosine": 0.999}, "adjacent latents are nearly identical (cosine 0.9990)"),
        ({"hidden_loss": 2.5}, "predictions (loss 2.500) are worse than a constant (2.000)"),
        ({"probe_accuracy": 50.0}, "probe accuracy is 50.0 %, but 60.0 % with the untrained encoder"),
    ],
)
def test_each_sign_of_collapse_is_said_in_plain_words(change: dict[str, float], message: str) -> None:
    assert replace(HEALTHY, **change).warnings(HEALTHY) == {next(iter(change)): message}


def test_a_young_model_may_predict_worse_than_a_constant() -> None:
    worse = replace(HEALTHY, hidden_loss=2.5)
    assert worse.warnings(HEALTHY, done=0.49) == {} and len(worse.warnings(HEALTHY, done=0.5)) == 1


def test_only_numbers_that_are_there_are_metrics() -> None:
    assert Health(1.0, 0.5, 2.0, 3.0).metrics() == {
        "monitor/effective_rank": 1.0,
        "monitor/neighbour_cosine": 0.5,
        "monitor/hidden_loss": 2.0,
        "monitor/mean_loss": 3.0,
    }


@pytest.mark.parametrize("distance", ["l1", "l2", "smooth_l1"])
def test_losses_of_float_targets_agree_with_a_loop(distance: str) -> None:
    model, target = parts("features", WIDTH)
    objective = ObjectiveConfig(distance=distance)  # type: ignore[arg-type]
    health = Monitor(crops(), None, objective).look(model, target, AttentionPattern())
    measure = {"l1": functional.l1_loss, "l2": functional.mse_loss, "smooth_l1": functional.smooth_l1_loss}[distance]
    guesses, goals, copies = [], [], []
    with torch.no_grad():
        for batch, hidden in crops():
            prediction, goal = model(batch, hidden).predictions, target(batch, AttentionPattern())
            for row, frame in hidden.nonzero().tolist():
                seen = (batch.valid[row] & ~hidden[row]).nonzero().flatten().tolist()
                guesses.append(prediction[row, frame])
                goals.append(goal[row, frame])
                copies.append(goal[row, min(seen, key=lambda other: (abs(other - frame), other))])
    wanted = torch.stack(goals)
    assert health.hidden_loss == pytest.approx(float(measure(torch.stack(guesses), wanted)), rel=1e-5)
    assert health.copy_loss == pytest.approx(float(measure(torch.stack(copies), wanted)), rel=1e-5)
    shifted = (
        health.mean_loss <= float(measure((wanted.mean(0) + d).expand_as(wanted), wanted)) + 0.02 for d in (-1, 0, 1)
    )
    assert all(shifted), "no constant is much better"
    assert health.hidden_accuracy is None and health.probe_accuracy is None


def test_losses_of_class_targets_are_cross_entropies_and_accuracies() -> None:
    model, target = parts("clusters", 6)
    health = Monitor(crops(), None, ObjectiveConfig()).look(model, target, AttentionPattern())
    guesses, goals = [], []
    with torch.no_grad():
        for batch, hidden in crops():
            guesses.append(model(batch, hidden).predictions[hidden])
            goals.append(target(batch, AttentionPattern())[hidden])
    guess, goal = torch.cat(guesses), torch.cat(goals)
    assert health.hidden_loss == pytest.approx(float(functional.cross_entropy(guess, goal)), rel=1e-5)
    assert health.hidden_accuracy == pytest.approx(100 * float((guess.argmax(1) == goal).float().mean()))
    shares = np.bincount(goal.numpy()) / len(goal)
    entropy = -sum(share * np.log(share) for share in shares if share)
    assert health.mean_loss == pytest.approx(entropy, rel=1e-4), "the best constant says the shares"
    assert health.copy_loss is None and health.copy_accuracy is not None


def test_looking_twice_gives_the_same_numbers_and_leaves_no_gradient() -> None:
    model, target = parts("ema", None)
    labels = [pad_labels([np.arange(int(n)) % 3 for n in batch.lengths], batch.valid.shape[1]) for batch, _ in crops()]
    monitor = Monitor(crops(), labels, ObjectiveConfig())
    first, second = (monitor.look(model, target, AttentionPattern()) for _ in range(2))
    assert first == second and all(parameter.grad is None for parameter in model.parameters())
    assert 1 <= first.effective_rank <= 24 and -1 <= first.neighbour_cosine <= 1
    assert first.probe_accuracy is not None and 0 <= first.probe_accuracy <= 100


def test_monitor_crops_without_any_label_leave_the_probe_to_the_others() -> None:
    model, target = parts("ema", None)
    shapes = [batch.valid.shape for batch, _ in crops()]
    nothing = [torch.full(shape, -100) for shape in shapes]
    look = Monitor(crops(), nothing, ObjectiveConfig()).look(model, target, AttentionPattern())
    assert look.probe_accuracy is None
    some = [labels.clone() for labels in nothing]
    some[0][:2, :4] = torch.tensor([0, 1, 0, 1])
    look = Monitor(crops(), some, ObjectiveConfig()).look(model, target, AttentionPattern())
    assert look.probe_accuracy is not None


def test_padding_leaves_the_numbers_as_they_are() -> None:
    model, target = parts("features", WIDTH)
    spoiled = [
        (SequenceBatch(batch.features.masked_fill(~batch.valid[..., None], float("nan")), batch.valid), hidden)
        for batch, hidden in crops()
    ]
    looks = [
        Monitor(batches, None, ObjectiveConfig()).look(model, target, AttentionPattern())
        for batches in (crops(), spoiled)
    ]
    assert looks[0] == looks[1]


def test_latents_that_stand_still_are_noticed() -> None:
    model, target = parts("features", WIDTH)
    offsets = [10.0 * randn(1, WIDTH, seed=seed) for seed in range(3)]
    still = [SequenceBatch.pad([offset + 1e-3 * randn(20, WIDTH)]) for offset in offsets]
    hidden = torch.arange(20)[None] % 2 == 0
    model.encoder.centring = False
    health = Monitor([(batch, hidden) for batch in still], None, ObjectiveConfig()).look(
        model, target, AttentionPattern()
    )
    assert "nearly identical" in health.warnings(HEALTHY)["neighbour_cosine"]


def test_padded_labels_are_ignored_ids() -> None:
    assert pad_labels([np.array([1, 2]), np.array([3])], 3).tolist() == [[1, 2, -100], [3, -100, -100]]
