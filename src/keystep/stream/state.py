"""The state of a stream between two chunks."""

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
"""What runs on a stream: a model, which maps features to latents, or a causal head, which maps them to scores."""


@dataclass(frozen=True, eq=False)
class StreamState:
    """The state of B independent streams, a value: `keystep.stream.step` returns a new one, and the old stays usable.

    Each stream can be advanced by its own number of frames, and be reset separately.

    Attributes:
        owner, weights, config: the network of the state, the signature of its weights, and its settings.
        frames: per stream, the index of the next frame to encode.
        memory: cached keys, values and states of past frames.
        waiting: (B, n, D_in) frames of the open blocks; those of stream b are the first ``held[b]``.
        held: per stream, the number of waiting frames.
        given: per stream, the number of outputs that the last `step` made final. Shorter rows of the output end in
            zeros.
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
        """Number of streams B."""
        return len(self.frames)

    @property
    def size_bytes(self) -> int:
        """Size of the state's tensors in bytes."""
        return self.memory.size_bytes + self.waiting.numel() * self.waiting.element_size()
