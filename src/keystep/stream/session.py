"""Run a model and a head on one stream of features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from keystep.errors import InputError
from keystep.heads import Head
from keystep.pjepa import PJEPA
from keystep.stream import saving, steps
from keystep.stream.state import Network, StreamState
from keystep.types import Tabular


@dataclass(frozen=True, eq=False)
class StreamResult(Tabular):
    """Outputs of m consecutive frames.

    Attributes:
        first: index of the first frame.
        latents: (m, D).
        probabilities: (m, C) on the CPU. None: without a head.
        head: decides on the labels.
    """

    first: int
    latents: Tensor
    probabilities: Tensor | None = None
    head: Head | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def labels(self) -> list[str]:
        """Class names of the frames; empty without a head."""
        if self.head is None or self.probabilities is None:
            return []
        return [self.head.name(identifier) for identifier in self.head.choose(self.probabilities).tolist()]

    def to_records(self) -> list[dict[str, Any]]:
        """One dict per frame: ``frame``, its index; with a head, also ``label`` and ``probability``."""
        frames = [{"frame": self.first + index} for index in range(len(self))]
        if self.probabilities is None:
            return [dict(frame) for frame in frames]
        assert self.head is not None
        chosen = self.head.choose(self.probabilities)
        likely = self.probabilities.gather(1, chosen[:, None])[:, 0].tolist()
        return [
            {**frame, "label": label, "probability": probability}
            for frame, label, probability in zip(frames, self.labels, likely, strict=True)
        ]


@dataclass(frozen=True, eq=False)
class Position:
    """The position of a stream, a value like `StreamState`.

    Attributes:
        model, head: states of the networks.
    """

    model: StreamState
    head: StreamState | None = None

    @property
    def frames(self) -> int:
        """Number of frames that were pushed."""
        return self.model.frames[0] + self.model.held[0]

    @property
    def waiting(self) -> int:
        """Number of frames that wait for the end of their block, in the model or in the head."""
        return self.model.held[0] + (0 if self.head is None else self.head.held[0])

    @property
    def size_bytes(self) -> int:
        """Size of its tensors in bytes."""
        return self.model.size_bytes + (0 if self.head is None else self.head.size_bytes)


class Stream:
    """Runs a model, and optionally a head, on one stream of features.

    For example:

        stream = keystep.Stream(model, head)
        for chunk in chunks:                      # (n, D_in) each
            print(stream.push(chunk).labels)
        print(stream.flush().labels)

    The results equal those of the offline run, independently of the chunks. An error leaves the stream unchanged;
    ``position`` can be saved and restored.

    Args:
        model: causal, block-causal, or with a live attention.
        head: reads the model's latents. None: results have latents only.

    Raises:
        InputError: the model or the head needs the whole video, or they do not fit together.
    """

    def __init__(self, model: PJEPA, head: Head | None = None) -> None:
        width = model.latent_dim(steps.live_pattern(model))
        if head is not None and head.width != width:
            raise InputError(f"the head expects latents of width {head.width}; the model has {width}")
        self.model, self.head = model, head
        self.position = self.begin()

    def push(self, features: np.ndarray | Tensor) -> StreamResult:
        """Process the next frames.

        Args:
            features: (n, D_in).

        Returns:
            The frames that became final, which may include earlier ones, or be empty.

        Raises:
            InputError: another shape, a number that is not finite, or a stream that was flushed within a block.
        """
        result, self.position = self.after(self.position, features)
        return result

    def provisional(self) -> StreamResult:
        """Preliminary results of the waiting frames, as if the video ended now; later frames may revise them."""
        return self.expected(self.position)

    def flush(self) -> StreamResult:
        """Return the waiting frames, because the video ends. After an incomplete block, the stream cannot continue."""
        result, self.position = self.ended(self.position)
        return result

    def reset(self) -> None:
        """Start another video: the next frame is its first one."""
        self.position = self.begin()

    def save(self, path: Path | str, extra: Mapping[str, Any] | None = None, position: Position | None = None) -> None:
        """Write the state of the stream to one safetensors file, from which `resume` continues bit-identically.

        Args:
            path: the file.
            extra: plain data of the caller to store with it.
            position: an earlier position to store. None: the current one.

        Raises:
            InputError: the file cannot be written.
        """
        position = position or self.position
        parts: dict[str, tuple[Network, StreamState]] = {saving.MODEL: (self.model, position.model)}
        if self.head is not None and position.head is not None:
            parts[saving.HEAD] = (self.head, position.head)
        saving.save_all(path, parts, extra)

    @classmethod
    def resume(cls, path: Path | str, model: PJEPA, head: Head | None = None) -> Stream:
        """Create a stream from a file that `save` wrote.

        Args:
            path: the file.
            model: that of the saved stream.
            head: that of the saved stream, if it had one.

        Raises:
            InputError: a missing or damaged file, or the state of another model or head.
        """
        stream = cls(model, head)
        stream.restore(path)
        return stream

    def restore(self, path: Path | str) -> dict[str, Any]:
        """Set the position to that of a saved stream; returns the caller's extra data. Errors are those of `resume`."""
        networks: dict[str, Network] = {saving.MODEL: self.model}
        if self.head is not None:
            networks[saving.HEAD] = self.head
        states, extra = saving.load_all(path, networks)
        self.position = Position(states[saving.MODEL], states.get(saving.HEAD))
        return extra

    def begin(self) -> Position:
        """The position before the first frame."""
        return Position(steps.init(self.model), None if self.head is None else steps.init(self.head))

    def after(self, position: Position, features: np.ndarray | Tensor) -> tuple[StreamResult, Position]:
        """`push` as a function of a position: returns the result and the next position. Errors are those of `push`."""
        chunk = torch.as_tensor(features)
        if chunk.ndim != 2:
            raise InputError(f"features have shape {tuple(chunk.shape)}; expected (n, D_in)")
        latents, state = steps.step(self.model, chunk[None], position.model)
        return self._read(Position(state, position.head), latents)

    def ended(self, position: Position) -> tuple[StreamResult, Position]:
        """`flush` as a function: returns the result and the position after it."""
        latents, state = steps.finish(self.model, position.model)
        return self._read(Position(state, position.head), latents, end=True)

    def expected(self, position: Position) -> StreamResult:
        """`provisional` as a function of a position, which does not change."""
        latents = steps.provisional(self.model, position.model)
        pushed = replace(position.model, frames=(position.frames,), held=(0,))
        result, after = self._read(Position(pushed, position.head), latents, end=True)
        if position.head is not None and after.head is not None:
            position.head.memory.reclaim(after.head.memory)
        return result

    @torch.no_grad()
    def _read(self, position: Position, latents: Tensor, end: bool = False) -> tuple[StreamResult, Position]:
        """Run the head on the next latents, (1, n, D)."""
        state, scores = position.head, None
        if self.head is not None:
            assert state is not None
            scores = latents.new_zeros(1, 0, self.head.classes)
            if latents.shape[1] or state.held[0]:  # otherwise the stream may be finished
                rows = torch.cat([state.waiting.to(latents), latents], dim=1)
                scores, state = steps.step(self.head, latents, state)
                if end:
                    rest, state = steps.finish(self.head, state)
                    scores = torch.cat([scores, rest], dim=1)
                latents = rows[:, : scores.shape[1]]
            position = Position(position.model, state)
        probabilities = None if scores is None else scores[0].softmax(-1).float().cpu()
        first = position.frames - position.waiting - latents.shape[1]
        return StreamResult(first, latents[0], probabilities, self.head), position
