"""Boundaries from change points, offline and frame by frame, with a stated look-ahead.

However a video is cut into chunks, the source ``features`` gives the same boundaries, bit for bit. The numbers of a
model differ by float noise from one chunking to another (1e-6 or so), so with ``latents`` a boundary may differ where a
peak ties with another one nearby or with the threshold to within that. ``surprise`` works on whole spans: the same
calls whatever the chunks.

A score says how much the rows of a source differ between the ``window`` frames before a frame and the ``window`` frames
from it on. A boundary is a frame whose score is high enough and the highest for ``shortest`` frames around.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from keystep.boundaries.config import SegmenterConfig, slots
from keystep.boundaries.sources import Source
from keystep.errors import InputError


@dataclass(frozen=True, eq=False)
class SegmenterState:
    """Where a segmenter is on one stream; a value.

    source: the source's own state. frames: how many were fed. open: the first frame of the segment that has not ended.
    rows: (r, D) float64 scaled rows that windows to come need; counted: how many rows there were in all.
    scores: (s,) float64 of which the first ``decided`` are kept as rivals of those to come; first: the frame that
        scores[0] belongs to.
    """

    source: Any
    frames: int
    open: int
    rows: np.ndarray
    counted: int
    scores: np.ndarray
    decided: int
    first: int


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A fitted segmenter.

    scale: what rows are divided by: (D,) deviation of each channel, or for ``surprise`` (span,) what is usual at each
        place in a span. threshold: the lowest score of a boundary.
    """

    config: SegmenterConfig
    rate: Fraction
    source: Source
    scale: np.ndarray
    threshold: float

    @cached_property
    def window(self) -> int:
        """Frames on each side."""
        return slots(self.config.window, self.rate)

    @cached_property
    def shortest(self) -> int:
        """Frames of a segment, at least (the last one of a video may be shorter)."""
        return slots(self.config.shortest, self.rate)

    @cached_property
    def longest(self) -> int | None:
        """Frames of a segment, at most."""
        return None if self.config.longest is None else slots(self.config.longest, self.rate)

    @property
    def look_ahead(self) -> int:
        """Frames after a segment's first one that are seen before it is known that it begins there, at most."""
        return self.window - 1 + self.shortest - 1 + self.source.delay

    def segment(self, features: np.ndarray) -> list[int]:
        """Lengths of the segments of a whole video, (T, D_in)."""
        starts, state = self.step(features, self.begin())
        starts += self.finish(state)
        return [int(length) for length in np.diff([0, *starts, len(features)])]

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """(T - 2 window + 1,) scores of a whole video's rows, the first of which is that of frame ``window``."""
        return self._scores(self._scaled(rows, 0))

    def begin(self) -> SegmenterState:
        """The state before the first frame."""
        rows = self._scaled(self.source.finish(self.source.begin()), 0)  # none, of the right width
        return SegmenterState(self.source.begin(), 0, 0, rows, 0, np.zeros(0), 0, self.window)

    def step(self, frames: np.ndarray, state: SegmenterState) -> tuple[list[int], SegmenterState]:
        """Take the next frames (n, D_in); return the first frames of the segments that are now known to begin there."""
        if frames.ndim != 2:
            raise InputError(f"frames have shape {frames.shape}; expected (n, D_in)")
        rows, source = self.source.step(frames, state.source)
        return self._advanced(state, rows, source, len(frames), ended=False)

    def finish(self, state: SegmenterState) -> list[int]:
        """The video is over: the segments that begin in what was not decided."""
        rows = self.source.finish(state.source)
        starts, after = self._advanced(state, rows, state.source, 0, ended=True)
        if self.longest is not None:  # the last frames have no score
            starts += range(after.open + self.longest, state.frames, self.longest)
        return starts

    def _advanced(
        self, state: SegmenterState, rows: np.ndarray, source: Any, frames: int, ended: bool
    ) -> tuple[list[int], SegmenterState]:
        new = np.concatenate([state.rows, self._scaled(rows, state.counted)])
        scores = np.concatenate([state.scores, self._scores(new)])
        reach = self.shortest - 1
        decided = len(scores) if ended else max(state.decided, len(scores) - reach)
        peaks = local_peaks(scores, reach) & (scores >= self.threshold)
        begins, starts = state.open, []
        for index in range(state.decided, decided):
            length = state.first + index - begins
            if (peaks[index] and length >= self.shortest) or (self.longest is not None and length >= self.longest):
                begins += length
                starts.append(begins)
        dropped = max(0, decided - reach)
        return starts, SegmenterState(
            source=source,
            frames=state.frames + frames,
            open=begins,
            rows=new[max(0, len(new) - 2 * self.window + 1) :].copy(),
            counted=state.counted + len(rows),
            scores=scores[dropped:].copy(),
            decided=decided - dropped,
            first=state.first + dropped,
        )

    def _scaled(self, rows: np.ndarray, first: int) -> np.ndarray:
        """Rows (n, D) of frames from ``first`` on, divided by what is usual."""
        if self.config.source != "surprise":
            scaled: np.ndarray = rows / self.scale
        else:
            scaled = rows / self.scale[(first + np.arange(len(rows))) % len(self.scale), None]
        return scaled

    def _scores(self, rows: np.ndarray) -> np.ndarray:
        """(max(0, n - 2 window + 1),) of each frame that has a window of (n, D) rows on either side.

        The sums run over the window in the same order for every frame, so chunks change no bit here. Of surprise, only
        a rise counts.
        """
        count = len(rows) - self.window + 1
        if count <= self.window:
            return np.zeros(0)
        sums = np.zeros((count, rows.shape[1]))
        for shift in range(self.window):
            sums += rows[shift : shift + count]
        change: np.ndarray = (sums[self.window :] - sums[: -self.window]) / self.window
        if self.config.source == "surprise":
            rise: np.ndarray = change[:, 0]
            return rise
        size: np.ndarray = np.sqrt(np.square(change).mean(1))
        return size


def local_peaks(scores: np.ndarray, reach: int) -> np.ndarray:
    """(n,) bool: higher than all scores up to ``reach`` before it, and no lower than those up to ``reach`` behind."""
    if not len(scores):
        return np.zeros(0, dtype=bool)
    around = sliding_window_view(np.pad(scores, reach, constant_values=-np.inf), 2 * reach + 1)
    peaks: np.ndarray = around.argmax(1) == reach
    return peaks
