"""Steps as they happen: features in, readings out, each with the delay it came with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from keystep.data.timeline import Timeline
from keystep.errors import InputError
from keystep.pjepa import PJEPA
from keystep.stream import heads, saving, steps
from keystep.stream.heads import AnyHead, HeadState
from keystep.stream.smoothing import Probabilities, Smoothed, Smoothing
from keystep.stream.state import StreamState

OnGap = Literal["stop", "bridge", "restart"]
GAP, CROWD = 1.5, 0.5
"""Slots between two frames from which on there is a gap, and below which they are too close for the rate."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What is known of one frame.

    frame: index since the stream began. time: seconds, the moment that the frame stands for.
    step, probability: the announced step and its (smoothed) probability.
    delay: seconds of video that had to pass after ``time`` before this could be said, the features' own look-ahead and
        the wait for the rest of the chunk included.
    final: whether it stands; otherwise the end of the block may revise it.
    probabilities: (C,) smoothed, summing to 1.
    """

    frame: int
    time: float
    step: int
    probability: float
    delay: float
    final: bool
    probabilities: Probabilities


@dataclass(frozen=True, eq=False)
class LiveState:
    """Where a stream of steps is; a value, as `StreamState` is.

    head: where the head is, for heads that remember something.
    frames: how many were fed. gaps: how many were bridged or restarted at. timed: whether the source gives times; None
    before it said so. times: moments of the last frames fed, of all that wait at least.
    """

    stream: StreamState
    head: HeadState | None = None
    smoothed: Smoothed = field(default_factory=Smoothed)
    frames: int = 0
    gaps: int = 0
    timed: bool | None = None
    times: tuple[float, ...] = ()

    @property
    def waiting(self) -> int:
        """Frames that wait for the end of their block, in the model or in the head."""
        return self.stream.held[0] + (0 if self.head is None else self.head.held)


class LiveSteps:
    """A model and a head on one stream of features.

    What `feed`, `provisional` and `close` give are the steps of the offline run with the same attention and head,
    smoothed causally. An error leaves ``state`` as it was before the call; it may be kept and put back.
    """

    def __init__(
        self,
        model: PJEPA,
        head: AnyHead,
        timeline: Timeline,
        smoothing: Smoothing | None = None,
        on_gap: OnGap = "stop",
    ) -> None:
        if head.width != model.config.dim:
            raise InputError(f"the head reads latents {head.width} wide; the model gives {model.config.dim}")
        self.model, self.head, self.timeline = model, head, timeline
        self.smoothing, self.on_gap = smoothing or Smoothing(), on_gap
        self.rate = float(timeline.rate)
        self.state = LiveState(steps.init(model), heads.begin(head))

    def feed(self, features: np.ndarray | Tensor, times: Sequence[float] | None = None) -> list[Reading]:
        """Take the next frames (n, D_in); return readings of those that became final.

        Args:
            times: seconds of each frame, where the source knows them (then always); by default the timeline's.

        Raises:
            InputError: shape or numbers that do not fit, times that go backwards or are too close, a gap (unless it is
                bridged or begins the stream anew).
        """
        chunk = torch.as_tensor(features)
        if chunk.ndim != 2:
            raise InputError(f"features have shape {tuple(chunk.shape)}; expected (n, D_in)")
        moments = self._moments(len(chunk), times)
        breaks = self._breaks(moments)
        state = replace(self.state, timed=times is not None, gaps=self.state.gaps + len(breaks))
        restarts = breaks if self.on_gap == "restart" else []
        readings: list[Reading] = []
        for start, stop in pairwise(sorted({0, *restarts, len(chunk)})):
            if start in restarts:
                ended, state = self._closed(state)
                readings += ended
                stream = steps.reset(state.stream)
                state = replace(state, stream=stream, head=heads.begin(self.head), smoothed=Smoothed(), times=())
            said, state = self._stepped(state, chunk[start:stop], moments[start:stop])
            readings += said
        self.state = state
        return readings

    def provisional(self) -> list[Reading]:
        """Readings of the open block's frames, as if the video ended now; the next ones may revise them."""
        state = self.state
        latents = steps.provisional(self.model, state.stream)[0]
        probabilities, _ = heads.read(self.head, latents, state.head, end=True)
        first, place = state.frames - len(probabilities), len(state.times) - len(probabilities)
        return self._readings(state, probabilities, first, state.times[place:], final=False)[0]

    def close(self) -> list[Reading]:
        """The video is over: readings of what the open block still held. A block closed early ends the stream."""
        readings, self.state = self._closed(self.state)
        return readings

    def save(self, path: Path | str, extra: Mapping[str, Any] | None = None, state: LiveState | None = None) -> None:
        """Write the stream's state (or an earlier one) with what it has to be used with; `resume` goes on from it.

        ``extra``: plain data of the caller's to keep with it. (Smoothing and gap rules are the caller's to keep, too.)
        """
        if self.state.head is not None:
            raise InputError("a stream with a temporal head cannot be saved yet; run it without a state on disk")
        state = state or self.state
        smoothed = state.smoothed
        average = None if smoothed.average is None else [float(x) for x in smoothed.average]
        record = {
            "head": self.head.signature,
            "timeline": self.timeline.to_json(),
            "frames": state.frames,
            "gaps": state.gaps,
            "timed": state.timed,
            "times": state.times,
            "smoothed": [average, smoothed.announced, smoothed.leader, smoothed.leading],
            "extra": dict(extra or {}),
        }
        saving.save(path, self.model, state.stream, record)

    def resume(self, path: Path | str) -> dict[str, Any]:
        """Go on where a stream was saved; returns the caller's extra data.

        Raises:
            InputError: no such file, a damaged one, the state of another model, head or rate, or of a bare stream.
        """
        stream, record = saving.load_with_extra(path, self.model)
        if not record:
            raise InputError(f"{path}: a stream without steps; load it with keystep.stream.load")
        if record["head"] != self.head.signature:
            raise InputError(f"{path}: the state of a stream with another head; give the head that it was begun with")
        if record["timeline"] != self.timeline.to_json():
            before = record["timeline"]
            raise InputError(
                f"{path}: the state of a stream with the timeline {before}, not {self.timeline.to_json()}; give the "
                "rate that it was begun with"
            )
        average, announced, leader, leading = record["smoothed"]
        average = None if average is None else np.array(average, np.float32)
        self.state = LiveState(
            stream,
            None,
            Smoothed(average, announced, leader, leading),
            record["frames"],
            record["gaps"],
            record["timed"],
            tuple(record["times"]),
        )
        extra: dict[str, Any] = record["extra"]
        return extra

    def _moments(self, count: int, times: Sequence[float] | None) -> list[float]:
        """Seconds of the next frames, held to the order and to the rate."""
        state = self.state
        if state.timed not in (None, times is not None):
            raise InputError(f"frame {state.frames}: some frames come with a time and some without; give all, or none")
        if times is None:
            return [float(self.timeline.seconds(state.frames + index)) for index in range(count)]
        moments = [float(time) for time in times]
        if len(moments) != count:
            raise InputError(f"{count} frames came with {len(moments)} times; give one for each")
        for before, after in pairwise([*state.times[-1:], *moments]):
            if not after > before:
                raise InputError(f"time goes backwards: a frame at {after:g} s follows one at {before:g} s")
            if (after - before) * self.rate < CROWD:
                raise InputError(
                    f"frames at {before:g} s and {after:g} s are too close for {self.rate:g} Hz; give the source's rate"
                )
        return moments

    def _breaks(self, moments: list[float]) -> list[int]:
        """Indices of the frames that follow on a gap."""
        known = [*self.state.times[-1:], *moments]
        offset = len(known) - len(moments)
        found = [i for i in range(1, len(known)) if (known[i] - known[i - 1]) * self.rate > GAP]
        if found and self.on_gap == "stop":
            before, after = known[found[0] - 1], known[found[0]]
            raise InputError(
                f"a gap: the frame at {after:g} s follows one at {before:g} s, at {self.rate:g} Hz; bridge it (go on "
                "as if nothing were missing) or restart (forget what was before)"
            )
        return [index - offset for index in found]

    def _stepped(self, state: LiveState, chunk: Tensor, moments: list[float]) -> tuple[list[Reading], LiveState]:
        latents, stream = steps.step(self.model, chunk[None], state.stream)
        frames, times = state.frames + len(chunk), (*state.times, *moments)
        return self._taken(replace(state, stream=stream, frames=frames, times=times), latents[0])

    def _closed(self, state: LiveState) -> tuple[list[Reading], LiveState]:
        latents, stream = steps.finish(self.model, state.stream)
        return self._taken(replace(state, stream=stream), latents[0], end=True)

    def _taken(self, state: LiveState, latents: Tensor, end: bool = False) -> tuple[list[Reading], LiveState]:
        """Readings of what became final with these latents; what waits still comes after them."""
        probabilities, head = heads.read(self.head, latents, state.head, end=end)
        state = replace(state, head=head)
        first = state.frames - state.waiting - len(probabilities)
        place = len(state.times) - state.waiting - len(probabilities)
        readings, smoothed = self._readings(state, probabilities, first, state.times[place:], final=True)
        return readings, replace(state, smoothed=smoothed, times=state.times[-max(1, state.waiting) :])

    def _readings(
        self, state: LiveState, probabilities: Tensor, first: int, times: Sequence[float], final: bool
    ) -> tuple[list[Reading], Smoothed]:
        smoothed, readings = state.smoothed, []
        now = state.times[-1] if state.times else 0.0
        for index, row in enumerate(probabilities.numpy()):
            smoothed = smoothed.then(row, self.smoothing, self.rate, self._choose)
            assert smoothed.announced is not None and smoothed.average is not None
            readings.append(
                Reading(
                    frame=first + index,
                    time=times[index],
                    step=smoothed.announced,
                    probability=float(smoothed.average[smoothed.announced]),
                    delay=now - times[index] + float(self.timeline.look_ahead),
                    final=final,
                    probabilities=smoothed.average,
                )
            )
        return readings, smoothed

    def _choose(self, probabilities: Probabilities) -> int:
        return int(self.head.choose(torch.from_numpy(probabilities)))
