"""What varies with time, as pure functions of the step, so that a resumed run needs no replay."""

from __future__ import annotations

import math

from keystep.config import TargetConfig, TrainConfig


def learning_rate(step: int, config: TrainConfig) -> float:
    """Learning rate of optimiser step ``step`` (0-based): linear warm-up, then the chosen schedule."""
    if config.schedule == "constant":
        share = 1.0
    elif config.schedule == "drop":
        share = 0.1 if step >= config.drop_at * config.steps - 1e-6 else 1.0  # 0.499 x 5000 may be 2495.0000000001
    else:
        decay = cosine_decay(step, config.warmup, config.steps - 1)
        share = config.final_share + (1 - config.final_share) * decay
    return config.learning_rate * warmup(step, config.warmup) * share


def momentum(step: int, steps: int, config: TargetConfig) -> float:
    """EMA momentum of step ``step``: constant, or along a cosine to its final value."""
    if config.final_momentum is None:
        return config.momentum
    return config.final_momentum + (config.momentum - config.final_momentum) * cosine_decay(step, 0, steps - 1)


def warmup(step: int, steps: int) -> float:
    """Linear rise to 1 over the first ``steps`` steps."""
    return min(1.0, (step + 1) / steps) if steps else 1.0


def cosine_decay(step: int, first: int, last: int) -> float:
    """1 up to step ``first``, then half a cosine down to 0 at step ``last``."""
    progress = max(0.0, (step - first) / max(1, last - first))
    return (1 + math.cos(math.pi * min(1.0, progress))) / 2
