"""Mistakes on a stream: the predictor's error and the order of the announced steps, frame by frame.

What `keystep.evals.mistakes` computes for whole videos, with a bounded delay: the frames of a hidden stretch wait for
its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from keystep.errors import InputError
from keystep.evals.calibration import Calibration
from keystep.evals.signals import Surprise, SurpriseState
from keystep.evals.surprises import Floats, announced, relative_errors, step_names
from keystep.procedure.tracking import Tracker, TrackState
from keystep.stream.smoothing import Smoothing, SmoothingState

NOTHING = np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class Alarms:
    """What a monitor says of n frames, (n,) each.

    Attributes:
        steps: class ids of the announced steps.
        error, order: shares of correct frames at the same step whose predictor's error, or order, is at least as
            unusual: small where something is wrong.
        both: the same for both signals together.
    """

    steps: np.ndarray
    error: Floats
    order: Floats
    both: Floats


@dataclass(frozen=True, eq=False)
class MonitorState:
    """The state of a `MistakeMonitor`, a value.

    Attributes:
        surprise, smoothing, track: states of the parts.
        steps, order: (n,) announced class ids and their surprise, of the frames that wait for the end of their stretch.
    """

    surprise: SurpriseState
    smoothing: SmoothingState = field(default_factory=SmoothingState)
    track: TrackState = field(default_factory=TrackState)
    steps: np.ndarray = field(default_factory=lambda: NOTHING)
    order: Floats = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True, eq=False)
class MistakeMonitor:
    """Finds mistakes on a stream.

    Attributes:
        surprise: of the model.
        typical: (span,) its mean error on correct runs at each place in a hidden stretch.
        smoothing: of the announced steps.
        tracker: of the procedure.
        classes: names by class id; background: names of those that are no steps.
        error, order, both: calibrations on correct runs; ``both`` is of the sum of negative logarithms of the others.
    """

    surprise: Surprise
    typical: Floats
    smoothing: Smoothing
    tracker: Tracker
    classes: tuple[str, ...]
    background: tuple[str, ...]
    error: Calibration
    order: Calibration
    both: Calibration

    @property
    def delay(self) -> float:
        """Maximum time in seconds until a frame is judged."""
        return self.surprise.delay / self.tracker.rate

    def begin(self) -> MonitorState:
        """The initial state, without frames."""
        return MonitorState(self.surprise.begin())

    def step(self, features: np.ndarray, scores: np.ndarray, state: MonitorState) -> tuple[Alarms, MonitorState]:
        """Process the next frames.

        Args:
            features: (n, D_in).
            scores: (n, C) scores of the classes by a head on causal latents of the same frames.
            state: before them.

        Returns:
            What is said of all frames whose stretch is complete, and the new state.

        Raises:
            InputError: another number of scores than frames.
        """
        if len(features) != len(scores):
            raise InputError(f"{len(features)} frames of features, but {len(scores)} of scores")
        smooth, track, steps, order = state.smoothing, state.track, [*state.steps], [*state.order]
        ids, smooth = announced(scores, self.smoothing, self.tracker.rate, smooth)
        for label, name in zip(ids.tolist(), step_names(ids, self.classes, self.background), strict=True):
            track = self.tracker.step(name, track)
            steps.append(label)
            order.append(track.surprise)
        errors, surprise = self.surprise.step(features, state.surprise)
        ready = len(errors)
        said = self._judge(errors, np.array(steps[:ready], np.int64), np.array(order[:ready], np.float64))
        waiting = np.array(steps[ready:], np.int64), np.array(order[ready:], np.float64)
        return said, MonitorState(surprise, smooth, track, *waiting)

    def finish(self, state: MonitorState) -> Alarms:
        """What is said of the frames of the last, incomplete stretch."""
        return self._judge(self.surprise.finish(state.surprise), state.steps, state.order)

    def of_video(self, features: np.ndarray, scores: np.ndarray) -> Alarms:
        """What is said of a whole video, (T, D_in) and (T, C)."""
        first, state = self.step(features, scores, self.begin())
        return joined([first, self.finish(state)])

    def _judge(self, errors: np.ndarray, steps: np.ndarray, order: Floats) -> Alarms:
        """errors: (n, 1) of whole stretches."""
        error = self.error.tail(relative_errors(errors[:, 0].astype(np.float64), self.typical), steps)
        tail = self.order.tail(order, steps)
        return Alarms(steps, error, tail, self.both.tail(-np.log(error) - np.log(tail)))


def joined(parts: Sequence[Alarms]) -> Alarms:
    """Consecutive alarms as one."""
    names = ("steps", "error", "order", "both")
    return Alarms(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
