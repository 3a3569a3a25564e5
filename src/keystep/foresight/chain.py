"""A semi-Markov chain of steps: transition frequencies, and how long steps take, counted in training videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from keystep.data.annotation import IGNORED, segment_lengths
from keystep.foresight.targets import Floats, Ids

MOST_TICKS = 400
"""Resolution of the furthest horizon: longer ones are computed in ticks of several slots."""
PRIOR = 1.0
"""Pseudo-count of transitions (shared by all successors) and of leaving a step (at the step's mean rate)."""


@dataclass(frozen=True, eq=False)
class StepChain:
    """Which step follows which, and when.

    Attributes:
        transitions: (C, C + 1) probability of the next step; the last column is the end of the video.
        hazards: (C, K) probability of leaving a step after exactly k + 1 ticks, given that it lasted that long; the
            last column holds for all longer durations.
        slots: slots in a tick.
        ticks: number of ticks that can be looked ahead.
    """

    transitions: Floats
    hazards: Floats
    slots: int
    ticks: int

    @classmethod
    def fit(cls, videos: Sequence[Ids], classes: int, furthest: int) -> StepChain:
        """Count transitions and durations.

        Args:
            videos: (T,) class ids of each training video; -100 for unlabelled slots.
            classes: number of classes C.
            furthest: slots of the furthest horizon.
        """
        slots = -(-furthest // MOST_TICKS)
        counts = np.zeros((classes, classes + 1))
        durations: list[list[int]] = [[] for _ in range(classes)]
        for labels in videos:
            lengths = segment_lengths(labels)
            steps = labels[np.cumsum([0, *lengths[:-1]])]
            for step, after, length in zip(steps, [*steps[1:], classes], lengths, strict=True):
                if step != IGNORED and after != IGNORED:
                    counts[step, after] += 1
                    durations[step].append(-(-length // slots))
        overall = counts.sum(0) + 1e-9
        transitions = counts + PRIOR * overall / overall.sum()
        transitions[np.arange(classes), np.arange(classes)] = 0
        transitions /= transitions.sum(1, keepdims=True)
        return cls(transitions, _hazards(durations), slots, -(-furthest // slots))

    def later(self, steps: Ids, ages: Ids, slots: int) -> Floats:
        """Distributions over the step ``slots`` later.

        Args:
            steps: (N,) current steps.
            ages: (N,) slots since they started.
            slots: up to the furthest horizon.

        Returns:
            (N, C + 1); the last column is the end of the video.
        """
        ticks, aged = max(1, round(slots / self.slots)), ages // self.slots
        found = np.zeros((len(steps), self.transitions.shape[1]))
        for step in np.unique(steps):
            rows = np.flatnonzero(steps == step)
            age, back = np.unique(aged[rows], return_inverse=True)
            stays = self._survival(int(step), age[:, None] + np.arange(ticks + 1), age)  # (n, ticks + 1)
            leaves = -np.diff(stays, axis=1)  # (n, ticks), in tick 1, 2, ...
            ahead = leaves @ self._entered[ticks - 1 :: -1, step][:ticks]
            ahead[:, step] += stays[:, -1]
            found[rows] = ahead[back]
        return found

    def mixed(self, probabilities: Floats, steps: Ids, ages: Ids, slots: int) -> Floats:
        """`later`, if the current step is uncertain: (N, C) probabilities; other steps than ``steps`` just began."""
        certain = np.take_along_axis(probabilities, steps[:, None], axis=1)
        others = probabilities.copy()
        np.put_along_axis(others, steps[:, None], 0.0, axis=1)
        classes = np.arange(probabilities.shape[1])
        return certain * self.later(steps, ages, slots) + others @ self.later(classes, np.zeros_like(classes), slots)

    def wait(self, steps: Ids, ages: Ids) -> Floats:
        """(N,) median number of slots until the current steps end."""
        aged, found = ages // self.slots, np.zeros(len(steps))
        for step in np.unique(steps):
            rows = np.flatnonzero(steps == step)
            logs = self._log_survival[step]
            wanted = self._log(step, aged[rows]) + np.log(0.5)
            place = np.searchsorted(-logs, -wanted).astype(np.float64)  # the first tick below
            beyond = place >= len(logs)
            tail = np.log1p(-self.hazards[step, -1])
            place[beyond] = len(logs) - 1 + np.ceil((wanted[beyond] - logs[-1]) / tail)
            found[rows] = np.maximum(1, place - aged[rows]) * self.slots
        return found

    @cached_property
    def _log_survival(self) -> Floats:
        """(C, K + 1) log probability that a step lasts longer than k ticks."""
        logs = np.cumsum(np.log1p(-self.hazards), axis=1)
        return np.concatenate([np.zeros((len(logs), 1)), logs], axis=1)

    def _log(self, step: int, ticks: npt.NDArray[np.int64]) -> Floats:
        """Log probability that a step lasts longer than some ticks, of any number."""
        logs = self._log_survival[step]
        last = len(logs) - 1
        beyond = np.maximum(0, ticks - last) * np.log1p(-self.hazards[step, -1])
        return np.asarray(logs[np.minimum(ticks, last)] + beyond)

    def _survival(self, step: int, ticks: Ids, age: Ids) -> Floats:
        """Probability that a step lasts longer than ``ticks`` (n, m), given that it lasted longer than ``age`` (n,)."""
        return np.exp(self._log(step, ticks) - self._log(step, age)[:, None])

    @cached_property
    def _entered(self) -> Floats:
        """(ticks, C, C + 1) distribution m ticks after a step was left, by that step."""
        classes = len(self.transitions)
        steps, ticks = np.arange(classes), np.arange(self.ticks + 1)[None]
        stays = np.stack([self._survival(step, ticks, np.zeros(1, np.int64))[0] for step in range(classes)])
        leaves = -np.diff(stays, axis=1)  # (C, ticks)
        after = np.zeros((self.ticks, classes, classes + 1))
        for tick in range(self.ticks):
            inside = np.zeros((classes + 1, classes + 1))
            inside[steps, steps] = stays[:, tick]
            inside[classes, classes] = 1.0
            if tick:
                inside[:classes] += np.einsum("ck,kcs->cs", leaves[:, :tick], after[tick - 1 :: -1][:tick])
            after[tick] = self.transitions @ inside
        return after


def _hazards(durations: Sequence[Sequence[int]]) -> Floats:
    """(C, K) of steps with these durations in ticks."""
    longest = max((max(ticks) for ticks in durations if ticks), default=1)
    every = [tick for ticks in durations for tick in ticks] or [1]
    found = np.zeros((len(durations), longest + 1))
    for step, ticks in enumerate(durations):
        rate = min(0.9, (len(ticks) + 1) / (sum(ticks) + float(np.mean(every))))
        left = np.bincount(ticks, minlength=longest + 2)[1:] if len(ticks) else np.zeros(longest + 1)
        lasting = np.cumsum(left[::-1])[::-1]  # steps of at least k ticks
        found[step] = (left + PRIOR * rate) / (lasting + PRIOR)
    return np.minimum(found, 1 - 1e-9)
