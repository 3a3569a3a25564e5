"""Offline and causal modes of a model, and the delay of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Protocol, get_args

import numpy as np

from keystep.config.attention import AttentionPattern
from keystep.data.folder import FeatureFolder
from keystep.evals.rows import Mode
from keystep.pjepa import PJEPA


class Delayed(Protocol):
    """A row with a delay in seconds; None: until the end of the video."""

    @property
    def delay(self) -> float | None: ...


def supported_modes(models: Sequence[PJEPA]) -> tuple[Mode, ...]:
    """The modes that at least one model supports; all modes without models."""
    found = {mode for model in models for mode in attention_patterns(model)}
    return tuple(mode for mode in get_args(Mode) if mode in found or not models)


def attention_patterns(model: PJEPA) -> dict[Mode, AttentionPattern]:
    """Mode -> attention pattern of a model. A causal model has no offline mode."""
    own, live = model.config.attention, model.config.stream_attention
    if live is None:
        return {"offline": own}
    return {"causal": own} if live == own else {"offline": own, "causal": live}


def pattern_delay(pattern: AttentionPattern, rate: float) -> float | None:
    """Maximum time in seconds until a frame's latent is final; None: until the end of the video.

    With causal attention it is 0; with block-causal attention, until the end of the block. Look-ahead of the features
    is not included.
    """
    if pattern.kind == "causal":
        return 0.0
    if pattern.kind == "block_causal":
        assert pattern.block is not None
        return (pattern.block - 1) / rate
    return None


def answer_slots(length: int, block: int, chunk: int) -> np.ndarray:
    """(length,) int64: for each slot, the slot at which its answer becomes final.

    The head waits for the last slot of its chunk, and the latent of that slot for the last slot of its block (or for
    the end of the video).

    Args:
        length: number of slots.
        block: slots in a block of the encoder.
        chunk: slots in a chunk of the head.
    """
    slots = np.arange(length)
    ends = np.minimum((slots // chunk + 1) * chunk, length) - 1
    final: np.ndarray = np.minimum((ends // block + 1) * block, length) - 1
    return final


def slot_delay(folder: FeatureFolder) -> float:
    """Seconds from the first source frame of a slot until its features are known.

    Pooling waits for the last frame of the slot. A backbone with look-ahead also waits for the end of its window; half
    a source frame counts as no delay.
    """
    source = folder.source
    waiting = (folder.pool - 1) / source.rate + max(Fraction(0), source.look_ahead - 1 / (2 * source.rate))
    return float(waiting)


def mark_oracle(name: str) -> str:
    """The name with an ORACLE mark."""
    return name if "(ORACLE)" in name else f"{name} (ORACLE)"


def answers_later(row: Delayed, rival: Delayed) -> bool:
    """Whether a row is final later than its rival, so that it has seen more of the future."""
    return row.delay is not None and rival.delay is not None and row.delay > rival.delay + 1e-9
