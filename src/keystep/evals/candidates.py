"""Which controls are tried, in units of tau: how wide, how far back, how long remembered.

tau (`keystep.data.clock`) is the time after which the features are half forgotten. Gestures and hour-long operations
get the same numbers here, and each its own seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Literal

import numpy as np

from keystep.errors import InputError
from keystep.evals import history
from keystep.evals.controls import (
    Array,
    Control,
    FramePCA,
    Frames,
    Position,
    Transform,
    above_zero,
    as_frames,
    averaged_offsets,
    centre,
    elapsed,
    moving_average,
    odd,
    progress,
    running_centre,
    side_by_side,
)

WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Widths of the moving average to try, in tau, beside one frame: no averaging."""
REACHES = (7.2, 24.0, 57.6)
"""How far the offsets go, in tau; the nearest is 0.9 (0.45 where there is only the past), the next twice as far."""
HALF_LIVES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Half-lives of the exponential averages, in tau; all stand side by side."""
COMPONENTS = 64
"""Principal components of single frames that offsets and histories are made of, where the features are wider."""
FRAME, MEMORY = 128, 24
"""The same of frames and averages, and of histories, where all controls stand side by side: with 64 of everything,
offline, a probe would read thousands of columns."""

ONE_FRAME = "of one frame (raw)"
"""How the name of a moving average says that it averages nothing."""
TOGETHER = "all controls"
"""Name of the controls side by side."""
HISTORIES = ("mean so far", "log-counts", "seen yet", "exponential averages", "clock")
"""Names of what is remembered since the start."""

RAW = Control("raw", as_frames, causal=True)

Centring = Literal["plain", "centred", "running-centred"]
CENTRINGS: dict[Centring, Transform] = {"plain": as_frames, "centred": centre, "running-centred": running_centre}


class Candidates:
    """The controls of a data set.

    Args:
        train: features of the training videos, (T_i, D) each; components and statistics are fitted to them.
        rate: frames a second.
        tau: seconds.
    """

    def __init__(self, train: Sequence[Array], rate: float, tau: float) -> None:
        self.train = train
        self.rate, self.seconds = above_zero(rate, "a rate"), above_zero(tau, "tau")
        self.tau = rate * tau
        """In frames."""
        self._width = train[0].shape[1]
        self._components, self._amounts = cache(self._fitted), cache(self._measured)

    def smoothing(self, *, causal: bool, position: Position = "none") -> tuple[Control, ...]:
        """Moving averages, one for each width, alone or beside the position.

        The first is the raw input itself, an average over one frame; the others average the centred input (causal: the
        running-centred input over the past). They are one control together: choose the width on the validation videos,
        and show that one.
        """
        if causal and position == "progress":
            raise InputError("progress needs the length of the video, so no causal control has it; use elapsed")
        widths = sorted({odd(width * self.tau) for width in WIDTHS} - {1})
        found = [self._average(None, causal, position), *(self._average(width, causal, position) for width in widths)]
        return (*found[:-1], replace(found[-1], edge="the widest that was tried"))

    def _average(self, width: int | None, causal: bool, position: Position) -> Control:
        """width: in frames; None: the frames as they are."""
        times: dict[Position, Transform] = {
            "elapsed": lambda features: elapsed(len(features), self.tau),
            "progress": lambda features: progress(len(features)),
        }
        span = ONE_FRAME
        transform: Transform = as_frames
        if width is not None:
            span = f"{width / self.rate:.3g} s"
            centring = running_centre if causal else centre
            transform = _then(centring, partial(moving_average, width=width, causal=causal))
        if position != "none":
            transform = _beside(transform, times[position])
        name = f"{'trailing' if causal else 'centred'} average {span}"
        name += "" if position == "none" else f" + {position}"
        sees_no_future = causal or (width is None and position != "progress")
        return Control(name, transform, causal=sees_no_future, position=position)

    def offsets(self, *, causal: bool) -> tuple[Control, ...]:
        """Moments around a frame (causal: before it), averaged over half their distance, for each reach and centring.

        The linear probe learns its own smoothing and differences over time from them, so they often beat every moving
        average. One control together: choose on the validation videos, as with the widths.
        """
        centrings: tuple[Centring, ...] = ("plain", "running-centred" if causal else "centred")
        return tuple(self._offsets(reach, centring, causal) for reach in REACHES for centring in centrings)

    def _offsets(self, reach: float, centring: Centring, causal: bool) -> Control:
        moments = [self.tau * offset for offset in offsets_within(reach, causal=causal)]

        def transform(features: Array) -> Frames:
            frames = self._components(centring, COMPONENTS).transform(CENTRINGS[centring](features))
            return averaged_offsets(frames, moments)

        far = f"{'past ' if causal else ''}offsets within {reach * self.seconds:.3g} s, {centring}"
        control = Control(far, transform, causal=causal)
        return replace(control, edge="the farthest that was tried") if reach == REACHES[-1] else control

    def histories(self, *, causal: bool, components: int = COMPONENTS) -> dict[str, Control]:
        """What is remembered since the start, by name; not causal: beside what is still to come."""
        narrow, amounts = partial(self._narrow, components), partial(self._amounts, components)
        half_lives = [self.tau * half_life for half_life in HALF_LIVES]
        remembered: dict[str, Transform] = {
            "mean so far": history.mean_so_far,
            "log-counts": lambda frames: amounts().log_counts(frames, self.tau),
            "seen yet": lambda frames: amounts().seen_yet(frames),
            "exponential averages": partial(history.exponential_averages, half_lives=half_lives),
        }
        span = f"{HALF_LIVES[0] * self.seconds:.3g} to {HALF_LIVES[-1] * self.seconds:.3g} s"
        details = {"exponential averages": f"exponential averages, half-lives {span}"}
        more = "" if causal else ", past and to come"
        position: Position = "elapsed" if causal else "progress"
        found = {}
        for name, transform in remembered.items():
            whole = _then(narrow, transform if causal else history.both_ways(transform))
            found[name] = Control(details.get(name, name) + more, whole, causal=causal, position=position)
        timing = partial(history.clock, tau=self.tau, causal=causal)
        return {**found, "clock": Control(f"clock{more}", timing, causal=causal, position=position)}

    def together(self, smoothing: Control, offsets: Control, *, causal: bool) -> Control:
        """The frame, the chosen average and offsets, and the histories side by side, in four bands, nearest first."""
        histories = self.histories(causal=causal, components=MEMORY)
        remembered = ("exponential averages", "log-counts", "seen yet", "clock")
        parts = {
            "frame": self._limited(RAW),
            "average": self._limited(smoothing),
            "offsets": offsets,
            "history": side_by_side("history", {name: histories[name] for name in remembered}),
        }
        if smoothing.name.endswith(ONE_FRAME):
            del parts["average"]
        return side_by_side(f"{TOGETHER}: {smoothing.name}; {offsets.name}", parts)

    def _limited(self, control: Control) -> Control:
        """The same of the leading `FRAME` components of wider features."""
        if self._width <= FRAME:
            return control
        transform = _then(partial(self._narrow, FRAME), control.transform)
        return Control(control.name, transform, causal=control.causal)

    def _narrow(self, components: int, features: Array) -> Frames:
        """The channels themselves, or the leading components where there are more of them."""
        if self._width <= components:
            return as_frames(features)
        return self._components("plain", components).transform(features)

    def _fitted(self, centring: Centring, count: int) -> FramePCA:
        return FramePCA.fit([CENTRINGS[centring](video) for video in self.train], count)

    def _measured(self, components: int) -> history.Amounts:
        return history.Amounts.fit([self._narrow(components, video) for video in self.train])


def offsets_within(reach: float, *, causal: bool) -> tuple[float, ...]:
    """Offsets in tau: 0, 0.9, 1.8, 3.6, ... and ``reach`` itself both ways; or the past only, from 0.45 on."""
    distance, distances = 0.45 if causal else 0.9, []
    while distance < 0.99 * reach:
        distances.append(distance)
        distance *= 2
    distances.append(reach)
    past = tuple(-distance for distance in reversed(distances))
    return (*past, 0.0) if causal else (*past, 0.0, *distances)


def _then(first: Transform, second: Transform) -> Transform:
    return lambda features: second(first(features))


def _beside(first: Transform, second: Transform) -> Transform:
    return lambda features: np.concatenate([first(features), second(features)], axis=1)
