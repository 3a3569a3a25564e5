"""What the elapsed time alone says about the time left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from keystep.foresight.targets import Floats


@dataclass(frozen=True, eq=False)
class Clock:
    """Durations of the training videos, as a forecast.

    durations: (N,) seconds, sorted.
    """

    durations: Floats
    width: ClassVar[int] = 3
    """Number of `columns`."""

    @property
    def median(self) -> float:
        """The median duration in seconds."""
        return float(np.median(self.durations))

    def remaining(self, elapsed: Floats) -> Floats:
        """(T,) median time left of the training videos that are longer than ``elapsed``, in seconds; 0 beyond all."""
        count = len(self.durations)
        first = np.searchsorted(self.durations, elapsed, side="right")
        longer = np.maximum(count - first, 1)
        middle = (np.minimum(first + half, count - 1) for half in ((longer - 1) // 2, longer // 2))
        left = np.mean([self.durations[place] for place in middle], axis=0) - elapsed
        return np.asarray(np.where(first < count, left, 0.0))

    def progress(self, elapsed: Floats) -> Floats:
        """(T,) share of the video that is over, 0 to 1, if it goes on for `remaining`."""
        return np.asarray(elapsed / np.maximum(elapsed + self.remaining(elapsed), 1e-9))

    def columns(self, elapsed: Floats) -> Floats:
        """(T, 3) functions of the elapsed time (T,) for linear read-outs."""
        passed = elapsed / self.median
        return np.stack([passed, np.log1p(10 * passed), self.remaining(elapsed) / self.median], axis=1)
