"""When a training that gets worse on held-out videos ends, and with what."""

import pytest
import torch

from keystep.diagnostics import Health
from keystep.train.early import IN_A_ROW, MARGIN, EarlyStop, find_stop


def test_a_loss_that_falls_or_levels_off_stops_nothing() -> None:
    falling = [1.3 * 0.95**look for look in range(20)]
    level = [*falling, *[falling[-1] * (1 + 0.9 * MARGIN)] * 20]
    noisy = [loss * (1 + 0.02 * (-1) ** look) for look, loss in enumerate(falling)]
    assert find_stop(falling) is find_stop(level) is find_stop(noisy) is None
    assert find_stop([]) is find_stop([1.0]) is None


def test_a_loss_that_rises_stops_after_so_many_worse_looks_in_a_row() -> None:
    losses = [1.35, 1.12, 1.09, 1.089, 1.09, 1.094, 1.101, 1.121, 1.111, 1.142, 1.144]  # 5 kitchen videos, 400 steps
    place = find_stop(losses)
    assert place == 9
    assert find_stop(losses[:place]) is None, "what comes later decides nothing"


def test_one_bad_look_and_one_good_one_by_chance_stop_nothing() -> None:
    assert find_stop([1.0, 0.9, 1.2, 0.9, 0.88, 0.87]) is None
    assert find_stop([1.0, 0.9, 0.89, 0.9, 0.8945, 0.8945, 0.8945, 0.8945]) is None


def look(loss: float) -> Health:
    return Health(effective_rank=5.0, neighbour_cosine=0.5, hidden_loss=2 * loss, mean_loss=2.0)


def test_the_weights_of_the_best_look_are_kept_as_they_were() -> None:
    model, early = torch.nn.Linear(2, 2), EarlyStop(active=True)
    kept = {}
    for step, loss in enumerate([1.3, 0.9, *[1.0] * (IN_A_ROW + 1)]):
        with torch.no_grad():
            model.weight.fill_(step)
        early.see(10 * step, look(loss), model)
        if loss == 0.9:
            kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert (early.best_step, early.stopped_at) == (10, 10 * (IN_A_ROW + 2))
    assert all(torch.equal(early.best[name], tensor) for name, tensor in kept.items())
    assert early.record() == {"stopped_at": 50, "best_step": 10}
    assert early.advice(400) == (
        "stopped at step 50 of 400: predictions on held-out videos were best at step 10, whose weights are kept; more "
        "videos, or fewer steps (--set train.steps=10)"
    )


def test_where_nothing_is_held_out_nothing_is_noted() -> None:
    early = EarlyStop(active=False)
    for step in range(20):
        early.see(step, look(1.0 + step), torch.nn.Linear(1, 1))
    assert (early.looks, early.best, early.stopped_at, early.record()) == ([], {}, None, {})


@pytest.mark.parametrize("steps", [1, 7, 12, 60, 400, 5000])
def test_every_training_is_looked_at_about_twelve_times(steps: int) -> None:
    from keystep.config import TrainConfig

    every = TrainConfig().settled_looks(steps)
    assert min(steps, 10) <= steps / every <= 12
    assert TrainConfig(monitor_every=50).settled_looks(steps) == 50
