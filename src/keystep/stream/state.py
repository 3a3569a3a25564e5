"""All that a stream remembers between chunks."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import ReferenceType

from torch import Tensor

from keystep.config import ModelConfig
from keystep.heads import Head
from keystep.heads.config import HeadConfig
from keystep.nn.context import Memory
from keystep.pjepa import PJEPA

Network = PJEPA | Head
"""What runs on a stream: a model, from features to latents, or a head with a causal form, to class scores."""


@dataclass(frozen=True, eq=False)
class StreamState:
    """A value: `keystep.stream.step` returns a new one and leaves the old one usable.

    The B streams of a state take chunks of the same length and know nothing of each other. Each can be reset.

    owner, weights, config: the network that the state belongs to, the signature of its weights, and its settings.
    frames: of each stream, the index of the next frame to encode.
    memory: what the network remembers of past frames.
    waiting: (B, n, D_in) frames of the open blocks, each stream's first ones.
    held: of each stream, how many frames wait.
    given: of each stream, how many answers the last `step` made final. They differ only after a reset in the middle of
        a block; then the shorter rows of what it returned end in zeros.
    """

    owner: ReferenceType[Network]
    weights: str
    config: ModelConfig | HeadConfig
    frames: tuple[int, ...]
    memory: Memory
    waiting: Tensor
    held: tuple[int, ...]
    given: tuple[int, ...]

    @property
    def streams(self) -> int:
        """B"""
        return len(self.frames)

    @property
    def size_bytes(self) -> int:
        """Memory held by the state's tensors."""
        return self.memory.size_bytes + self.waiting.numel() * self.waiting.element_size()
