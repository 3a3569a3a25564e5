"""Causal smoothing of step probabilities: an exponential moving average with hysteresis.

``p_t = a * p_{t-1} + (1 - a) * q_t`` with ``a = 0.5 ** (1 / (rate * half_life))``. Another step is announced only after
it has been the most probable one for ``hold`` seconds. Smoothing does not delay answers, but detects changes later.
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
    """Settings of the smoothing.

    Attributes:
        half_life: seconds after which a past frame has half its weight. 0: no average.
        hold: seconds for which a step has to be the most probable one before it is announced. 0: immediately.

    Raises:
        InputError: a negative or infinite number.
    """

    half_life: float = 0.0
    hold: float = 0.0

    def __post_init__(self) -> None:
        for name in ("half_life", "hold"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise InputError(f"{name} is {value}; give seconds, 0 or more")


@dataclass(frozen=True, eq=False)
class SmoothingState:
    """The state of the smoothing, a value; ``SmoothingState()`` before the first frame.

    Attributes:
        average: (C,) moving average of the probabilities. None: before the first frame.
        announced: the announced step. None: before the first frame.
        leader: the most probable step.
        leading: for how many frames it has been.
    """

    average: Probabilities | None = None
    announced: int | None = None
    leader: int = 0
    leading: int = 0

    def update(
        self, probabilities: Probabilities, smoothing: Smoothing, rate: float, choose: Choose = _likeliest
    ) -> SmoothingState:
        """Compute the state after one more frame.

        Args:
            probabilities: (C,) of the frame.
            smoothing: the settings.
            rate: frames per second.
            choose: decides on a step for smoothed probabilities.
        """
        average = probabilities
        if self.average is not None and smoothing.half_life:
            share = 0.5 ** (1 / (rate * smoothing.half_life))
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
