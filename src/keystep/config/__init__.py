"""All settings of keystep: immutable, validated, each documented by the docstring under its field."""

from keystep.config.attention import AttentionPattern
from keystep.config.base import Config, build
from keystep.config.model import ModelConfig
from keystep.config.run import (
    DataConfig,
    MaskingConfig,
    ObjectiveConfig,
    RunConfig,
    TargetConfig,
    TrainConfig,
    run_config,
    seed_runs,
)

__all__ = [
    "AttentionPattern",
    "Config",
    "DataConfig",
    "MaskingConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "RunConfig",
    "TargetConfig",
    "TrainConfig",
    "build",
    "run_config",
    "seed_runs",
]
