"""A streaming step with explicit state tensors, ``step(x, *state) -> (y, *state)``, for `torch.export` and ONNX."""

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
"""Name of the frame counter, and prefix of the names of a head's state."""


class ExportedStep(nn.Module):
    """The encoder of a model for a fixed number of streams and of frames per call, in float32 on the CPU.

    Setting ``frame`` of a stream to 0 resets it; the rest of its state need not be changed.

    Args:
        model: not copied. Its streaming attention must have a window.
        frames: frames per call; a multiple of the block of block-causal models and of the chunk of the head.
        streams: number of parallel streams.
        head: adds class probabilities as a second output; it must support streaming.

    Raises:
        InputError: a model or head without bounded streaming memory, or a number of frames that does not fit.
    """

    def __init__(self, model: PJEPA, frames: int, streams: int = 1, head: Head | None = None) -> None:
        super().__init__()
        self.pattern = _pattern(model, frames, streams, head)
        self.config = model.config
        self.frames, self.streams = frames, streams
        self.encoder, self.head = model.encoder, head
        self.width = model.latent_dim(self.pattern)
        self.rotations = Rotations()
        self.state = self._declare_state()
        """The state tensors of `forward`, in order."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of the features of a call, (B, n, D_in)."""
        assert self.config.input_dim is not None
        return self.streams, self.frames, self.config.input_dim

    @property
    def outputs(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the outputs of `forward`, without the state."""
        shapes: dict[str, tuple[int, ...]] = {"latents": (self.streams, self.frames, self.width)}
        if self.head is not None:
            shapes["probabilities"] = (self.streams, self.frames, self.head.classes)
        return shapes

    @property
    def reach(self) -> int:
        """Number of frames after which all columns of the buffers have been written."""
        kinds = {tensor.kind for tensor in self.state if tensor.kind is not None}
        return max((Columns(kind.pattern, self.frames, kind.stride).reach for kind in kinds), default=1)

    def initial(self) -> tuple[Tensor, ...]:
        """The state before the first frame."""
        return tuple(tensor.initial() for tensor in self.state)

    def taken_over(self, position: StreamState | Position) -> tuple[Tensor, ...]:
        """Convert the state of a stream of `keystep.stream`, between two blocks.

        Args:
            position: of the model or, with a head, of both (`keystep.Stream.position`).

        Raises:
            InputError: the state of another model or head, of another number of streams, or with pending frames.
        """
        states = {"": position} if isinstance(position, StreamState) else {"": position.model, HEAD: position.head}
        found: dict[str, Tensor] = {FRAME: torch.tensor(states[""].frames)}  # type: ignore[union-attr]
        for prefix, network in (("", self), (HEAD, self.head)):
            if network is not None:
                state = states.get(prefix)
                if state is None or state.config != network.config:
                    part = "head" if prefix else "model"
                    raise InputError(f"this state is from a {part} with other settings than the exported one")
                found |= self._taken_over(prefix, state)
        return tuple(found[tensor.name] for tensor in self.state)

    def _taken_over(self, prefix: str, state: StreamState) -> dict[str, Tensor]:
        if state.streams != self.streams or any(state.held):
            raise InputError(
                f"cannot import a state of {state.streams} streams with up to {max(state.held)} pending frames; "
                f"expected {self.streams} streams without pending frames"
            )
        found = {}
        for tensor in self.state:
            name = tensor.name.removeprefix(prefix)
            if tensor.name == FRAME or tensor.name.startswith(HEAD) != bool(prefix):
                continue
            if tensor.kind is None:
                found[tensor.name] = state.memory.states.get(name, tensor.initial()).cpu()
            elif tensor.kind in state.memory.caches:
                found[tensor.name] = self._buffer(name, tensor.kind, state.memory.caches[tensor.kind], state.frames)
            else:
                found[tensor.name] = tensor.initial()
        return found

    def _buffer(self, name: str, kind: Kind, cache: Cache, frames: tuple[int, ...]) -> Tensor:
        """The buffer of keys or values with the content of a cache."""
        part, _, name = name.partition(".")
        stored = cache.read(name)[part == "values"].float().cpu()
        columns = Columns(kind.pattern, self.frames, kind.stride)
        return torch.stack([columns.place(*row) for row in zip(stored, cache.positions.cpu(), frames, strict=True)])

    def forward(self, features: Tensor, frame: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Run one step.

        Args:
            features: (B, n, D_in).
            frame: (B,) index of each stream's next frame.
            state: the other state tensors.

        Returns:
            latents (B, n, D), with a head class probabilities (B, n, C), and the new state.
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
        """The outputs, and the contexts of the model and the head after the step."""
        contexts = {"": FixedBuffers(frame, self.frames, self.rotations, of_model)}
        outputs = [self.encoder.read(features, contexts[""], self.pattern)]
        if self.head is not None:
            contexts[HEAD] = FixedBuffers(frame, self.frames, self.rotations, of_head)
            outputs.append(self.head.scores(outputs[0], contexts[HEAD])[-1].softmax(-1))
        return outputs, contexts

    @torch.no_grad()
    def _declare_state(self) -> list[StateTensor]:
        """The state tensors, found by running the step once."""
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
    """The minimum number of frames per call: a common multiple of the model's block and the head's chunk."""
    pattern = model.config.stream_attention
    return lcm((pattern and pattern.block) or 1, 1 if head is None or head.delay is None else head.delay + 1)


def _pattern(model: PJEPA, frames: int, streams: int, head: Head | None) -> AttentionPattern:
    """The streaming attention of the model. Raises InputError if the settings do not fit."""
    pattern = model.config.stream_attention
    if pattern is None or model.config.oracle:
        raise InputError(
            f"this model has {model.config.attention} attention and no live_attention, so it cannot be exported as a "
            "streaming step"
        )
    if pattern.window is None:
        raise InputError(
            f"this model has {pattern} attention without a window, so its state would grow without bound; give "
            "--window N to limit it to N frames (which changes its latents)"
        )
    if frames < 1 or streams < 1:
        raise InputError(f"frames and streams must be at least 1, not {frames} and {streams}")
    if pattern.block is not None and frames % pattern.block:
        raise InputError(f"frames must be a multiple of the model's block, {pattern.block}, not {frames}")
    if head is not None:
        check_width(model, head, pattern)
        if head.delay is None:
            raise InputError(f"this {head.config.kind} head reads the whole video, so it has no streaming step")
        if frames % (head.delay + 1):
            raise InputError(
                f"frames must be a multiple of {frames_a_call(model, head)} for a head with chunks of "
                f"{head.delay + 1}, not {frames}"
            )
    return pattern


def check_width(model: PJEPA, head: Head, pattern: AttentionPattern) -> None:
    """Check that a head expects the latents of this attention pattern.

    Raises:
        InputError: another width.
    """
    width = model.latent_dim(pattern)
    if head.width != width:
        raise InputError(f"the head expects latents of width {head.width}, but the model has {width}")
