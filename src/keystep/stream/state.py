"""All that a stream remembers between chunks."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import ReferenceType

from torch import Tensor

from keystep.config import ModelConfig
from keystep.pjepa import PJEPA
from keystep.stream.cache import Cache


@dataclass(frozen=True, eq=False)
class StreamState:
    """A value: `keystep.stream.step` returns a new one and leaves the old one usable.

    The B streams of a state take chunks of the same length and know nothing of each other. Each can be reset.

    owner, weights, config: the model that the state belongs to, the signature of its weights, and its settings.
    frames: of each stream, the index of the next frame to encode.
    cache: keys and values of past frames.
    waiting: (B, n, D_in) frames of the open blocks, each stream's first ones.
    held: of each stream, how many frames wait.
    total: (B, D) float64 sum of the projected frames so far, for the running mean.
    given: of each stream, how many latents the last `step` made final. They differ only after a reset in the middle of
        a block; then the shorter rows of its latents end in zeros.
    """

    owner: ReferenceType[PJEPA]
    weights: str
    config: ModelConfig
    frames: tuple[int, ...]
    cache: Cache
    waiting: Tensor
    held: tuple[int, ...]
    total: Tensor
    given: tuple[int, ...]

    @property
    def streams(self) -> int:
        """B"""
        return len(self.frames)

    @property
    def size_bytes(self) -> int:
        """Memory held by the state's tensors."""
        own = (self.waiting, self.total)
        return self.cache.size_bytes + sum(tensor.numel() * tensor.element_size() for tensor in own)
