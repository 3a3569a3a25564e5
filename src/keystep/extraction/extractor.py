"""Extractors, which turn video frames into features, with identical results for recordings and live streams."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
import torch

from keystep.data.timeline import Timeline
from keystep.errors import InputError
from keystep.extraction.backbone import Backbone, ClipSpec, Picture
from keystep.extraction.sampling import Sampled, Sampling, sample
from keystep.extraction.video.arrays import array_frames
from keystep.extraction.video.frames import Frame


@dataclass(frozen=True, eq=False)
class Features:
    """Feature vectors of n slots.

    Attributes:
        features: (n, D) float32.
        slots: (n,) int64 indices on the timeline.
        times: (n,) float64 seconds of the slots.
        seen: (n, 3) indices of source frames: the first one used, the one shown at the time of the slot, and the last
            one used.
    """

    features: np.ndarray
    slots: np.ndarray
    times: np.ndarray
    seen: np.ndarray

    def __len__(self) -> int:
        return len(self.features)


class Extractor(Protocol):
    """Protocol of what computes features from frames, as needed for feature folders and streams.

    Attributes:
        name: of the network.
        weights: SHA-256 in hex that identifies its weights.
        width: D, size of a feature vector.
        pictures: number of pictures per feature vector.
        timeline: times and spans of the slots.
    """

    @property
    def name(self) -> str: ...
    @property
    def weights(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def pictures(self) -> int: ...
    @property
    def timeline(self) -> Timeline: ...
    def __call__(self, images: Iterable[np.ndarray], times: Iterable[Fraction | float]) -> Features:
        """Compute all features of images.

        Args:
            images: (H, W, 3) uint8 RGB each.
            times: seconds from which each image is shown.

        Raises:
            InputError: other images, times that do not increase, or no slot between the first and last time.
        """
        ...

    def stream(
        self, frames: Iterable[Frame], *, first_slot: int = 0, longest_hold: Fraction | None = None, batch: int = 1
    ) -> Iterator[Features]:
        """Compute features as soon as their frames have arrived.

        Args:
            frames: in order of presentation.
            first_slot: omit earlier slots, for streams that are resumed.
            longest_hold: longest time that a picture is shown, in seconds, if shorter than in the settings.
            batch: clips per call of the network.

        Raises:
            InputError: the network returned NaN or infinity.
        """
        ...


@dataclass(frozen=True, eq=False)
class ClipExtractor:
    """Extractor that applies a pretrained backbone to a sliding window of clips.

    Args:
        backbone: the network.
        sampling: its clips.

    Raises:
        InputError: the sampling is for other clips.
    """

    backbone: Backbone
    sampling: Sampling

    def __post_init__(self) -> None:
        if self.backbone.clip != self.sampling.clip:
            raise InputError(f"{self.backbone.name} takes {self.backbone.clip}, not {self.sampling.clip}")

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
    def pictures(self) -> int:
        return self.backbone.clip.frames

    @property
    def timeline(self) -> Timeline:
        return self.sampling.timeline

    def __call__(self, images: Iterable[np.ndarray], times: Iterable[Fraction | float]) -> Features:
        """As `Extractor.__call__`."""
        return joined(list(self.stream(array_frames(images, times), batch=8)))

    def stream(
        self, frames: Iterable[Frame], *, first_slot: int = 0, longest_hold: Fraction | None = None, batch: int = 1
    ) -> Iterator[Features]:
        """As `Extractor.stream`, for the clips of `sampling.sample`."""
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
        computed = self.backbone(pictures).float().cpu().numpy()  # (n, S, D)
        expected = (len(clips), self.sampling.clip.slots, self.width)
        if computed.shape != expected:
            raise InputError(
                f"{self.name} returned features of shape {computed.shape}; expected {expected}: clips, slots, width"
            )
        rows = np.concatenate([computed[index, list(clip.keep)] for index, clip in enumerate(clips)])
        slots = [slot for clip in clips for slot in clip.slots]
        return _assemble(self, rows, slots, np.concatenate([clip.seen for clip in clips]))


class OnlineNetwork(Protocol):
    """Protocol of recurrent networks, which process one picture at a time with an explicit state.

    Attributes:
        name: as in `Backbone`.
        weights: as in `Backbone`.
        width: as in `Backbone`.
        picture: as in `Backbone`.
    """

    name: str
    weights: str
    width: int
    picture: Picture

    def begin(self) -> Any:
        """Return the state before the first picture."""
        ...

    def step(self, frame: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        """Process the next picture of n streams, (n, H, W, 3) uint8; returns features (n, D) and the new state."""
        ...


@dataclass(frozen=True, eq=False)
class OnlineExtractor:
    """Extractor for a recurrent network, such as the online TSM: one picture per slot, with all of the past as context.

    Attributes:
        network: the network.
        rate: feature vectors per second.
        longest_hold: as in `Sampling`.
    """

    network: OnlineNetwork
    rate: Fraction
    longest_hold: Fraction | None = None

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
    def pictures(self) -> int:
        return 1

    @property
    def timeline(self) -> Timeline:
        return Timeline(rate=self.rate, window=Fraction(0), alignment="right")

    def __call__(self, images: Iterable[np.ndarray], times: Iterable[Fraction | float]) -> Features:
        """As `Extractor.__call__`."""
        return joined(list(self.stream(array_frames(images, times))))

    def stream(
        self, frames: Iterable[Frame], *, first_slot: int = 0, longest_hold: Fraction | None = None, batch: int = 1
    ) -> Iterator[Features]:
        """As `Extractor.stream`. ``first_slot`` saves no work, as the state needs all frames; ``batch`` is ignored."""
        sampling = Sampling(rate=self.rate, clip=ClipSpec(), window="right", longest_hold=self.longest_hold)
        state = self.network.begin()
        first: int | None = None
        for clip in sample(frames, sampling, self.network.picture, longest_hold=longest_hold):
            features, state = self.network.step(torch.from_numpy(clip.pictures), state)
            first = int(clip.seen[0, 0]) if first is None else first
            clip.seen[:, 0] = first
            if clip.slots[0] >= first_slot:
                yield _assemble(self, features.float().cpu().numpy(), clip.slots, clip.seen)


def _assemble(extractor: Extractor, rows: np.ndarray, slots: Sequence[int], seen: np.ndarray) -> Features:
    times = np.array([float(extractor.timeline.seconds(slot)) for slot in slots])
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        bad = times[int(np.argmin(finite))]
        raise InputError(f"{extractor.name} returned NaN or infinity at {bad:.3f} s; check its weights")
    return Features(rows, np.array(slots, np.int64), times, seen)


def joined(parts: Sequence[Features]) -> Features:
    """Concatenate consecutive features of one video.

    Raises:
        InputError: there are none.
    """
    if not parts:
        raise InputError("the video has no slot, as it is shorter than one; use a higher rate")
    return Features(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.slots for part in parts]),
        np.concatenate([part.times for part in parts]),
        np.concatenate([part.seen for part in parts]),
    )
