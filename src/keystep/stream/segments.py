"""A model that attends by discovered segments, live: frames in, final latents out when their segment has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from keystep.errors import InputError
from keystep.pjepa import PJEPA
from keystep.stream import steps
from keystep.stream.state import StreamState

if TYPE_CHECKING:
    from keystep.boundaries import Segmenter, SegmenterState


class SegmentsState(NamedTuple):
    """Where model and segmenter are on one stream; a value."""

    stream: StreamState
    segmenter: SegmenterState


def begin(model: PJEPA, segmenter: Segmenter) -> SegmentsState:
    """The state before the first frame.

    Raises:
        InputError: the model does not attend by discovered segments.
    """
    if model.config.segments != "discovered":
        raise InputError(f"this model attends {model.config.describe(model.config.attention)}: it needs no segmenter")
    return SegmentsState(steps.init(model), segmenter.begin())


def advance(
    model: PJEPA, segmenter: Segmenter, features: np.ndarray | Tensor, state: SegmentsState
) -> tuple[Tensor, SegmentsState]:
    """Take the next frames (n, D_in); the latents that became final, (m, D), and the new state."""
    frames = torch.as_tensor(features)
    _, stream = steps.step(model, frames[None], state.stream)  # checks them, and holds them
    starts, found = segmenter.step(frames.float().cpu().numpy(), state.segmenter)
    latents, stream = _closed(model, starts, stream)
    return latents, SegmentsState(stream, found)


def end(model: PJEPA, segmenter: Segmenter, state: SegmentsState) -> tuple[Tensor, SegmentsState]:
    """The video is over: the latents of all frames that wait, and the state before the first frame of another video."""
    latents, stream = _closed(model, segmenter.finish(state.segmenter), state.stream)
    rest, stream = steps.finish(model, stream)
    return torch.cat([latents, rest[0]]), SegmentsState(steps.reset(stream), segmenter.begin())


def _closed(model: PJEPA, starts: list[int], stream: StreamState) -> tuple[Tensor, StreamState]:
    """End a segment before each of the frames ``starts``."""
    parts = [stream.waiting.new_zeros(0, model.config.dim)]
    for start in starts:
        latents, stream = steps.close_segments(model, [start - stream.frames[0]], stream)
        parts.append(latents[0])
    return torch.cat(parts), stream


class LiveSegments:
    """A model and the segmenter that tells it where its segments end, on one stream of features.

    What comes out are the latents of `PJEPA.encode` with the segments of `Segmenter.segment`, whatever the chunks (if
    the segmenter reads a model's latents, but for near-ties, see `keystep.boundaries.segmenter`). An error leaves
    ``state`` as it was before the call; it may be kept and put back.
    """

    def __init__(self, model: PJEPA, segmenter: Segmenter) -> None:
        self.model, self.segmenter = model, segmenter
        self.state = begin(model, segmenter)

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

    def feed(self, features: np.ndarray | Tensor) -> Tensor:
        """Take the next frames (n, D_in); return the latents that became final, (m, D), in order."""
        latents, self.state = advance(self.model, self.segmenter, features, self.state)
        return latents

    def provisional(self) -> Tensor:
        """(m, D) latents of the frames that wait, as if they were one segment that ended now; they will be revised."""
        return steps.provisional(self.model, self.state.stream)[0]

    def close(self) -> Tensor:
        """The video is over: the latents of all frames that wait. The next frame begins another video."""
        latents, self.state = end(self.model, self.segmenter, self.state)
        return latents
