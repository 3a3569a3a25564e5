"""One stream step as a module of plain tensors: ``step(x, *state) -> (y, *state)``, for `torch.export` and ONNX."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from keystep.config.attention import AttentionPattern
from keystep.errors import InputError
from keystep.export.columns import Columns
from keystep.export.rotation import RealRotation
from keystep.heads import Affine, LinearHead
from keystep.nn.blocks import Attention, Block, Readout
from keystep.nn.centring import running_centre
from keystep.pjepa import PJEPA
from keystep.stream import StreamState


@dataclass(frozen=True)
class StateTensor:
    """One tensor that a caller holds between calls; all of them begin as zeros.

    shape: the streams come first.
    shareable: a runtime may write the new value over the old one, because the step reads it nowhere else.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    shareable: bool = False

    def initial(self) -> Tensor:
        """Its value before the first frame."""
        return torch.zeros(self.shape, dtype=self.dtype)


class ExportedStep(nn.Module):
    """The encoder of a model for a fixed number of streams and of frames a call, in float32 on the CPU.

    A stream whose ``frame`` (and ``total``) is set to 0 begins anew; its keys and values may stay as they are.

    Args:
        model: used as it is, not copied; its stream attention must have a window.
        frames: frames a call; a multiple of the block for block-causal models.
        head: its class probabilities become a second output.
    """

    def __init__(self, model: PJEPA, frames: int, streams: int = 1, head: LinearHead | None = None) -> None:
        super().__init__()
        pattern = _pattern(model, frames, streams)
        config = model.config
        self.config = config
        self.frames, self.streams = frames, streams
        self.columns = Columns(pattern, frames)
        self.encoder = model.encoder
        self.rotation = RealRotation(config.dim // config.heads, config.rotary)
        self.head = None if head is None else _Head(head, config.dim)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Of a call's features, (B, n, D_in)."""
        assert self.config.input_dim is not None
        return self.streams, self.frames, self.config.input_dim

    @property
    def state(self) -> list[StateTensor]:
        """What `forward` takes behind the features and gives behind its outputs, in this order."""
        heads = (self.config.heads, self.columns.count, self.config.dim // self.config.heads)
        tensors = [StateTensor("frame", (self.streams,), torch.int64)]
        if self.config.centring:
            tensors.append(StateTensor("total", (self.streams, self.config.dim), torch.float64))
        for block in range(self.config.depth):
            for part in ("keys", "values"):
                tensors.append(StateTensor(f"{part}.{block}", (self.streams, *heads), torch.float32, shareable=True))
        return tensors

    @property
    def outputs(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of what `forward` gives before the state."""
        shapes: dict[str, tuple[int, ...]] = {"latents": (self.streams, self.frames, self.config.dim)}
        if self.head is not None:
            shapes["probabilities"] = (self.streams, self.frames, self.head.classes)
        return shapes

    def initial(self) -> tuple[Tensor, ...]:
        """The state before the first frame."""
        return tuple(tensor.initial() for tensor in self.state)

    def taken_over(self, state: StreamState) -> tuple[Tensor, ...]:
        """The state that goes on where a stream of `keystep.stream` is, between two blocks.

        Raises:
            InputError: another model's state, another number of streams, or one with frames that wait.
        """
        if state.config != self.config:
            raise InputError("this state belongs to a model with other settings than the exported one")
        if state.streams != self.streams or any(state.held):
            raise InputError(
                f"a state of {state.streams} streams with up to {max(state.held)} frames waiting cannot go on here: "
                f"it takes {self.streams} streams, between two blocks"
            )
        tensors = [torch.tensor(state.frames)] + ([state.total.cpu()] if self.config.centring else [])
        cache, positions = state.cache, state.cache.positions.cpu()
        for block in range(self.config.depth):
            for part in (cache.keys(block), cache.values(block)):
                rows = zip(part.float().cpu(), positions, state.frames, strict=True)
                tensors.append(torch.stack([self.columns.place(*row) for row in rows]))
        return tuple(tensors)

    def forward(self, features: Tensor, frame: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Features (B, n, D_in), the index (B,) of each stream's next frame, and the rest of the state.

        Returns:
            latents (B, n, D), class probabilities (B, n, C) with a head, and the new state.
        """
        rest = list(state)
        positions = frame[:, None] + torch.arange(self.frames)  # (B, n)
        after: list[Tensor] = [frame + self.frames]
        x = self.encoder.project(features)
        if self.encoder.centring:
            x, total = running_centre(x, rest.pop(0), frame[:, None, None])
            after.append(total)
        x = self.encoder.shift(x)
        tables = self.rotation.tables(positions)
        source, target = self.columns.writes(positions)
        blind = torch.zeros(()).masked_fill(~self.columns.seen(positions), float("-inf"))[:, None]  # (B, 1, n, M)
        outputs = Readout(self.encoder, self.config.averaged_blocks)
        for block in self.encoder.blocks:
            assert isinstance(block, Block)
            query, key, value = self._heads(block.attn, block.norm1(x), tables)
            keys, values = (_written(rest.pop(0), new, source, target) for new in (key, value))
            after += [keys, values]
            x = x + block.attn.mix(_attend(query, keys, values, blind))
            x = x + block.mlp(block.norm2(x))
            outputs.add(x)
        latents = outputs.mean()
        if self.head is None:
            return latents, *after
        return latents, self.head(latents), *after

    def _heads(self, attention: Attention, x: Tensor, tables: tuple[Tensor, Tensor]) -> list[Tensor]:
        """Turned queries, turned keys, and values of (B, n, D), each (B, H, n, d)."""
        heads = attention.heads
        both, value = attention.qkv(x).view(*x.shape[:2], 3 * heads, -1).split([2 * heads, heads], dim=2)
        query, key = self.rotation(both, tables).split(heads, dim=2)
        return [part.transpose(1, 2) for part in (query, key, value)]


def _written(buffer: Tensor, new: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """The buffer (B, H, M, d) with the call's columns (B, H, n, d) in their places."""
    streams, heads, frames, width = new.shape
    if source.shape[1] > frames or frames > 1:
        new = new.gather(2, source[:, None, :, None].expand(-1, heads, -1, width))
    return buffer.scatter(2, target[:, None, :, None].expand(streams, heads, -1, width), new)


def _attend(query: Tensor, keys: Tensor, values: Tensor, blind: Tensor) -> Tensor:
    """Softmax attention in plain steps: queries (B, H, n, d) over columns (B, H, M, d), with -inf where none is seen.

    Every query sees its own column at least.
    """
    scores = (query * query.shape[-1] ** -0.5) @ keys.transpose(-1, -2) + blind
    attended: Tensor = scores.softmax(-1) @ values
    return attended


def _pattern(model: PJEPA, frames: int, streams: int) -> AttentionPattern:
    """The attention of the model's streams, if these settings suit it."""
    pattern = model.config.stream_attention
    if pattern is None or model.config.oracle:
        raise InputError(
            f"this model attends {model.config.attention} and has no live_attention: it cannot "
            "run on a stream of exported steps"
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
    return pattern


class _Head(nn.Module):
    """A linear head whose numbers are weights of the program."""

    def __init__(self, head: LinearHead, dim: int) -> None:
        super().__init__()
        if head.width != dim:
            raise InputError(f"the head reads latents {head.width} wide; the model gives {dim}")
        self.steps = _linear(head.steps)
        self.activity = None if head.activity is None else _linear(head.activity)
        self.classes, self.background = head.classes, head.background

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (B, n, D) to class probabilities (B, n, C)."""
        activity = None if self.activity is None else _affine(self.activity)
        return LinearHead(_affine(self.steps), activity, self.background).probabilities(latents)


def _linear(affine: Affine) -> nn.Linear:
    linear = nn.Linear(affine.weight.shape[1], affine.weight.shape[0])
    linear.load_state_dict({"weight": affine.weight, "bias": affine.bias})
    return linear


def _affine(linear: nn.Linear) -> Affine:
    return Affine(linear.weight, linear.bias)
