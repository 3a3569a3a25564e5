"""Sampling of clips: frames by presentation time, on a regular grid, for each slot of the timeline."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import Literal, get_args

import numpy as np

from keystep.data.timeline import Timeline
from keystep.errors import InputError
from keystep.extraction.backbone import ClipSpec, Picture
from keystep.extraction.video.frames import Frame

Window = Literal["center", "right"]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Layout of clips over a video, with ``rate`` slots per second.

    The video is sampled on a regular grid of ``frame_rate`` pictures per second, independent of its own frame rate.
    Each picture is the frame shown at that time (up to half a tick of the file's clock; Matroska counts milliseconds).
    A clip is F consecutive pictures of the grid. Beyond an end of the video, the first or last frame is repeated.

    With window ``right``, the clip of slot i ends with the last picture at or before its time i / rate, so that no
    future frame is used. With ``center``, the clip lies around that time, and ``timeline`` has its look-ahead. Of a
    clip of several slots (V-JEPA), the ``hop`` middle slots are kept with ``center``, and only the last one with
    ``right``, at the cost of one clip per slot.

    Attributes:
        rate: slots per second.
        clip: input of the backbone.
        window: position of the clip.
        hop: slots kept per clip of several; None: the middle half.
        longest_hold: longest time that a picture is shown, in seconds; later slots are omitted. None: no limit.

    Raises:
        InputError: an unknown window, or a hop that the clip or window does not allow.
    """

    rate: Fraction
    clip: ClipSpec
    window: Window = "center"
    hop: int | None = None
    longest_hold: Fraction | None = None

    def __post_init__(self) -> None:
        if self.window not in get_args(Window):
            raise InputError(f"unknown window {self.window!r}; expected one of {', '.join(get_args(Window))}")
        if self.hop is not None and not 1 <= self.hop <= self.clip.slots:
            raise InputError(f"hop {self.hop}: a clip has {self.clip.slots} slots; choose 1 to {self.clip.slots}")
        if self.window == "right" and self.hop not in (None, 1):
            raise InputError(
                f"hop {self.hop}: with window right, only the last slot of a clip has no look-ahead; omit hop"
            )

    @property
    def per_slot(self) -> int:
        """Pictures per slot, for clips of several slots."""
        return self.clip.frames // self.clip.slots

    @property
    def frame_rate(self) -> Fraction:
        """Pictures per second on the grid."""
        return self.clip.frame_rate or self.rate * self.per_slot

    @property
    def kept(self) -> int:
        """Number of slots kept per clip."""
        if self.clip.slots == 1 or self.window == "right":
            return 1
        return self.hop or max(1, self.clip.slots // 2)

    @property
    def first_kept(self) -> int:
        """Index of the first kept slot in a clip."""
        return self.clip.slots - 1 if self.window == "right" else (self.clip.slots - self.kept) // 2

    @property
    def timeline(self) -> Timeline:
        """Times and spans of the slots; with several kept slots per clip, those of the largest look-ahead."""
        if self.window == "right":
            return Timeline(rate=self.rate, window=(self.clip.frames - 1) / self.frame_rate, alignment="right")
        if self.clip.slots == 1:
            return Timeline(rate=self.rate, window=(self.clip.frames - 1) / self.frame_rate)
        middle = Fraction(self.per_slot - 1, 2)
        ahead = (self.clip.slots - 1 - self.first_kept) * self.per_slot + middle
        return Timeline(rate=self.rate, start=middle / self.frame_rate, window=2 * ahead / self.frame_rate)

    def last_picture(self, group: int) -> int:
        """Grid index of the last picture of a clip, whose first kept slot is ``group * kept``."""
        if self.clip.slots == 1:
            return floor((group / self.rate + self.timeline.look_ahead) * self.frame_rate)
        if self.window == "right":
            return self.per_slot * group
        return self.per_slot * (group * self.kept - self.first_kept + self.clip.slots) - 1


@dataclass(frozen=True, eq=False)
class Sampled:
    """A clip, and the slots kept from it.

    Attributes:
        pictures: (F, H, W, 3) uint8.
        slots: indices of the n slots on the timeline of the video.
        keep: indices of these slots in the clip.
        seen: (n, 3) indices of source frames: the first one in the clip, the one shown at the time of the slot, and the
            last one in the clip.
    """

    pictures: np.ndarray
    slots: tuple[int, ...]
    keep: tuple[int, ...]
    seen: np.ndarray


def sample(
    frames: Iterable[Frame],
    sampling: Sampling,
    picture: Picture,
    *,
    first_slot: int = 0,
    longest_hold: Fraction | None = None,
) -> Iterator[Sampled]:
    """Yield clips in order, each as soon as its frames have arrived. Memory: the pictures of one clip.

    There is a slot for each time between the first and the last frame, inclusive.

    Args:
        frames: in order of presentation.
        sampling: layout of the clips.
        picture: preprocessing of frames.
        first_slot: omit earlier slots, for streams that are resumed.
        longest_hold: a limit shorter than that of ``sampling``, for live sources, where a late frame must not fill
            minutes.
    """
    holds = [hold for hold in (sampling.longest_hold, longest_hold) if hold is not None]
    sampler = _Sampler(sampling, picture, first_slot, min(holds, default=None))
    for frame in frames:
        sampler.take(frame)
        yield from sampler.clips(frame.time + frame.slack)
    yield from sampler.rest()


class _Sampler:
    """Buffer of the pictures needed for the next clips.

    When a frame arrives, all times before its own are known to show its predecessor, and its own time shows it, so no
    clip waits for the frame after.
    """

    def __init__(self, sampling: Sampling, picture: Picture, first_slot: int, longest_hold: Fraction | None) -> None:
        self.sampling, self.picture = sampling, picture
        self.first_slot, self.longest_hold = first_slot, longest_hold
        self.timeline = sampling.timeline
        self.group = first_slot // sampling.kept
        self.latest: Frame | None = None
        self.held: list[_Held] = []
        self.shown: dict[int, int] = {}
        """Slot whose time has come -> index of the source frame shown."""

    def take(self, frame: Frame) -> None:
        """Add the next frame. Times within its slack count as its own."""
        begins, latest = frame.time - frame.slack, self.latest
        if latest is None:
            first = ceil((begins - self.timeline.start) * self.timeline.rate)
            self.first_slot = max(self.first_slot, first)
            self.group = self.first_slot // self.sampling.kept
            self._hold(frame, floor(begins * self.sampling.frame_rate))
        else:
            self._show(latest, latest.time + latest.slack, begins, inclusive=False)
        self._show(frame, begins, frame.time + frame.slack, inclusive=True)
        self.latest = frame

    def _show(self, frame: Frame, since: Fraction, until: Fraction, inclusive: bool) -> None:
        """Assign ``frame`` to the pictures and slots from ``since`` to ``until``, both inclusive or both exclusive."""
        low, high = _within(since, until, Fraction(0), self.sampling.frame_rate, inclusive)
        if low <= high and high >= self._first_picture() and self.held[-1].frame != frame.index:
            self._hold(frame, low)
        if not inclusive and self.longest_hold is not None:
            until = min(until, since + self.longest_hold)
        low, high = _within(since, until, self.timeline.start, self.timeline.rate, inclusive)
        low = max(low, self.first_slot, self.group * self.sampling.kept)  # finished slots do not change
        self.shown |= dict.fromkeys(range(low, high + 1), frame.index)

    def _hold(self, frame: Frame, point: int) -> None:
        self.held.append(_Held(point, frame.index, frame.rgb(self.picture)))

    def clips(self, now: Fraction) -> Iterator[Sampled]:
        """Yield the clips that are complete at time ``now``."""
        sampling, timeline = self.sampling, self.timeline
        while True:
            slot = next(iter(self.shown), floor((now - timeline.start) * timeline.rate))
            self.group = max(self.group, slot // sampling.kept)  # skip omitted slots at once
            last_moment = timeline.seconds((self.group + 1) * sampling.kept - 1)
            if max(last_moment, sampling.last_picture(self.group) / sampling.frame_rate) > now:
                return
            yield from self._clip()

    def rest(self) -> Iterator[Sampled]:
        """Yield the remaining clips at the end of the video, with the last frame repeated."""
        if self.latest is None:
            return
        if self.held[-1].frame != self.latest.index:
            self._hold(self.latest, floor(self.latest.time * self.sampling.frame_rate) + 1)
        while self.shown:
            yield from self._clip()

    def _clip(self) -> Iterator[Sampled]:
        """Yield the clip of the next group, if it has a slot."""
        sampling = self.sampling
        first = self.group * sampling.kept
        slots = tuple(slot for slot in range(first, first + sampling.kept) if slot in self.shown)
        if slots:
            places = range(self._first_picture(), self._first_picture() + sampling.clip.frames)
            pictures = [self.held[max(0, bisect_right(self.held, place, key=_point) - 1)] for place in places]
            keep = tuple(slot - first + sampling.first_kept for slot in slots)
            seen = [(pictures[0].frame, self.shown.pop(slot), pictures[-1].frame) for slot in slots]
            yield Sampled(np.stack([held.pixels for held in pictures]), slots, keep, np.array(seen))
        self.group += 1
        needed = bisect_right(self.held, self._first_picture(), key=_point) - 1
        del self.held[: max(0, needed)]

    def _first_picture(self) -> int:
        """Grid index of the first picture of the next clip."""
        return self.sampling.last_picture(self.group) - self.sampling.clip.frames + 1


@dataclass(frozen=True, eq=False)
class _Held:
    """Pixels of a source frame that is shown from a grid index on, until that of the next one."""

    point: int
    frame: int
    pixels: np.ndarray


def _point(held: _Held) -> int:
    return held.point


def _within(since: Fraction, until: Fraction, start: Fraction, rate: Fraction, inclusive: bool) -> tuple[int, int]:
    """First and last i with start + i / rate between two times, inclusive or exclusive; may be an empty range."""
    low, high = (since - start) * rate, (until - start) * rate
    return (ceil(low), floor(high)) if inclusive else (floor(low) + 1, ceil(high) - 1)
