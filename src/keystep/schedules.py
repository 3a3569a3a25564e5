"""What varies with time, as pure functions of the step, so that a resumed run needs no replay."""

from __future__ import annotations

import math

from keystep.config import TargetConfig, TrainConfig


def learning_rate(step: int, config: TrainConfig) -> float:
    """Learning rate of optimiser step ``step`` (0-based): linear warm-up, then the chosen schedule."""
    warmup = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    if config.schedule == "constant":
        share = 1.0
    elif config.schedule == "drop":
        share = 0.1 if step >= config.drop_at * config.steps - 1e-6 else 1.0  # 0.499 x 5000 may be 2495.0000000001
    else:
        progress = max(0.0, (step - config.warmup) / max(1, config.steps - 1 - config.warmup))
        share = config.final_share + (1 - config.final_share) * _cosine(progress)
    return config.learning_rate * warmup * share


def momentum(step: int, steps: int, config: TargetConfig) -> float:
    """EMA momentum of step ``step``: constant, or along a cosine to its final value."""
    if config.final_momentum is None:
        return config.momentum
    return config.final_momentum + (config.momentum - config.final_momentum) * _cosine(step / max(1, steps - 1))


def _cosine(progress: float) -> float:
    """1 at progress 0, 0 at progress 1."""
    return (1 + math.cos(math.pi * min(1.0, progress))) / 2
