"""Losses equal slow and obvious versions of themselves."""

import math

import pytest
import torch
from torch.nn import functional

from keystep.heads import losses

IGNORED = -100


def scores(*shape: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LABELS = torch.tensor([[0, 0, 0, 1, 1, IGNORED, 2, 2, 2], [1, 1, 2, IGNORED, IGNORED, IGNORED, IGNORED, 0, 0]])


def test_frame_cross_entropy_is_torchs_over_the_labelled_frames() -> None:
    x = scores(2, 9, 3)
    expected = functional.cross_entropy(x.flatten(0, 1), LABELS.flatten(), ignore_index=IGNORED)
    torch.testing.assert_close(losses.frame_cross_entropy(scores=x, labels=LABELS), expected)
    weights = torch.tensor([1.0, 0.5, 4.0])
    expected = functional.cross_entropy(x.flatten(0, 1), LABELS.flatten(), weights, ignore_index=IGNORED)
    torch.testing.assert_close(losses.frame_cross_entropy(scores=x, labels=LABELS, weights=weights), expected)


def test_nothing_labelled_is_no_loss_and_no_nan() -> None:
    x = scores(1, 4, 3).requires_grad_()
    nothing = torch.full((1, 4), IGNORED)
    loss = losses.frame_cross_entropy(scores=x, labels=nothing)
    targets = losses.soften_boundaries(labels=nothing, classes=3, radius=2)
    loss = loss + losses.soft_cross_entropy(scores=x, targets=targets)
    loss = loss + losses.truncated_smoothing(scores=x[:, :1], valid=torch.ones(1, 1, dtype=torch.bool))
    loss.backward()
    assert loss == 0 and not x.grad.any()


@pytest.mark.parametrize("radius", [0, 1, 2, 5, 50])
def test_soft_labels_are_the_mean_over_labelled_neighbours(radius: int) -> None:
    soft = losses.soften_boundaries(labels=LABELS, classes=3, radius=radius)
    for row, labels in enumerate(LABELS.tolist()):
        for frame, label in enumerate(labels):
            near = [x for x in labels[max(0, frame - radius) : frame + radius + 1] if x != IGNORED]
            expected = [near.count(c) / len(near) if label != IGNORED else 0.0 for c in range(3)]
            assert soft[row, frame].tolist() == pytest.approx(expected)


def test_soft_labels_fall_off_linearly_at_a_boundary() -> None:
    labels = torch.tensor([[0] * 6 + [1] * 6])
    soft = losses.soften_boundaries(labels=labels, classes=2, radius=2)[0, :, 0]
    assert soft.tolist() == pytest.approx([1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2, 0, 0, 0, 0])


def test_hard_shares_give_the_hard_loss() -> None:
    x, weights = scores(2, 9, 3), torch.tensor([1.0, 0.5, 4.0])
    targets = losses.soften_boundaries(labels=LABELS, classes=3, radius=0)
    for chosen in (None, weights):
        torch.testing.assert_close(
            losses.soft_cross_entropy(scores=x, targets=targets, weights=chosen),
            losses.frame_cross_entropy(scores=x, labels=LABELS, weights=chosen),
        )


def test_smoothing_is_the_truncated_squared_change_over_valid_neighbours() -> None:
    x = 4 * scores(2, 2, 6, 3)  # (stages, B, T, C), with changes beyond the threshold
    valid = torch.arange(6) < torch.tensor([[6], [4]])
    logs, found = x.log_softmax(-1), []
    for stage in range(2):
        for row, length in enumerate((6, 4)):
            for frame in range(1, length):
                for c in range(3):
                    change = float(logs[stage, row, frame, c] - logs[stage, row, frame - 1, c])
                    found.append(min(change**2, 16.0))
    assert max(found) == 16.0 and min(found) < 16.0
    assert float(losses.truncated_smoothing(scores=x, valid=valid)) == pytest.approx(sum(found) / len(found), rel=1e-5)


def test_smoothing_moves_the_later_frame_of_a_pair_only() -> None:
    x = scores(1, 2, 3).requires_grad_()
    losses.truncated_smoothing(scores=x, valid=torch.ones(1, 2, dtype=torch.bool)).backward()
    assert not x.grad[0, 0].any() and x.grad[0, 1].any()


def test_class_weights_follow_their_formulas_and_have_mean_one() -> None:
    counts = torch.tensor([100, 0, 4, 1])
    assert losses.class_weights(counts=counts, rule="none").tolist() == [1, 0, 1, 1]
    root = losses.class_weights(counts=counts, rule="inverse_root").tolist()
    assert root == pytest.approx([3 * x / 1.6 for x in (0.1, 0, 0.5, 1.0)])
    beta = 0.9
    effective = [(1 - beta) / (1 - beta**n) if n else 0.0 for n in counts.tolist()]
    found = losses.class_weights(counts=counts, rule="effective", beta=beta).tolist()
    assert found == pytest.approx([3 * x / sum(effective) for x in effective])


def test_logit_adjustment_is_the_log_share() -> None:
    found = losses.logit_adjustment(counts=torch.tensor([90, 9, 0]), strength=2.0).tolist()
    assert found == pytest.approx([2 * math.log(n / 100) for n in (90, 9, 1)])
    assert not losses.logit_adjustment(counts=torch.tensor([90, 9, 0]), strength=0.0).any()


def test_adjusted_scores_of_pure_guessing_favour_no_class() -> None:
    """With no information in the features, training leaves equal scores: the adjustment carries the frequencies."""
    labels = torch.tensor([0] * 90 + [1] * 10)[None]
    bias = torch.zeros(2, requires_grad=True)
    shift = losses.logit_adjustment(counts=torch.bincount(labels[0]))
    optimizer = torch.optim.SGD([bias], lr=1.0)
    for _ in range(60):
        optimizer.zero_grad()
        losses.frame_cross_entropy(scores=(bias + shift).expand(1, 100, 2), labels=labels).backward()
        optimizer.step()
    assert float((bias[0] - bias[1]).detach().abs()) < 1e-4
