"""One stream step as a module of plain tensors: ``step(x, *state) -> (y, *state)``, for `torch.export` and ONNX."""

from __future__ import annotations

from math import lcm

import torch
from torch import Tensor, nn

from keystep.config.attention import AttentionPattern
from keystep.errors import InputError
from keystep.export.buffers import FixedBuffers, Rotations, StateTensor
from keystep.export.columns import Columns
from keystep.heads import Head
from keystep.nn.cache import Cache
from keystep.nn.context import Kind
from keystep.pjepa import PJEPA
from keystep.stream import Position, StreamState

FRAME, HEAD = "frame", "head."
"""The counter's name, and what comes before the names of a head's state."""


class ExportedStep(nn.Module):
    """The encoder of a model for a fixed number of streams and of frames a call, in float32 on the CPU.

    A stream whose ``frame`` is set to 0 begins anew; the rest of its state may stay as it is.

    Args:
        model: used as it is, not copied; its stream attention must have a window.
        frames: frames a call; a multiple of the block for block-causal models, and of what its head answers together.
        head: its class probabilities become a second output; it needs a causal form.
    """

    def __init__(self, model: PJEPA, frames: int, streams: int = 1, head: Head | None = None) -> None:
        super().__init__()
        self.pattern = _pattern(model, frames, streams, head)
        self.config = model.config
        self.frames, self.streams = frames, streams
        self.encoder, self.head = model.encoder, head
        self.width = model.latent_dim(self.pattern)
        self.rotations = Rotations()
        self.state = self._declared()
        """What `forward` takes behind the features and gives behind its outputs, in this order."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Of a call's features, (B, n, D_in)."""
        assert self.config.input_dim is not None
        return self.streams, self.frames, self.config.input_dim

    @property
    def outputs(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of what `forward` gives before the state."""
        shapes: dict[str, tuple[int, ...]] = {"latents": (self.streams, self.frames, self.width)}
        if self.head is not None:
            shapes["probabilities"] = (self.streams, self.frames, self.head.classes)
        return shapes

    @property
    def reach(self) -> int:
        """Frames until every column of the buffers has been written."""
        kinds = {tensor.kind for tensor in self.state if tensor.kind is not None}
        return max((Columns(kind.pattern, self.frames, kind.stride).reach for kind in kinds), default=1)

    def initial(self) -> tuple[Tensor, ...]:
        """The state before the first frame."""
        return tuple(tensor.initial() for tensor in self.state)

    def taken_over(self, position: StreamState | Position) -> tuple[Tensor, ...]:
        """The state that goes on where a stream of `keystep.stream` is, between two blocks.

        Args:
            position: of the model, and with a head of both (`keystep.Stream.position`).

        Raises:
            InputError: another model's or head's state, another number of streams, or one with frames that wait.
        """
        states = {"": position} if isinstance(position, StreamState) else {"": position.model, HEAD: position.head}
        found: dict[str, Tensor] = {FRAME: torch.tensor(states[""].frames)}  # type: ignore[union-attr]
        for prefix, network in (("", self), (HEAD, self.head)):
            if network is not None:
                state = states.get(prefix)
                if state is None or state.config != network.config:
                    part = "head" if prefix else "model"
                    raise InputError(f"this state belongs to a {part} with other settings than the exported one")
                found |= self._taken_over(prefix, state)
        return tuple(found[tensor.name] for tensor in self.state)

    def _taken_over(self, prefix: str, state: StreamState) -> dict[str, Tensor]:
        if state.streams != self.streams or any(state.held):
            raise InputError(
                f"a state of {state.streams} streams with up to {max(state.held)} frames waiting cannot go on here: "
                f"it takes {self.streams} streams, between two blocks"
            )
        found = {}
        for tensor in self.state:
            name = tensor.name.removeprefix(prefix)
            if tensor.name == FRAME or tensor.name.startswith(HEAD) != bool(prefix):
                continue
            if tensor.kind is None:
                found[tensor.name] = state.memory.states.get(name, tensor.initial()).cpu()
            elif tensor.kind in state.memory.caches:
                found[tensor.name] = self._placed(name, tensor.kind, state.memory.caches[tensor.kind], state.frames)
            else:
                found[tensor.name] = tensor.initial()
        return found

    def _placed(self, name: str, kind: Kind, cache: Cache, frames: tuple[int, ...]) -> Tensor:
        """The buffer of keys or values that holds what a cache does."""
        part, _, name = name.partition(".")
        stored = cache.read(name)[part == "values"].float().cpu()
        columns = Columns(kind.pattern, self.frames, kind.stride)
        return torch.stack([columns.place(*row) for row in zip(stored, cache.positions.cpu(), frames, strict=True)])

    def forward(self, features: Tensor, frame: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Features (B, n, D_in), the index (B,) of each stream's next frame, and the rest of the state.

        Returns:
            latents (B, n, D), class probabilities (B, n, C) with a head, and the new state.
        """
        before = dict(zip((tensor.name for tensor in self.state[1:]), state, strict=True))
        of_head = {name.removeprefix(HEAD): tensor for name, tensor in before.items() if name.startswith(HEAD)}
        outputs, contexts = self._run(features, frame, before, of_head)
        after = {FRAME: frame + self.frames, **contexts[""].after}
        if HEAD in contexts:
            after |= {HEAD + name: tensor for name, tensor in contexts[HEAD].after.items()}
        return *outputs, *(after[tensor.name] for tensor in self.state)

    def _run(
        self,
        features: Tensor,
        frame: Tensor,
        of_model: dict[str, Tensor] | None = None,
        of_head: dict[str, Tensor] | None = None,
    ) -> tuple[list[Tensor], dict[str, FixedBuffers]]:
        """The outputs, and the contexts of the model and of the head behind them."""
        contexts = {"": FixedBuffers(frame, self.frames, self.rotations, of_model)}
        outputs = [self.encoder.read(features, contexts[""], self.pattern)]
        if self.head is not None:
            contexts[HEAD] = FixedBuffers(frame, self.frames, self.rotations, of_head)
            outputs.append(self.head.scores(outputs[0], contexts[HEAD])[-1].softmax(-1))
        return outputs, contexts

    @torch.no_grad()
    def _declared(self) -> list[StateTensor]:
        """All of the state, found out by running once."""
        frame = torch.zeros(self.streams, dtype=torch.int64)
        _, contexts = self._run(torch.zeros(self.input_shape), frame)
        tensors = [StateTensor(FRAME, (self.streams,), torch.int64)]
        for prefix, context in contexts.items():
            for tensor in context.declared:
                tensors.append(
                    StateTensor(prefix + tensor.name, tensor.shape, tensor.dtype, tensor.shareable, tensor.kind)
                )
        return tensors


def frames_a_call(model: PJEPA, head: Head | None = None) -> int:
    """The fewest frames that are answered together: those of a block and of what the head waits for."""
    pattern = model.config.stream_attention
    return lcm((pattern and pattern.block) or 1, 1 if head is None or head.delay is None else head.delay + 1)


def _pattern(model: PJEPA, frames: int, streams: int, head: Head | None) -> AttentionPattern:
    """The attention of the model's streams, if these settings suit it."""
    pattern = model.config.stream_attention
    if pattern is None or model.config.oracle:
        raise InputError(
            f"this model attends {model.config.attention} and has no live_attention: it cannot run on a stream of "
            "exported steps"
        )
    if pattern.window is None:
        raise InputError(
            f"this model attends {pattern} without a window, so its state would grow for ever; give --window N to "
            "limit it to N frames (then its latents are no longer those of the model without a window)"
        )
    if frames < 1 or streams < 1:
        raise InputError(f"{frames} frames of {streams} streams a call: both must be 1 at least")
    if pattern.block is not None and frames % pattern.block:
        raise InputError(f"{frames} frames a call do not suit {pattern}; give a multiple of its block, {pattern.block}")
    if head is not None:
        check_width(model, head, pattern)
        if head.delay is None:
            raise InputError(f"this {head.config.kind} head reads the whole video: it has no step to export")
        if frames % (head.delay + 1):
            raise InputError(
                f"{frames} frames a call do not suit a head that answers {head.delay + 1} together; give a multiple of "
                f"{frames_a_call(model, head)}"
            )
    return pattern


def check_width(model: PJEPA, head: Head, pattern: AttentionPattern) -> None:
    """Refuse a head that does not read the latents that this attention gives."""
    width = model.latent_dim(pattern)
    if head.width != width:
        raise InputError(f"the head reads latents {head.width} wide; the model gives {width}")
