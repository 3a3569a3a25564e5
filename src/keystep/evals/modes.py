"""How a model runs offline and live, and when its answers are final."""

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
    """A row of a table. delay: seconds until it is final; None: when the video is over."""

    @property
    def delay(self) -> float | None: ...


def modes_of(models: Sequence[PJEPA]) -> tuple[Mode, ...]:
    """The modes in which at least one model runs; all of them when there is none."""
    found = {mode for model in models for mode in patterns_of(model)}
    return tuple(mode for mode in get_args(Mode) if mode in found or not models)


def patterns_of(model: PJEPA) -> dict[Mode, AttentionPattern]:
    """How a model is run in each mode; one that never looks ahead has the causal mode only."""
    own, live = model.config.attention, model.config.stream_attention
    if live is None:
        return {"offline": own}
    return {"causal": own} if live == own else {"offline": own, "causal": live}


def pattern_delay(pattern: AttentionPattern, rate: float) -> float | None:
    """Seconds until a frame's latent is final, at most: a block ends after it, a causal frame is final at once.

    What the features themselves look ahead comes on top. None: when the video is over.
    """
    if pattern.kind == "causal":
        return 0.0
    if pattern.kind == "block_causal":
        assert pattern.block is not None
        return (pattern.block - 1) / rate
    return None


def answer_slots(length: int, block: int, chunk: int) -> np.ndarray:
    """(length,) int64: with which slot each slot's answer is final, from latents in blocks and a head in chunks.

    A head waits for the last slot of its chunk, and that slot's latent for the last slot of its block; or for the end.
    """
    slots = np.arange(length)
    ends = np.minimum((slots // chunk + 1) * chunk, length) - 1
    final: np.ndarray = np.minimum((ends // block + 1) * block, length) - 1
    return final


def slot_delay(folder: FeatureFolder) -> float:
    """Seconds from the first source frame of a slot until the slot is known: pooling waits for the group's last frame,
    and a backbone whose window looks ahead waits for that (half a slot of its own is what "at once" means)."""
    source = folder.source
    waiting = (folder.pool - 1) / source.rate + max(Fraction(0), source.look_ahead - 1 / (2 * source.rate))
    return float(waiting)


def marked_oracle(name: str) -> str:
    """A name with ORACLE in it."""
    return name if "(ORACLE)" in name else f"{name} (ORACLE)"


def answers_later(row: Delayed, rival: Delayed) -> bool:
    """Whether a row is final later than its rival, so that it has seen more of the future."""
    return row.delay is not None and rival.delay is not None and row.delay > rival.delay + 1e-9
