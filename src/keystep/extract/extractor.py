"""Frames in, features out, slot by slot: the same numbers for a recording and for a live stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
import torch

from keystep.data.timeline import Timeline
from keystep.errors import InputError
from keystep.extract.backbone import Backbone
from keystep.extract.frames import Frame, array_frames
from keystep.extract.sampling import Sampled, Sampling, sample


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
    """What makes features of pictures: anything with these three can be written, stored and streamed by keystep.

    width: numbers in a vector, D. timeline: what the slots stand for, how much of the video each saw.
    """

    @property
    def width(self) -> int: ...
    @property
    def timeline(self) -> Timeline: ...
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
    def width(self) -> int:
        """Numbers in one vector, D."""
        return self.backbone.width

    @property
    def timeline(self) -> Timeline:
        """What the slots stand for, and how much of the video each saw."""
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
        rows = np.concatenate([made[index, list(clip.keep)] for index, clip in enumerate(clips)])
        slots = np.concatenate([clip.slots for clip in clips]).astype(np.int64)
        times = np.array([float(self.timeline.seconds(int(slot))) for slot in slots])
        if not np.isfinite(rows).all():
            bad = int(np.argmin(np.isfinite(rows).all(axis=1)))
            raise InputError(f"{self.backbone.name} gave NaN or infinity at {times[bad]:.3f} s; are the weights right?")
        return Features(rows, slots, times, np.concatenate([clip.seen for clip in clips]))


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
