"""A model that attends by discovered segments, live: frames in, final latents out when their segment has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from keystep.errors import InputError
from keystep.pjepa import PJEPA
from keystep.stream import steps
from keystep.stream.state import StreamState

if TYPE_CHECKING:
    from keystep.boundaries import Segmenter, SegmenterState


@dataclass(frozen=True, eq=False)
class SegmentsState:
    """Where model and segmenter are on one stream; a value."""

    stream: StreamState
    segmenter: SegmenterState


class LiveSegments:
    """A model and the segmenter that tells it where its segments end, on one stream of features.

    What comes out are the latents of `PJEPA.encode` with the segments of `Segmenter.segment`, whatever the chunks. An
    error leaves ``state`` as it was before the call; it may be kept and put back.
    """

    def __init__(self, model: PJEPA, segmenter: Segmenter) -> None:
        if model.config.segments != "discovered":
            raise InputError(
                f"this model attends {model.config.describe(model.config.attention)}: it needs no segmenter"
            )
        self.model, self.segmenter = model, segmenter
        self.state = SegmentsState(steps.init(model), segmenter.begin())

    @property
    def delay(self) -> float | None:
        """Seconds until a frame's latent is final, at most; None where a segment may go on for ever.

        What the features themselves look ahead comes on top.
        """
        longest = self.segmenter.longest
        return None if longest is None else float((longest + self.segmenter.look_ahead) / self.segmenter.rate)

    @property
    def waiting(self) -> int:
        """Frames whose segment has not ended, as far as is known."""
        return self.state.stream.held[0]

    def feed(self, features: np.ndarray) -> Tensor:
        """Take the next frames (n, D_in); return the latents that became final, (m, D), in order."""
        _, stream = steps.step(self.model, torch.from_numpy(features)[None], self.state.stream)
        starts, segmenter = self.segmenter.step(features, self.state.segmenter)
        latents, stream = self._closed(starts, stream)
        self.state = SegmentsState(stream, segmenter)
        return latents

    def provisional(self) -> Tensor:
        """(m, D) latents of the frames that wait, as if they were one segment that ended now; they will be revised."""
        return steps.provisional(self.model, self.state.stream)[0]

    def close(self) -> Tensor:
        """The video is over: the latents of all frames that wait. The next frame begins another video."""
        starts = self.segmenter.finish(self.state.segmenter)
        latents, stream = self._closed(starts, self.state.stream)
        rest, stream = steps.finish(self.model, stream)
        self.state = SegmentsState(steps.reset(stream), self.segmenter.begin())
        return torch.cat([latents, rest[0]])

    def _closed(self, starts: list[int], stream: StreamState) -> tuple[Tensor, StreamState]:
        """End a segment before each of the frames ``starts``."""
        parts = [stream.waiting.new_zeros(0, self.model.config.dim)]
        for start in starts:
            latents, stream = steps.close_segments(self.model, [start - stream.frames[0]], stream)
            parts.append(latents[0])
        return torch.cat(parts), stream
