import math

import pytest
import torch
from torch import Tensor

from keystep.config import ObjectiveConfig
from keystep.objectives import FrameSums, Shares, count_frames, frame_distance, frame_sums

VALID = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
HIDDEN = torch.tensor([[True, False, True, True, False, False, True], [False, True, True, False, True, True, False]])
DISTANCES = ("l1", "l2", "smooth_l1")


def tensors(channels: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(3 * torch.randn(2, 7, channels, generator=generator) for _ in range(2))  # type: ignore[return-value]


def slow_distance(prediction: list[float], target: list[float], kind: str) -> float:
    total = 0.0
    for guess, wanted in zip(prediction, target, strict=True):
        gap = abs(guess - wanted)
        total += {"l1": gap, "l2": gap * gap, "smooth_l1": gap * gap / 2 if gap < 1 else gap - 0.5}[kind]
    return total / len(target)


def slow_cross_entropy(prediction: list[float], target: int) -> float:
    return math.log(sum(math.exp(score) for score in prediction)) - prediction[target]


def slow_sums(distance: list[list[float]]) -> tuple[float, float, int, int]:
    hidden: list[float] = []
    visible: list[float] = []
    for row in range(2):
        for frame in range(7):
            if VALID[row, frame]:
                (hidden if HIDDEN[row, frame] else visible).append(distance[row][frame])
    return sum(hidden), sum(visible), len(hidden), len(visible)


def check(sums: FrameSums, wanted: tuple[float, float, int, int]) -> None:
    found = (sums.hidden, sums.visible, *count_frames(HIDDEN, VALID))
    assert [float(number) for number in found] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("kind", DISTANCES)
def test_sums_agree_with_a_loop(kind: str) -> None:
    predictions, targets = tensors()
    wanted = [
        [slow_distance(predictions[row, frame].tolist(), targets[row, frame].tolist(), kind) for frame in range(7)]
        for row in range(2)
    ]
    config = ObjectiveConfig(distance=kind)  # type: ignore[arg-type]
    torch.testing.assert_close(frame_distance(predictions, targets, config), torch.tensor(wanted))
    check(frame_sums(predictions, targets, HIDDEN, VALID, config), slow_sums(wanted))


def test_class_targets_are_compared_by_cross_entropy_whatever_the_distance() -> None:
    predictions, _ = tensors()
    targets = torch.randint(5, (2, 7), generator=torch.Generator().manual_seed(1))
    wanted = [
        [slow_cross_entropy(predictions[row, frame].tolist(), int(targets[row, frame])) for frame in range(7)]
        for row in range(2)
    ]
    for kind in DISTANCES:
        config = ObjectiveConfig(distance=kind)  # type: ignore[arg-type]
        check(frame_sums(predictions, targets, HIDDEN, VALID, config), slow_sums(wanted))


@pytest.mark.parametrize("spoiled", ["predictions", "targets", "classes"])
def test_padding_counts_nowhere_not_even_in_the_gradient(spoiled: str) -> None:
    predictions, targets = tensors()
    if spoiled == "classes":
        targets = torch.randint(5, (2, 7), generator=torch.Generator().manual_seed(1))
    clean, dirty = predictions.clone().requires_grad_(), predictions.clone()
    wanted = frame_sums(clean, targets, HIDDEN, VALID, ObjectiveConfig())
    (wanted.hidden + wanted.visible).backward()  # type: ignore[no-untyped-call]
    if spoiled == "predictions":
        dirty[~VALID] = math.nan
    else:
        targets = targets.masked_fill(
            ~VALID if spoiled == "classes" else ~VALID[..., None], 99 if spoiled == "classes" else math.nan
        )
    dirty.requires_grad_()
    found = frame_sums(dirty, targets, HIDDEN, VALID, ObjectiveConfig())
    (found.hidden + found.visible).backward()  # type: ignore[no-untyped-call]
    assert torch.equal(found.hidden, wanted.hidden) and torch.equal(found.visible, wanted.visible)
    assert clean.grad is not None and dirty.grad is not None and torch.equal(clean.grad, dirty.grad)
    assert bool((dirty.grad[~VALID] == 0).all())


def test_the_loss_is_the_mean_over_hidden_plus_the_weighted_mean_over_visible_frames() -> None:
    predictions, targets = tensors()
    sums = frame_sums(predictions, targets, HIDDEN, VALID, ObjectiveConfig(distance="l1"))
    distance = (predictions - targets).abs().mean(-1)
    for weight in (0.0, 0.5):
        wanted = distance[HIDDEN & VALID].mean() + weight * distance[~HIDDEN & VALID].mean()
        torch.testing.assert_close(sums.loss(weight, *count_frames(HIDDEN, VALID)), wanted)


def test_two_halves_of_a_batch_add_up_to_the_whole() -> None:
    predictions, targets = tensors()
    config = ObjectiveConfig()
    whole = frame_sums(predictions, targets, HIDDEN, VALID, config)
    halves = [frame_sums(predictions[i], targets[i], HIDDEN[i], VALID[i], config) for i in (slice(0, 1), slice(1, 2))]
    counts = count_frames(HIDDEN[:1], VALID[:1]) + count_frames(HIDDEN[1:], VALID[1:])
    total = halves[0].loss(0.5, *counts) + halves[1].loss(0.5, *counts)
    torch.testing.assert_close(total, whole.loss(0.5, *count_frames(HIDDEN, VALID)))


def test_a_batch_that_hides_nothing_has_no_hidden_loss_and_no_nan() -> None:
    predictions, targets = tensors()
    sums = frame_sums(predictions, targets, torch.zeros_like(HIDDEN), VALID, ObjectiveConfig())
    counts = count_frames(torch.zeros_like(HIDDEN), VALID)
    assert float(sums.loss(0.0, *counts)) == 0
    assert counts.tolist() == [0, int(VALID.sum())]


def test_half_precision_is_compared_in_float32() -> None:
    predictions, targets = tensors()
    distance = frame_distance(predictions.bfloat16(), targets.bfloat16(), ObjectiveConfig())
    assert distance.dtype == torch.float32


@pytest.mark.parametrize("kind", [*DISTANCES, "classes"])
def test_unknown_targets_count_nowhere_not_even_in_the_gradient(kind: str) -> None:
    generator = torch.Generator().manual_seed(2)
    classes, count = 5, 3
    config = ObjectiveConfig(distance="l1" if kind == "classes" else kind)  # type: ignore[arg-type]
    predictions = torch.randn(2, 7, count * classes if kind == "classes" else count, generator=generator)
    predictions.requires_grad_()
    unknown = torch.rand(2, 7, count, generator=generator) < 0.4
    unknown[0, 0] = True  # a frame of which nothing is known
    if kind == "classes":
        targets = torch.randint(classes, (2, 7, count), generator=generator)
        marked = targets.masked_fill(unknown, -100)
    else:
        targets = torch.randn(2, 7, count, generator=generator)
        marked = targets.masked_fill(unknown, math.nan)
    found = frame_distance(predictions, marked, config)
    for row in range(2):
        for frame in range(7):
            known = [place for place in range(count) if not unknown[row, frame, place]]
            guesses = predictions[row, frame].detach()
            if kind == "classes":
                parts = [
                    slow_cross_entropy(guesses[p * classes : (p + 1) * classes].tolist(), int(targets[row, frame, p]))
                    for p in known
                ]
            else:
                parts = [slow_distance([float(guesses[p])], [float(targets[row, frame, p])], kind) for p in known]
            assert found[row, frame].item() == pytest.approx(sum(parts) / max(1, len(parts)), abs=1e-5)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert predictions.grad is not None
    gradient = predictions.grad.view(2, 7, count, -1)
    assert bool((gradient[unknown] == 0).all()) and bool((gradient[~unknown] != 0).any())


def test_shares_of_clusters_are_compared_by_cross_entropy_where_they_are_known() -> None:
    shares = Shares(offsets=2, clusters=3, weight=0.5)
    wanted = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.2, 0.8]])
    targets = torch.cat([torch.zeros(4), wanted.flatten()]).expand(1, 2, -1).clone()
    targets[0, 1, -3:] = float("nan")  # the second offset of the second frame
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.3, -1.0, 0.0]])
    predictions = torch.cat([torch.full((4,), 2.0), logits.flatten()]).expand(1, 2, -1).clone().requires_grad_()
    found = frame_distance(predictions, targets, ObjectiveConfig(distance="l2"), shares)
    entropy = -(wanted * logits.log_softmax(-1)).sum(-1)
    torch.testing.assert_close(found, torch.stack([4 + 0.5 * entropy.mean(), 4 + 0.5 * entropy[0]])[None])
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert predictions.grad is not None and predictions.grad.isfinite().all()
    assert not predictions.grad[0, 1, -3:].any()


def test_the_best_constant_shares_are_their_mean() -> None:
    shares, goal = Shares(1, 2, 1.0), torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])[None]

    def loss(first: float) -> float:
        guess = torch.tensor([0.0, first, 1 - first]).log().nan_to_num(neginf=0.0).expand(1, 2, -1)
        return float(frame_distance(guess, goal, ObjectiveConfig(), shares).sum())

    assert loss(0.5) < min(loss(0.4), loss(0.6))
