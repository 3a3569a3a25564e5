"""Calibrate a score by correct runs: how unusual is a value for the current step of the procedure?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtri

from keystep.errors import InputError

LEAST = 50
"""Number of frames of a phase below which all frames are used instead."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """The sorted scores of correct runs: of each phase, and of all frames."""

    everywhere: np.ndarray
    phases: Mapping[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, scores: Sequence[np.ndarray], phases: Sequence[np.ndarray] | None = None) -> Calibration:
        """Fit on correct runs.

        Args:
            scores: (T_i,) of each run.
            phases: (T_i,) the phase (step) of each frame; None: there are none.

        Raises:
            InputError: no frame.
        """
        together = np.concatenate([*scores, np.zeros(0)])
        if not len(together):
            raise InputError("no frame of a correct run to calibrate scores with")
        if phases is None:
            return cls(np.sort(together))
        where = np.concatenate(list(phases))
        own = {int(phase): np.sort(together[where == phase]) for phase in np.unique(where)}
        return cls(np.sort(together), {phase: found for phase, found in own.items() if len(found) >= LEAST})

    def tail(self, scores: np.ndarray, phases: np.ndarray | None = None) -> np.ndarray:
        """(T,) share of the correct frames of the same phase with at least this score, above 0 and at most 1."""
        shares = _tail(self.everywhere, scores)
        for phase, own in self.phases.items() if phases is not None else ():
            here = phases == phase
            shares[here] = _tail(own, scores[here])
        return shares


def deviations(tail: np.ndarray) -> np.ndarray:
    """Shares as standard deviations of a normal distribution: 0.5 is 0, small shares are positive."""
    found: np.ndarray = -ndtri(np.clip(tail, 1e-9, 1 - 1e-3))
    return found


def _tail(correct: np.ndarray, scores: np.ndarray) -> np.ndarray:
    above = len(correct) - np.searchsorted(correct, scores, side="left")
    return np.asarray((above + 1) / (len(correct) + 1), dtype=np.float64)
