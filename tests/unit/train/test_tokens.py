"""Training on several tokens a slot: read from the data, pooled inside the objective, resumed to the same bits."""

import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from keystep.config import RunConfig, run_config
from keystep.config.base import build
from keystep.data.folder import open_dataset
from keystep.data.statistics import measure
from keystep.data.store import FeatureStore
from keystep.data.timeline import Timeline
from keystep.errors import InputError
from keystep.train.run import pretrain

SMALL = {
    "model": {"dim": 16, "depth": 1, "heads": 2, "predictor_depth": 1},
    "train": {"steps": 6, "batch_size": 4, "crop": 24, "save_every": 3, "monitor_every": 6},
}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos of 30 slots with 3 tokens, each 8 wide; no labels."""
    root, rng = tmp_path_factory.mktemp("tokens") / "data", np.random.default_rng(0)
    store = FeatureStore(root, Timeline(rate=Fraction(4)), provenance={"tokens": 3}).create()
    for index in range(4):
        store.add(f"video{index}", (1 + 2 * rng.normal(size=(30, 24))).astype(np.float32))
    store.finish()
    return root


def settings(root: Path, **changes: object) -> RunConfig:
    return build(RunConfig, SMALL, {"data": {"root": root}}, changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["features", "clusters", "ema"])
def test_every_target_trains_the_pooler_that_the_data_ask_for(tokens: Path, tmp_path: Path, kind: str) -> None:
    config = settings(tokens, target={"kind": kind, "clusters": 4, "offsets": [0]})
    model = pretrain(config, tmp_path / "run")
    assert model.config.tokens == run_config(tmp_path / "run").model.tokens == 3
    assert model.encoder.pooler is not None and model.encoder.pooler.score.weight.abs().max() > 0
    folder = open_dataset(tokens)
    statistics, _ = measure(folder, sorted(folder.videos), 0, centred=True)
    assert np.array_equal(model.encoder.proj[0].deviation.numpy(), statistics.deviation)  # type: ignore[union-attr]
    assert model.encoder.held is not None and model.encoder.held.norm.mean.shape == (8,)
    assert model.encode(torch.randn(1, 9, 24)).shape == (1, 9, 8 + 25 * 8 + (4 * 8 + 1) + 4 * 8 + 2 * 384)


def test_a_resumed_run_with_a_pooler_ends_in_the_same_bits(tokens: Path, tmp_path: Path) -> None:
    whole = pretrain(settings(tokens), tmp_path / "whole")
    first = tmp_path / "resumed"
    pretrain(settings(tokens), first)
    shutil.rmtree(first / "checkpoints" / "step-00000006")  # as if it had been killed after step 3
    again = pretrain(run_config(first), first, resume=True)
    one, two = (model.state_dict() for model in (whole, again))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_tokens_can_be_read_as_one_wide_vector(tokens: Path, tmp_path: Path) -> None:
    model = pretrain(settings(tokens, model={"tokens": 1}), tmp_path / "run")
    assert model.encoder.pooler is None and model.config.tokens == 1


def test_tokens_that_the_features_cannot_hold_are_refused(tokens: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="features 24 wide cannot hold 5 tokens"):
        pretrain(settings(tokens, model={"tokens": 5}), tmp_path / "run")
