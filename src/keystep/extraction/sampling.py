"""Which pictures each feature vector sees: frames sampled by presentation time, cut into clips, slot by slot."""

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
    """Clips over a video: ``rate`` slots a second, each from a clip around it (``center``) or up to it (``right``).

    The video is sampled on a regular grid of ``frame_rate`` pictures a second, each the frame that is shown at that
    moment, whatever the video's own rate does (to half a tick of the file's clock: Matroska counts milliseconds). A
    clip is F consecutive pictures of the grid. Where it reaches over an end of the video, its first or last frame is
    repeated.

    With ``right``, slot i ends with the last picture at or before its moment i / rate: no future frame is used. With
    ``center``, the clip lies around the moment, and ``timeline`` says how far it looks ahead. A clip of several slots
    (V-JEPA) gives, with ``center``, its ``hop`` middle slots; with ``right`` only its last one: each slot costs a clip.
    """

    rate: Fraction
    clip: ClipSpec
    window: Window = "center"
    hop: int | None = None
    """Slots kept of a clip of several; by default the middle half."""
    longest_hold: Fraction | None = None
    """Seconds for which a picture is taken to be shown; slots beyond it are left out. None: until the next one."""

    def __post_init__(self) -> None:
        if self.window not in get_args(Window):
            raise InputError(f"window {self.window!r} is none of {', '.join(get_args(Window))}")
        if self.hop is not None and not 1 <= self.hop <= self.clip.slots:
            raise InputError(f"hop {self.hop}: a clip has {self.clip.slots} slots")
        if self.window == "right" and self.hop not in (None, 1):
            raise InputError(f"hop {self.hop}: with window right, only a clip's last slot has seen no future")

    @property
    def per_slot(self) -> int:
        """Pictures in one slot of a clip that has several."""
        return self.clip.frames // self.clip.slots

    @property
    def frame_rate(self) -> Fraction:
        """Pictures a second on the grid."""
        return self.clip.frame_rate or self.rate * self.per_slot

    @property
    def kept(self) -> int:
        """Slots that one clip gives."""
        if self.clip.slots == 1 or self.window == "right":
            return 1
        return self.hop or max(1, self.clip.slots // 2)

    @property
    def first_kept(self) -> int:
        """Which of a clip's slots is the first that is kept."""
        return self.clip.slots - 1 if self.window == "right" else (self.clip.slots - self.kept) // 2

    @property
    def timeline(self) -> Timeline:
        """What the features' slots stand for and saw; with several kept slots a clip, the longest look-ahead of any."""
        if self.window == "right":
            return Timeline(rate=self.rate, window=(self.clip.frames - 1) / self.frame_rate, alignment="right")
        if self.clip.slots == 1:
            return Timeline(rate=self.rate, window=(self.clip.frames - 1) / self.frame_rate)
        middle = Fraction(self.per_slot - 1, 2)
        ahead = (self.clip.slots - 1 - self.first_kept) * self.per_slot + middle
        return Timeline(rate=self.rate, start=middle / self.frame_rate, window=2 * ahead / self.frame_rate)

    def last_picture(self, group: int) -> int:
        """Index on the grid of the last picture of the clip that gives slots ``group * kept`` and following."""
        if self.clip.slots == 1:
            return floor((group / self.rate + self.timeline.look_ahead) * self.frame_rate)
        if self.window == "right":
            return self.per_slot * group
        return self.per_slot * (group * self.kept - self.first_kept + self.clip.slots) - 1


@dataclass(frozen=True, eq=False)
class Sampled:
    """One clip, and the slots that are taken from it.

    pictures: (F, H, W, 3) uint8. slots: indices of the n slots on the video's timeline. keep: which of the clip's slots
    they are. seen: (n, 3) source frames: the first one in the clip, the one shown at the slot's moment, the last one in
    the clip.
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
    """Clips in order, each as soon as the frames that it needs have come. Memory: the pictures of one clip.

    Slots are those whose moments lie between the first and the last frame's times, both included.

    Args:
        first_slot: leave out slots before this one (as a stream that goes on does).
        longest_hold: as that of ``sampling``, where it is to be shorter: in live sources, a frame that is late must not
            fill minutes.
    """
    holds = [hold for hold in (sampling.longest_hold, longest_hold) if hold is not None]
    sampler = _Sampler(sampling, picture, first_slot, min(holds, default=None))
    for frame in frames:
        sampler.take(frame)
        yield from sampler.clips(frame.time + frame.slack)
    yield from sampler.rest()


class _Sampler:
    """The pictures that clips still need, and which clip comes next.

    When a frame comes, all moments before its own time are known to show the frame before it, and its own moment shows
    it: nothing has to wait for the frame after.
    """

    def __init__(self, sampling: Sampling, picture: Picture, first_slot: int, longest_hold: Fraction | None) -> None:
        self.sampling, self.picture = sampling, picture
        self.first_slot, self.longest_hold = first_slot, longest_hold
        self.timeline = sampling.timeline
        self.group = first_slot // sampling.kept
        self.latest: Frame | None = None
        self.held: list[_Held] = []
        self.shown: dict[int, int] = {}
        """Slot whose moment has come -> index of the source frame that was shown."""

    def take(self, frame: Frame) -> None:
        """The next frame has come. Moments within its slack count as its own."""
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
        """``frame`` is shown from ``since`` to ``until``, both included or neither."""
        low, high = _within(since, until, Fraction(0), self.sampling.frame_rate, inclusive)
        if low <= high and high >= self._first_picture() and self.held[-1].frame != frame.index:
            self._hold(frame, low)
        if not inclusive and self.longest_hold is not None:
            until = min(until, since + self.longest_hold)
        low, high = _within(since, until, self.timeline.start, self.timeline.rate, inclusive)
        low = max(low, self.first_slot, self.group * self.sampling.kept)  # what was said stands
        self.shown |= dict.fromkeys(range(low, high + 1), frame.index)

    def _hold(self, frame: Frame, point: int) -> None:
        self.held.append(_Held(point, frame.index, frame.rgb(self.picture)))

    def clips(self, now: Fraction) -> Iterator[Sampled]:
        """Those of which all is known at ``now``."""
        sampling, timeline = self.sampling, self.timeline
        while True:
            slot = next(iter(self.shown), floor((now - timeline.start) * timeline.rate))
            self.group = max(self.group, slot // sampling.kept)  # at once over slots that are left out
            last_moment = timeline.seconds((self.group + 1) * sampling.kept - 1)
            if max(last_moment, sampling.last_picture(self.group) / sampling.frame_rate) > now:
                return
            yield from self._clip()

    def rest(self) -> Iterator[Sampled]:
        """The video is over: clips of the slots that are left, with the last frame repeated."""
        if self.latest is None:
            return
        if self.held[-1].frame != self.latest.index:
            self._hold(self.latest, floor(self.latest.time * self.sampling.frame_rate) + 1)
        while self.shown:
            yield from self._clip()

    def _clip(self) -> Iterator[Sampled]:
        """The next group's clip, if any of its slots is there."""
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
        """The first picture on the grid that the next clip needs."""
        return self.sampling.last_picture(self.group) - self.sampling.clip.frames + 1


@dataclass(frozen=True, eq=False)
class _Held:
    """A source frame's pixels, shown from one point of the grid on, until the next one's."""

    point: int
    frame: int
    pixels: np.ndarray


def _point(held: _Held) -> int:
    return held.point


def _within(since: Fraction, until: Fraction, start: Fraction, rate: Fraction, inclusive: bool) -> tuple[int, int]:
    """First and last i with start + i / rate between two moments, these included or not; an empty range if none is."""
    low, high = (since - start) * rate, (until - start) * rate
    return (ceil(low), floor(high)) if inclusive else (floor(low) + 1, ceil(high) - 1)
