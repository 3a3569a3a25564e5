"""Calmer step probabilities that look at the past only.

``half_life``: each frame's probabilities are averaged with those before it, which weigh half as much for every so many
seconds they are older. ``hold``: another step is announced once it has been the likeliest for so long without a break;
until then the old one stands. Neither makes an answer later; a change of steps is seen later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from keystep.errors import InputError

Probabilities = npt.NDArray[np.float32]
Choose = Callable[[Probabilities], int]


def _likeliest(probabilities: Probabilities) -> int:
    return int(probabilities.argmax())


@dataclass(frozen=True)
class Smoothing:
    """Both in seconds; 0 does nothing."""

    half_life: float = 0.0
    hold: float = 0.0

    def __post_init__(self) -> None:
        for name in ("half_life", "hold"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise InputError(f"{name} is {value}; give seconds, 0 or more")


@dataclass(frozen=True, eq=False)
class SmoothingState:
    """What has been seen so far; begin with ``SmoothingState()``.

    average: (C,) running average of the probabilities.
    announced: the step that stands, or None before the first frame.
    leader, leading: the step that is likeliest now, and for how many frames it has been.
    """

    average: Probabilities | None = None
    announced: int | None = None
    leader: int = 0
    leading: int = 0

    def update(
        self, probabilities: Probabilities, smoothing: Smoothing, rate: float, choose: Choose = _likeliest
    ) -> SmoothingState:
        """After one more frame's (C,) probabilities, at ``rate`` frames a second; ``choose`` names a step for them."""
        average = probabilities
        if self.average is not None and smoothing.half_life:
            share = 0.5 ** (1 / (rate * smoothing.half_life))  # that the past keeps
            average = share * self.average + (1 - share) * probabilities
        leader = choose(average)
        leading = self.leading + 1 if leader == self.leader and self.announced is not None else 1
        patient = self.announced is not None and leading < smoothing.hold * rate
        return replace(
            self,
            average=average,
            announced=self.announced if patient else leader,
            leader=leader,
            leading=leading,
        )
