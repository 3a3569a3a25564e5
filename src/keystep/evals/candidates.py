"""The candidate controls, with widths, offsets and half-lives in units of tau.

tau (`keystep.data.time_scale`) is the decorrelation time of the features. In units of tau, the same candidates suit
gestures of seconds and operations of hours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
    as_frames,
    averaged_offsets,
    centre,
    check_positive,
    elapsed,
    moving_average,
    nearest_odd,
    progress,
    running_centre,
    side_by_side,
)

WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Candidate widths of the moving average in tau, in addition to no averaging."""
REACHES = (7.2, 24.0, 57.6)
"""Largest offset in tau. The smallest is 0.9 (causal: 0.45), and each next one is twice as large."""
HALF_LIVES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Half-lives of the exponential averages in tau; all are concatenated."""
COMPONENTS = 64
"""Principal components of single frames that offsets and histories use, if the features are wider."""
FRAME, MEMORY = 128, 24
"""The same for frames and averages, and for histories, if all controls are concatenated. With 64 components everywhere,
an offline probe would have thousands of columns.
"""

ONE_FRAME = "of one frame (raw)"
"""Suffix of the name of a moving average over one frame."""
ALL_CONTROLS = "all controls"
"""Name of the concatenation of all controls."""
HISTORIES = ("mean so far", "log-counts", "seen yet", "exponential averages", "clock")
"""Names of the histories, which summarise the video since its start."""

RAW = Control("raw", as_frames, causal=True)

Centring = Literal["plain", "centred", "running-centred"]
CENTRINGS: dict[Centring, Transform] = {"plain": as_frames, "centred": centre, "running-centred": running_centre}


class Candidates:
    """The candidate controls of a data set.

    Args:
        train: features of the training videos, (T_i, D) each, to which components and statistics are fitted. Each
            fit reads them, one at a time.
        rate: frames per second.
        tau: decorrelation time in seconds.
    """

    def __init__(self, train: Sequence[Array], rate: float, tau: float) -> None:
        self.train = train
        self.rate, self.seconds = check_positive(rate, "a rate"), check_positive(tau, "tau")
        self.tau = rate * tau
        """In frames."""
        self._width = train[0].shape[1]
        self._components, self._amounts = cache(self._fit_components), cache(self._fit_amounts)

    def smoothing(self, *, causal: bool, position: Position = "none") -> tuple[Control, ...]:
        """Moving averages, one for each width, optionally concatenated with the position.

        The first candidate is the raw input, that is, an average over one frame. The others average the centred input
        (causal: the running-centred input over the past). Select the width on the validation videos.

        Raises:
            InputError: a causal control cannot know the progress.
        """
        if causal and position == "progress":
            raise InputError("progress depends on the length of the video, so it is not causal; use elapsed")
        widths = sorted({nearest_odd(width * self.tau) for width in WIDTHS} - {1})
        found = [self._average(None, causal, position), *(self._average(width, causal, position) for width in widths)]
        return (*found[:-1], replace(found[-1], edge="the widest candidate"))

    def _average(self, width: int | None, causal: bool, position: Position) -> Control:
        """A moving average. width: in frames; None: no averaging."""
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
            transform = _concatenate(transform, times[position])
        name = f"{'trailing' if causal else 'centred'} average {span}"
        name += "" if position == "none" else f" + {position}"
        sees_no_future = causal or (width is None and position != "progress")
        return Control(name, transform, causal=sees_no_future, position=position)

    def offsets(self, *, causal: bool) -> tuple[Control, ...]:
        """Frames at several offsets (causal: past only), each averaged over half its distance, for each reach and
        centring.

        A linear probe can learn smoothing and temporal differences from them, so they often beat every moving average.
        Select one on the validation videos.
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
        return replace(control, edge="the farthest candidate") if reach == REACHES[-1] else control

    def histories(self, *, causal: bool, components: int = COMPONENTS) -> dict[str, Control]:
        """Summaries of the video so far, by name; if not causal, concatenated with those of the rest of the video."""
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
        """The frame, the selected average and offsets, and the histories, concatenated as four bands, nearest first."""
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
        return side_by_side(f"{ALL_CONTROLS}: {smoothing.name}; {offsets.name}", parts)

    def _limited(self, control: Control) -> Control:
        """The control applied to the leading `FRAME` components, if the features are wider."""
        if self._width <= FRAME:
            return control
        transform = _then(partial(self._narrow, FRAME), control.transform)
        return Control(control.name, transform, causal=control.causal)

    def _narrow(self, components: int, features: Array) -> Frames:
        """The features, or their leading components if they are wider."""
        if self._width <= components:
            return as_frames(features)
        return self._components("plain", components).transform(features)

    def _fit_components(self, centring: Centring, count: int) -> FramePCA:
        return FramePCA.fit(_Transformed(CENTRINGS[centring], self.train), count)

    def _fit_amounts(self, components: int) -> history.Amounts:
        return history.Amounts.fit(_Transformed(partial(self._narrow, components), self.train))


class _Transformed(Iterable[Frames]):
    """A transform of every video, computed in each iteration."""

    def __init__(self, transform: Transform, videos: Sequence[Array]) -> None:
        self.transform, self.videos = transform, videos

    def __iter__(self) -> Iterator[Frames]:
        return map(self.transform, self.videos)


def offsets_within(reach: float, *, causal: bool) -> tuple[float, ...]:
    """Offsets in tau: 0, 0.9, 1.8, 3.6, ... and ``reach`` in both directions; causal: the past only, from 0.45 on."""
    distance, distances = 0.45 if causal else 0.9, []
    while distance < 0.99 * reach:
        distances.append(distance)
        distance *= 2
    distances.append(reach)
    past = tuple(-distance for distance in reversed(distances))
    return (*past, 0.0) if causal else (*past, 0.0, *distances)


def _then(first: Transform, second: Transform) -> Transform:
    return lambda features: second(first(features))


def _concatenate(first: Transform, second: Transform) -> Transform:
    return lambda features: np.concatenate([first(features), second(features)], axis=1)
