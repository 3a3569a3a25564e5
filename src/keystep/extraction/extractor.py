"""Frames in, features out, slot by slot: the same numbers for a recording and for a live stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
import torch

from keystep.data.timeline import Timeline
from keystep.errors import InputError
from keystep.extraction.backbone import Backbone, Clip, Picture
from keystep.extraction.sampling import Sampled, Sampling, sample
from keystep.extraction.video.arrays import array_frames
from keystep.extraction.video.frames import Frame


@dataclass(frozen=True, eq=False)
class Features:
    """Feature vectors of consecutive slots.

    features: (n, D) float32. slots: (n,) indices on the timeline. times: (n,) float64 seconds that they stand for.
    seen: (n, 3) source frames: the first one that went in, the one shown at that moment, the last one that went in.
    """

    features: np.ndarray
    slots: np.ndarray
    times: np.ndarray
    seen: np.ndarray

    def __len__(self) -> int:
        return len(self.features)


class Extractor(Protocol):
    """What makes features of pictures; anything like this can be stored and streamed by keystep.

    name, weights: which network, and a SHA-256 of its weights. width: numbers in a vector, D. sees: pictures that one
    vector is made of. timeline: what the slots stand for, how much of the video each saw.
    """

    @property
    def name(self) -> str: ...
    @property
    def weights(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def sees(self) -> int: ...
    @property
    def timeline(self) -> Timeline: ...
    def __call__(self, images: Iterable[np.ndarray], times: Iterable[Fraction | float]) -> Features:
        """All features of (H, W, 3) uint8 RGB images that are shown from the given seconds on."""
        ...

    def stream(
        self, frames: Iterable[Frame], *, first_slot: int = 0, longest_hold: Fraction | None = None, batch: int = 1
    ) -> Iterator[Features]:
        """Features as soon as they can be known, ``batch`` clips at a time."""
        ...


@dataclass(frozen=True, eq=False)
class ClipExtractor:
    """A pretrained backbone that slides over a video."""

    backbone: Backbone
    sampling: Sampling

    def __post_init__(self) -> None:
        if self.backbone.clip != self.sampling.clip:
            raise InputError(f"{self.backbone.name} reads {self.backbone.clip}, not {self.sampling.clip}")

    @property
    def name(self) -> str:
        return self.backbone.name

    @property
    def weights(self) -> str:
        return self.backbone.weights

    @property
    def width(self) -> int:
        return self.backbone.width

    @property
    def sees(self) -> int:
        return self.backbone.clip.frames

    @property
    def timeline(self) -> Timeline:
        return self.sampling.timeline

    def __call__(self, images: Iterable[np.ndarray], times: Iterable[Fraction | float]) -> Features:
        """All features of (H, W, 3) uint8 RGB images that are shown from the given seconds on.

        Raises:
            InputError: images of another kind, times that do not rise, no slot between the first and the last time.
        """
        return joined(list(self.stream(array_frames(images, times), batch=8)))

    def stream(
        self, frames: Iterable[Frame], *, first_slot: int = 0, longest_hold: Fraction | None = None, batch: int = 1
    ) -> Iterator[Features]:
        """Features of the clips that `sampling.sample` cuts, ``batch`` clips at a time.

        Raises:
            InputError: the backbone gave numbers that are not finite.
        """
        clips: list[Sampled] = []
        picture = self.backbone.picture
        for clip in sample(frames, self.sampling, picture, first_slot=first_slot, longest_hold=longest_hold):
            clips.append(clip)
            if len(clips) == batch:
                yield self._features(clips)
                clips = []
        if clips:
            yield self._features(clips)

    def _features(self, clips: Sequence[Sampled]) -> Features:
        pictures = torch.from_numpy(np.stack([clip.pictures for clip in clips]))  # (n, F, H, W, 3)
        made = self.backbone(pictures).float().cpu().numpy()  # (n, S, D)
        expected = (len(clips), self.sampling.clip.slots, self.width)
        if made.shape != expected:
            raise InputError(f"{self.name} gave features of shape {made.shape}, not {expected}: clips, slots, width")
        rows = np.concatenate([made[index, list(clip.keep)] for index, clip in enumerate(clips)])
        slots = [slot for clip in clips for slot in clip.slots]
        return _made(self, rows, slots, np.concatenate([clip.seen for clip in clips]))


class OnlineNetwork(Protocol):
    """A network that remembers: one picture after the other, its state going in and out.

    name, weights, width, picture: as a `Backbone` has them.
    """

    name: str
    weights: str
    width: int
    picture: Picture

    def begin(self) -> Any:
        """The state before the first picture."""
        ...

    def step(self, frame: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        """(n, H, W, 3) uint8, the next picture of n streams, to features (n, D) and the state behind it."""
        ...


@dataclass(frozen=True, eq=False)
class OnlineExtractor:
    """A network with a memory, such as the online TSM, over one picture a slot: it has seen all of the past."""

    network: OnlineNetwork
    rate: Fraction
    longest_hold: Fraction | None = None
    """As `Sampling` has it."""

    @property
    def name(self) -> str:
        return self.network.name

    @property
    def weights(self) -> str:
        return self.network.weights

    @property
    def width(self) -> int:
        return self.network.width

    @property
    def sees(self) -> int:
        return 1

    @property
    def timeline(self) -> Timeline:
        return Timeline(rate=self.rate, window=Fraction(0), alignment="right")

    def __call__(self, images: Iterable[np.ndarray], times: Iterable[Fraction | float]) -> Features:
        """As `ClipExtractor` does."""
        return joined(list(self.stream(array_frames(images, times))))

    def stream(
        self, frames: Iterable[Frame], *, first_slot: int = 0, longest_hold: Fraction | None = None, batch: int = 1
    ) -> Iterator[Features]:
        """Slot by slot. ``first_slot`` saves no work, because the memory has to be filled; ``batch`` means nothing."""
        sampling = Sampling(rate=self.rate, clip=Clip(), window="right", longest_hold=self.longest_hold)
        state = self.network.begin()
        first: int | None = None
        for clip in sample(frames, sampling, self.network.picture, longest_hold=longest_hold):
            made, state = self.network.step(torch.from_numpy(clip.pictures), state)
            first = int(clip.seen[0, 0]) if first is None else first
            clip.seen[:, 0] = first
            if clip.slots[0] >= first_slot:
                yield _made(self, made.float().cpu().numpy(), clip.slots, clip.seen)


def _made(extractor: Extractor, rows: np.ndarray, slots: Sequence[int], seen: np.ndarray) -> Features:
    times = np.array([float(extractor.timeline.seconds(slot)) for slot in slots])
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        bad = times[int(np.argmin(finite))]
        raise InputError(f"{extractor.name} gave NaN or infinity at {bad:.3f} s; are the weights right?")
    return Features(rows, np.array(slots, np.int64), times, seen)


def joined(parts: Sequence[Features]) -> Features:
    """Features of one video from those of its stretches.

    Raises:
        InputError: there are none.
    """
    if not parts:
        raise InputError("no frame falls on a slot: the video is shorter than one; ask for a higher rate")
    return Features(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.slots for part in parts]),
        np.concatenate([part.times for part in parts]),
        np.concatenate([part.seen for part in parts]),
    )
