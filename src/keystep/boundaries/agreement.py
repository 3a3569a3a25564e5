"""How well found boundaries agree with true ones. For judging only: nothing is fitted to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Agreement:
    """Counts over videos. A found boundary hits a true one within the tolerance; each counts once."""

    hits: int = 0
    found: int = 0
    true: int = 0

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(self.hits + other.hits, self.found + other.found, self.true + other.true)

    @property
    def precision(self) -> float:
        """Share of the found boundaries that hit, 0-100."""
        return 100 * self.hits / max(1, self.found)

    @property
    def recall(self) -> float:
        """Share of the true boundaries that were hit, 0-100."""
        return 100 * self.hits / max(1, self.true)

    @property
    def f1(self) -> float:
        """0-100."""
        return 200 * self.hits / max(1, self.found + self.true)


def agreement(found: Sequence[int], true: Sequence[int], tolerance: int) -> Agreement:
    """Compare segment lengths of one video; boundaries at most ``tolerance`` slots apart are matched, one to one.

    Both are sorted, so taking the earliest partner that is left matches as many as can be.
    """
    ours, theirs = np.cumsum(found)[:-1], np.cumsum(true)[:-1]
    hits = i = j = 0
    while i < len(ours) and j < len(theirs):
        if abs(ours[i] - theirs[j]) <= tolerance:
            hits, i, j = hits + 1, i + 1, j + 1
        elif ours[i] < theirs[j]:
            i += 1
        else:
            j += 1
    return Agreement(hits, len(ours), len(theirs))


def equally_spaced(slots: int, segments: int) -> list[int]:
    """Lengths of so many segments that divide a video evenly: the control, which has looked at nothing."""
    edges = np.round(np.linspace(0, slots, min(segments, slots) + 1)).astype(int)
    return [int(length) for length in np.diff(edges)]
