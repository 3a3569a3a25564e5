"""Steps as they happen: features in, readings out, each with the delay it came with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from keystep.data.timeline import Timeline
from keystep.errors import InputError
from keystep.heads import LinearHead
from keystep.pjepa import PJEPA
from keystep.stream import saving, steps
from keystep.stream.smoothing import Probabilities, Smoothed, Smoothing

OnGap = Literal["stop", "bridge", "restart"]
GAP = 1.5
"""Slots between two frames from which on there is a gap."""


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


class LiveSteps:
    """A model and a head on one stream of features.

    What `feed`, `provisional` and `close` give are the steps of the offline run with the same attention, smoothed
    causally. ``frames`` counts what was fed. An error leaves everything as it was before the call.
    """

    def __init__(
        self,
        model: PJEPA,
        head: LinearHead,
        timeline: Timeline,
        smoothing: Smoothing | None = None,
        on_gap: OnGap = "stop",
    ) -> None:
        if head.width != model.config.dim:
            raise InputError(f"the head reads latents {head.width} wide; the model gives {model.config.dim}")
        self.model, self.head, self.timeline = model, head, timeline
        self.smoothing, self.on_gap = smoothing or Smoothing(), on_gap
        self.rate = float(timeline.rate)
        self.state = steps.init(model)
        self.smoothed = Smoothed()
        self.frames = 0
        self.gaps = 0
        self._times: list[float] = []
        """Moments of the last frames fed, the open block's at least."""

    def feed(self, features: np.ndarray | Tensor, times: Sequence[float] | None = None) -> list[Reading]:
        """Take the next frames (n, D_in); return readings of those that became final.

        Args:
            times: seconds of each frame, where the source knows them (then always); by default the timeline's.

        Raises:
            InputError: shape or numbers that do not fit, times that go backwards, a gap (unless it is bridged or begins
                the stream anew).
        """
        chunk = torch.as_tensor(features)
        if chunk.ndim != 2:
            raise InputError(f"features have shape {tuple(chunk.shape)}; expected (n, D_in)")
        moments = self._moments(len(chunk), times)
        breaks = self._breaks(moments)
        if not breaks or self.on_gap == "bridge":
            readings = self._step(chunk, moments)
            self.gaps += len(breaks)
            return readings
        return self._restart_at(breaks, chunk, moments)

    def provisional(self) -> list[Reading]:
        """Readings of the open block's frames, as if the video ended now; the next ones may revise them."""
        latents = steps.provisional(self.model, self.state)[0]
        count = len(latents)
        return self._readings(latents, self.frames - count, self._times[len(self._times) - count :], final=False)[0]

    def close(self) -> list[Reading]:
        """The video is over: readings of what the open block still held."""
        latents, self.state = steps.finish(self.model, self.state)
        return self._take(latents[0])

    def save(self, path: Path | str) -> None:
        """Write the stream's state; `resume` goes on from it. (Smoothing and gap rules are the caller's to keep.)"""
        average = self.smoothed.average
        saving.save(
            path,
            self.model,
            self.state,
            {
                "frames": self.frames,
                "times": self._times,
                "average": None if average is None else [float(x) for x in average],
                "announced": self.smoothed.announced,
                "leader": self.smoothed.leader,
                "leading": self.smoothed.leading,
            },
        )

    def resume(self, path: Path | str) -> None:
        """Go on where a stream of the same model was saved.

        Raises:
            InputError: no such file, a damaged one, or the state of another model or of a bare stream.
        """
        self.state, extra = saving.load_with_extra(path, self.model)
        if not extra:
            raise InputError(f"{path}: a stream without steps; load it with keystep.stream.load")
        average = None if extra["average"] is None else np.array(extra["average"], np.float32)
        self.smoothed = Smoothed(average, extra["announced"], extra["leader"], extra["leading"])
        self.frames, self._times = extra["frames"], extra["times"]

    def _moments(self, count: int, times: Sequence[float] | None) -> list[float]:
        if times is None:
            times = [float(self.timeline.seconds(self.frames + index)) for index in range(count)]
        moments = [float(time) for time in times]
        if len(moments) != count:
            raise InputError(f"{count} frames came with {len(moments)} times; give one for each")
        for before, after in pairwise([*self._times[-1:], *moments]):
            if not after > before:
                raise InputError(f"time goes backwards: a frame at {after:g} s follows one at {before:g} s")
        return moments

    def _breaks(self, moments: list[float]) -> list[int]:
        """Indices of the frames that follow on a gap."""
        known = [*self._times[-1:], *moments]
        offset = len(known) - len(moments)
        found = [i for i in range(1, len(known)) if (known[i] - known[i - 1]) * self.rate > GAP]
        if found and self.on_gap == "stop":
            before, after = known[found[0] - 1], known[found[0]]
            raise InputError(
                f"a gap: the frame at {after:g} s follows one at {before:g} s, at {self.rate:g} Hz; bridge it (go on "
                "as if nothing were missing) or restart (forget what was before)"
            )
        return [index - offset for index in found]

    def _restart_at(self, breaks: list[int], chunk: Tensor, moments: list[float]) -> list[Reading]:
        """Finish before each gap and begin anew behind it."""
        if not bool(chunk.isfinite().all()):
            raise InputError("a frame holds NaN or infinity")
        readings = []
        for start, stop in pairwise(sorted({0, *breaks, len(chunk)})):
            if start in breaks:
                readings += self.close()
                self.state, self.smoothed, self._times = steps.reset(self.state), Smoothed(), []
                self.gaps += 1
            readings += self._step(chunk[start:stop], moments[start:stop])
        return readings

    def _step(self, chunk: Tensor, moments: list[float]) -> list[Reading]:
        latents, self.state = steps.step(self.model, chunk[None], self.state)
        self.frames += len(chunk)
        self._times += moments
        return self._take(latents[0])

    def _take(self, latents: Tensor) -> list[Reading]:
        """Readings of the latents that became final; what waits still comes after them."""
        waiting = self.state.held[0]
        first = self.frames - waiting - len(latents)
        place = len(self._times) - waiting - len(latents)
        readings, self.smoothed = self._readings(latents, first, self._times[place:], final=True)
        self._times = self._times[-max(1, waiting) :]
        return readings

    def _readings(
        self, latents: Tensor, first: int, times: Sequence[float], final: bool
    ) -> tuple[list[Reading], Smoothed]:
        smoothed, readings = self.smoothed, []
        now = self._times[-1] if self._times else 0.0
        for index, row in enumerate(self._probabilities(latents)):
            smoothed = smoothed.then(row, self.smoothing, self.rate)
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

    @torch.no_grad()
    def _probabilities(self, latents: Tensor) -> Iterator[Any]:
        return iter(self.head.probabilities(latents.float().cpu()).numpy())
