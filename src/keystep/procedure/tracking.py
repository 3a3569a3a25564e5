"""Follow a run frame by frame: which steps were done, and how surprising the current one is.

Everything depends on earlier frames only, so a stream and a whole video give the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from keystep.procedure.order import Order

BRIEF = 0.5
"""A segment counts as done once it has lasted this share of the 10 % quantile of the step's duration."""


@dataclass(frozen=True)
class TrackState:
    """The state of a `Tracker`, a value; ``TrackState()`` before the first frame.

    Attributes:
        done: steps so far; the last one may go on.
        step: of the current segment. None: no step.
        frames: of the current segment so far.
        surprise: of the current segment.
        last: surprise of the last step that was done.
    """

    done: tuple[str, ...] = ()
    step: str | None = None
    frames: int = 0
    surprise: float = 0.0
    last: float = 0.0


@dataclass(frozen=True)
class Tracker:
    """Follows a run.

    Attributes:
        order: of the procedure.
        rate: frames per second.
    """

    order: Order
    rate: float

    def step(self, name: str | None, state: TrackState) -> TrackState:
        """The state after one more frame. name: its step; None: background or unknown."""
        if name != state.step:
            state = replace(state, step=name, frames=0, surprise=self._surprise(name, state))
        state = replace(state, frames=state.frames + 1)
        if name is not None and state.done[-1:] != (name,) and state.frames >= self._brief(name):
            state = replace(state, done=(*state.done, name), last=state.surprise)
        return state

    def _surprise(self, name: str | None, state: TrackState) -> float:
        if name is None:
            return 0.0
        goes_on = state.done[-1:] == (name,)
        return state.last if goes_on else self.order.score_next(state.done, name).surprise

    def of_run(self, names: Sequence[str | None]) -> tuple[np.ndarray, tuple[str, ...]]:
        """(T,) surprise of the current step at each frame of a run, and the steps that were done."""
        state, found = TrackState(), []
        for name in names:
            state = self.step(name, state)
            found.append(state.surprise)
        return np.array(found), state.done

    def _brief(self, name: str) -> float:
        known = self.order.graph.by_name.get(name)
        return 1.0 if known is None else BRIEF * known.seconds[0] * self.rate
