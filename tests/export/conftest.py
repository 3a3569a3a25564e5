from collections.abc import Callable

import pytest
import torch

import keystep
from keystep.config import ModelConfig, build

MakeModel = Callable[..., keystep.PJEPA]


def make_model(pattern: dict, **changes: object) -> keystep.PJEPA:
    settings = {"input_dim": 5, "dim": 16, "depth": 2, "heads": 2, "live_attention": None, "attention": pattern}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = keystep.PJEPA(build(ModelConfig, settings, changes)).eval()
        if model.config.input_norm == "channel":
            model.encoder.proj[0].mean.normal_()
    return model


@pytest.fixture(scope="session", name="make_model")
def make_model_fixture() -> MakeModel:
    """A small random model with the given attention."""
    return make_model
