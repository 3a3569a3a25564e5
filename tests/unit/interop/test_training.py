"""keystep's training step with the paper's settings does what the authors' loop does."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file

from keystep.batch import SequenceBatch
from keystep.config import ModelConfig, RunConfig, TargetConfig
from keystep.config.base import build
from keystep.config.presets import preset_settings
from keystep.data.crops import TrainingBatch
from keystep.interop import official
from keystep.interop.official.checkpoints import rename
from keystep.nn.encoder import Encoder
from keystep.pjepa import PJEPA
from keystep.target import EmaTarget
from keystep.train.step import Learner, build_optimizer, train_step

STEP = {"learning_rate": 1e-3, "schedule": "constant", "accumulate": 2, "batch_size": 4}


def learner(model: PJEPA, teacher: dict[str, torch.Tensor], momentum: float) -> Learner:
    """The preset ``paper`` around a given model and teacher."""
    config = build(
        RunConfig,
        preset_settings("paper"),
        {"data": {"root": "DATA"}, "model": model.config.model_dump()},
        {"target": {"momentum": momentum}, "train": STEP},
    )
    fabric = Fabric(accelerator="cpu", devices=1)
    target = EmaTarget(model.encoder, config.target)
    target.encoder.load_state_dict(teacher)
    optimizer = build_optimizer(model, config.train)
    wrapped, wrapped_optimizer = fabric.setup(model, optimizer)
    return Learner(config, fabric, model, wrapped, target, wrapped_optimizer)


def test_three_batches_train_the_weights_that_the_authors_train(golden: Path) -> None:
    """Two batches make the first step; the third makes one alone, and still counts half."""
    before, after = (torch.load(golden / f"step_{when}.pt", weights_only=True) for when in ("before", "after"))
    stored = load_file(golden / "step_batches.safetensors")
    training = learner(official.load(golden / "step_before.pt"), before["teacher_state_dict"], momentum=0.99)
    batches: list[TrainingBatch] = []
    for number in range(3):
        part = {name: stored[f"batch{number}.{name}"] for name in ("features", "valid_mask", "target_mask")}
        assert torch.equal(stored[f"batch{number}.context_mask"], part["valid_mask"] & ~part["target_mask"])
        batches.append((SequenceBatch(part["features"], part["valid_mask"]), part["target_mask"]))
    results = [train_step(training, 0, batches[:2]), train_step(training, 1, batches[2:])]

    expected = json.loads((golden / "manifest.json").read_text())["training_step"]
    first, second, third = expected["losses"]
    assert [float(result.loss) for result in results] == pytest.approx([(first + second) / 2, third / 2], abs=5e-6)
    norms = [float(result.gradient_norm) for result in results]
    assert norms == pytest.approx(expected["grad_norm_before_clip"], rel=1e-4)
    assert max(norms) > training.config.train.clip, "a case that never clips would not test it"

    for name, value in rename(after["model_state_dict"]).items():
        torch.testing.assert_close(training.model.state_dict()[name], value, atol=2e-4, rtol=0)
    for name, value in after["teacher_state_dict"].items():
        torch.testing.assert_close(training.target.encoder.state_dict()[name], value, atol=1e-5, rtol=0)
    theirs = after["optimizer_state_dict"]["state"]
    parameters = dict(training.model.named_parameters())
    for index, name in enumerate(rename(after["model_state_dict"])):
        moments = training.optimizer.optimizer.state[parameters[name]]
        for moment in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(moments[moment], theirs[index][moment], atol=1e-5, rtol=1e-3)
    assert len(parameters) == len(theirs)


def test_the_moving_average_of_weights_equals_the_authors(golden: Path) -> None:
    stored = load_file(golden / "ema.safetensors")
    student, teacher, expected = (
        {name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)}
        for prefix in ("student.", "teacher_before.", "teacher_after.")
    )
    encoder = Encoder(ModelConfig(input_dim=16, dim=24, depth=1, heads=2, input_norm="layer", readout_dim=None))
    encoder.load_state_dict(teacher)
    target = EmaTarget(encoder, TargetConfig(kind="ema"))
    encoder.load_state_dict(student)
    target.follow(encoder, 0.996)
    for name, value in expected.items():
        torch.testing.assert_close(target.encoder.state_dict()[name], value, atol=1e-6, rtol=0)


@pytest.fixture
def small() -> Learner:
    weights = reference.random_weights(np.random.default_rng(0))
    model = PJEPA(official.model_config(reference.architecture("block_causal", "1d_flat"), "test"))
    model.load_state_dict(rename({name: torch.from_numpy(value) for name, value in weights.items()}))
    return learner(model, model.encoder.state_dict(), momentum=0.99)


def random_batch(lengths: tuple[int, ...], seed: int) -> TrainingBatch:
    rng = np.random.default_rng(seed)
    batch = SequenceBatch.pad([rng.normal(size=(length, 5)).astype(np.float32) for length in lengths])
    hidden = torch.from_numpy(rng.random(batch.valid.shape) < 0.6) & batch.valid
    return batch, hidden


def test_the_step_is_that_of_plain_torch(small: Learner) -> None:
    """Losses halved, gradients clipped to 1, AdamW on everything with one decay, then the moving average."""
    batches = [random_batch((20, 7), 1), random_batch((5,), 2)]
    model, teacher = PJEPA(small.model.config), PJEPA(small.model.config)
    for twin in (model, teacher):
        twin.load_state_dict(small.model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.04)
    for step in range(2):
        parts = batches if step == 0 else batches[1:]
        for batch, hidden in parts:
            pattern = model.config.attention
            targets = teacher.encoder(batch, batch.valid, pattern).detach()
            predictions = model(batch, hidden).predictions
            ((predictions - targets)[hidden].abs().mean() / 2).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for old, new in zip(teacher.encoder.parameters(), model.encoder.parameters(), strict=True):
                old += (1 - 0.99) * (new - old)
        train_step(small, step, parts)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(small.model.state_dict()[name], value, atol=1e-6, rtol=0, msg=name)
    for name, value in teacher.encoder.state_dict().items():
        torch.testing.assert_close(small.target.encoder.state_dict()[name], value, atol=1e-6, rtol=0, msg=name)


def test_averaging_over_frames_is_another_loss_than_over_parts(small: Learner) -> None:
    batches = [random_batch((20, 7), 1), random_batch((5,), 2)]
    objective = small.config.objective.model_copy(update={"average": "frames"})
    by_frames = replace(small, config=small.config.model_copy(update={"objective": objective}))
    sums, counts = [], []
    for batch, hidden in batches:
        targets = small.target(batch, small.model.config.attention)
        distance = (small.model(batch, hidden).predictions - targets)[hidden].abs().mean(-1)
        sums.append(distance.sum().detach())
        counts.append(hidden.sum())
    expected = torch.stack([sum(sums) / sum(counts), (sums[0] / counts[0] + sums[1] / counts[1]) / 2])
    state = {name: value.clone() for name, value in small.model.state_dict().items()}
    first = train_step(by_frames, 0, batches).loss
    small.model.load_state_dict(state)
    small.target.encoder.load_state_dict(
        {name.removeprefix("encoder."): value for name, value in state.items() if name.startswith("encoder.")}
    )
    second = train_step(small, 0, batches).loss
    torch.testing.assert_close(torch.stack([first, second]), expected)


def test_the_target_of_the_paper_is_the_last_layer_as_it_is() -> None:
    config = build(RunConfig, preset_settings("paper"), {"data": {"root": "DATA"}}).target
    plain = {"layers": 1, "normalise": "none", "offsets": (0,), "spread": 0.0}
    assert config == TargetConfig(kind="ema", momentum=0.999, **plain)
