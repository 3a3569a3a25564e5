"""Recognise steps on a stream of features: readings with times, smoothing, delays and treatment of gaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from keystep.data.timeline import Timeline
from keystep.errors import InputError, quoted
from keystep.foresight import Forecast, Forecaster
from keystep.heads import Head
from keystep.pjepa import PJEPA
from keystep.reading import Record, checked
from keystep.stream.session import Position, Stream, StreamResult
from keystep.stream.smoothing import Probabilities, Smoothing, SmoothingState

OnGap = Literal["stop", "bridge", "restart"]
Count = Annotated[int, Field(ge=0, le=10**15)]
Share = Annotated[float, Field(ge=0, le=1.001)]
GAP, TOO_CLOSE = 1.5, 0.5
"""Distances of two frames, in slots, above which there is a gap, and below which they are too close for the rate."""


def _check_rising(times: list[float]) -> list[float]:
    if any(after <= before for before, after in pairwise(times)):
        raise ValueError("times do not increase")
    return times


@dataclass(frozen=True, eq=False)
class Reading:
    """The result of one frame.

    Attributes:
        frame: its index since the start of the stream.
        time: its moment, in seconds.
        step, probability: the announced step and its smoothed probability.
        delay: seconds of video after ``time`` that were needed for this reading, including the look-ahead of the
            features and the rest of the chunk.
        final: False if the end of the block may revise it.
        probabilities: (C,) smoothed, with sum 1.
        forecast: what is foreseen at this frame, T = 1. None: without a forecaster.
    """

    frame: int
    time: float
    step: int
    probability: float
    delay: float
    final: bool
    probabilities: Probabilities
    forecast: Forecast | None = None


@dataclass(frozen=True, eq=False)
class LiveState:
    """The state of `LiveSteps`, a value like `StreamState`.

    Attributes:
        position: of model and head.
        smoothed: state of the smoothing.
        frames: number of frames that were fed.
        gaps: number of gaps so far.
        timed: whether the source gives times. None: unknown before the first frame.
        times: seconds of the last frames, at least of all that wait.
    """

    position: Position
    smoothed: SmoothingState = field(default_factory=SmoothingState)
    frames: int = 0
    gaps: int = 0
    timed: bool | None = None
    times: tuple[float, ...] = ()

    @property
    def waiting(self) -> int:
        """Number of frames that wait for the end of their block, in the model or in the head."""
        return self.position.waiting


class _LiveRecord(Record):
    """Schema of what `LiveSteps.save` stores with the states of the networks."""

    timeline: dict[str, str]
    frames: Count
    gaps: Count
    timed: bool | None
    times: Annotated[list[float], AfterValidator(_check_rising)]
    smoothed: Annotated[tuple[list[Share] | None, Count | None, Count, Count], Field(strict=False)]
    extra: dict[str, Any]


class LiveSteps:
    """Runs a model and a head on one stream of features, with times, smoothing and treatment of gaps.

    The readings equal those of the offline run with the same attention and head, smoothed causally. An error leaves
    ``state`` unchanged; it can be saved and restored.

    Args:
        model: causal, block-causal, or with a live attention.
        head: reads the model's latents.
        timeline: of the features.
        smoothing: of the probabilities. None: no smoothing.
        on_gap: ``stop`` raises at a gap, ``bridge`` continues as if nothing were missing, ``restart`` starts again.
        forecaster: reads the future off the model's latents; it counts the frames since the start of the video.

    Raises:
        InputError: the model or the head needs the whole video, or they or the forecaster do not fit together.
    """

    def __init__(
        self,
        model: PJEPA,
        head: Head,
        timeline: Timeline,
        smoothing: Smoothing | None = None,
        on_gap: OnGap = "stop",
        forecaster: Forecaster | None = None,
    ) -> None:
        self.stream, self.head, self.timeline = Stream(model, head), head, timeline
        self.smoothing, self.on_gap, self.forecaster = smoothing or Smoothing(), on_gap, forecaster
        self.rate = float(timeline.rate)
        if forecaster is not None and (forecaster.width, forecaster.rate) != (head.width, self.rate):
            raise InputError(
                f"the forecaster reads latents of width {forecaster.width} at {forecaster.rate:g} Hz; the stream has "
                f"{head.width} at {self.rate:g} Hz"
            )
        self.state = LiveState(self.stream.position)

    def feed(self, features: np.ndarray | Tensor, times: Sequence[float] | None = None) -> list[Reading]:
        """Process the next frames.

        Args:
            features: (n, D_in).
            times: seconds of each frame, given always or never. None: those of the timeline.

        Returns:
            Readings of the frames that became final.

        Raises:
            InputError: an invalid shape or number, times that decrease or are too close, or a gap (``stop``).
        """
        chunk = torch.as_tensor(features)
        if chunk.ndim != 2:
            raise InputError(f"features have shape {tuple(chunk.shape)}; expected (n, D_in)")
        moments = self._frame_times(len(chunk), times)
        breaks = self._find_gaps(moments)
        state = replace(self.state, timed=times is not None, gaps=self.state.gaps + len(breaks))
        restarts = breaks if self.on_gap == "restart" else []
        readings: list[Reading] = []
        for start, stop in pairwise(sorted({0, *restarts, len(chunk)})):
            if start in restarts:
                ended, state = self._close_stream(state)
                readings += ended
                state = replace(state, position=self.stream.begin(), smoothed=SmoothingState(), times=())
            said, state = self._advance(state, chunk[start:stop], moments[start:stop])
            readings += said
        self.state = state
        return readings

    def provisional(self) -> list[Reading]:
        """Readings of the frames of the open block, as if the video ended now; later frames may revise them."""
        state = self.state
        result = self.stream.expected(state.position)
        first, place = state.frames - len(result), len(state.times) - len(result)
        return self._readings(state, result, first, state.times[place:], final=False)[0]

    def close(self) -> list[Reading]:
        """End the video: returns readings of the waiting frames. After an incomplete block, the stream is over."""
        readings, self.state = self._close_stream(self.state)
        return readings

    def save(self, path: Path | str, extra: Mapping[str, Any] | None = None, state: LiveState | None = None) -> None:
        """Write the state to one file, from which `resume` continues. Smoothing and gap rules are not stored.

        Args:
            path: the file.
            extra: plain data of the caller to store with it.
            state: an earlier state to store. None: the current one.

        Raises:
            InputError: the file cannot be written.
        """
        state = state or self.state
        smoothed = state.smoothed
        average = None if smoothed.average is None else [float(x) for x in smoothed.average]
        record = {
            "timeline": self.timeline.to_json(),
            "frames": state.frames,
            "gaps": state.gaps,
            "timed": state.timed,
            "times": state.times,
            "smoothed": [average, smoothed.announced, smoothed.leader, smoothed.leading],
            "extra": dict(extra or {}),
        }
        self.stream.save(path, record, state.position)

    def resume(self, path: Path | str) -> dict[str, Any]:
        """Continue a saved stream; returns the caller's extra data.

        Raises:
            InputError: a missing or damaged file, the state of another model, head or timeline, or that of a `Stream`.
        """
        before = self.stream.position
        kept = self.stream.restore(path)
        position, self.stream.position = self.stream.position, before
        if "timeline" not in kept:
            raise InputError(f"{path}: a stream without a timeline; resume it with keystep.Stream.resume")
        record = checked(_LiveRecord, kept, f"{path}: its record is damaged: extra")
        if record.timeline != self.timeline.to_json():
            raise InputError(
                f"{path}: the state of a stream with the timeline {quoted(record.timeline)}, not "
                f"{self.timeline.to_json()}; give the rate that it was started with"
            )
        state = LiveState(
            position,
            self._restore_smoothing(record, path),
            record.frames,
            record.gaps,
            record.timed,
            tuple(record.times),
        )
        if position.frames > state.frames or (state.frames and len(state.times) < max(1, state.waiting)):
            raise InputError(f"{path}: its record is damaged: {state.frames} frames and {len(state.times)} times")
        self.state = state
        return record.extra

    def _restore_smoothing(self, record: _LiveRecord, path: Path | str) -> SmoothingState:
        average, announced, leader, leading = record.smoothed
        classes = self.head.classes
        if (average is None) != (announced is None) or max(announced or 0, leader) >= classes:
            raise InputError(f"{path}: its record is damaged: smoothed: class {announced} or {leader} of {classes}")
        if average is not None and len(average) != classes:
            raise InputError(f"{path}: its record is damaged: smoothed: {len(average)} numbers for {classes} classes")
        return SmoothingState(None if average is None else np.array(average, np.float32), announced, leader, leading)

    def _frame_times(self, count: int, times: Sequence[float] | None) -> list[float]:
        """Seconds of the next frames, checked for order and rate."""
        state = self.state
        if state.timed not in (None, times is not None):
            raise InputError(
                f"frame {state.frames}: some frames have a time and some do not; give times for all or none"
            )
        if times is None:
            return [float(self.timeline.seconds(state.frames + index)) for index in range(count)]
        moments = [float(time) for time in times]
        if len(moments) != count:
            raise InputError(f"{count} frames with {len(moments)} times; give one for each")
        for before, after in pairwise([*state.times[-1:], *moments]):
            if not after > before:
                raise InputError(f"time goes backwards: a frame at {after:g} s follows one at {before:g} s")
            if (after - before) * self.rate < TOO_CLOSE:
                raise InputError(
                    f"frames at {before:g} s and {after:g} s are too close for {self.rate:g} Hz; give the source's rate"
                )
        return moments

    def _find_gaps(self, moments: list[float]) -> list[int]:
        """Indices of the frames after a gap."""
        known = [*self.state.times[-1:], *moments]
        offset = len(known) - len(moments)
        found = [i for i in range(1, len(known)) if (known[i] - known[i - 1]) * self.rate > GAP]
        if found and self.on_gap == "stop":
            before, after = known[found[0] - 1], known[found[0]]
            raise InputError(
                f"a gap: the frame at {after:g} s follows one at {before:g} s, at {self.rate:g} Hz; bridge it "
                "(continue as if nothing were missing) or restart (forget all frames before it)"
            )
        return [index - offset for index in found]

    def _advance(self, state: LiveState, chunk: Tensor, moments: list[float]) -> tuple[list[Reading], LiveState]:
        result, position = self.stream.after(state.position, chunk)
        frames, times = state.frames + len(chunk), (*state.times, *moments)
        return self._collect(replace(state, position=position, frames=frames, times=times), result)

    def _close_stream(self, state: LiveState) -> tuple[list[Reading], LiveState]:
        result, position = self.stream.ended(state.position)
        return self._collect(replace(state, position=position), result)

    def _collect(self, state: LiveState, result: StreamResult) -> tuple[list[Reading], LiveState]:
        """Readings of the frames that became final, which precede the waiting ones."""
        first = state.frames - state.waiting - len(result)
        place = len(state.times) - state.waiting - len(result)
        readings, smoothed = self._readings(state, result, first, state.times[place:], final=True)
        return readings, replace(state, smoothed=smoothed, times=state.times[-max(1, state.waiting) :])

    def _readings(
        self, state: LiveState, result: StreamResult, first: int, times: Sequence[float], final: bool
    ) -> tuple[list[Reading], SmoothingState]:
        smoothed, readings = state.smoothed, []
        now = state.times[-1] if state.times else 0.0
        assert result.probabilities is not None
        forecast = None
        if self.forecaster is not None:
            forecast = self.forecaster.forecast(result.latents.float().cpu().numpy(), result.first)
        for index, row in enumerate(result.probabilities.numpy()):
            smoothed = smoothed.update(row, self.smoothing, self.rate, self._choose)
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
                    forecast=None if forecast is None else forecast.at(index),
                )
            )
        return readings, smoothed

    def _choose(self, probabilities: Probabilities) -> int:
        return int(self.head.choose(torch.from_numpy(probabilities)))
