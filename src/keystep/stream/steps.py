"""One step of a stream, and what begins, ends and resets it; for models and heads alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple
from weakref import ref

import torch
from torch import Tensor

from keystep.config.attention import AttentionPattern
from keystep.errors import InputError
from keystep.nn.context import Cached, Memory, SequenceContext
from keystep.nn.places import Packing
from keystep.persistence import weights_signature
from keystep.pjepa import PJEPA
from keystep.stream.state import Network, StreamState

CHUNK = 256
"""Frames that go through a network at once, so that a long chunk needs no more memory than a short one."""


class _Runner(NamedTuple):
    """How a network runs on a stream.

    name, unit: words for it and for the frames that are answered together, of which there are ``block``.
    widths: of a frame that comes in, and of what comes out. like: a tensor of its type on its device.
    """

    name: str
    unit: str
    block: int
    widths: tuple[int, int]
    like: Tensor
    run: Callable[[Tensor, SequenceContext], Tensor]


def _runner_for(network: Network) -> _Runner:
    """How it runs.

    Raises:
        InputError: it needs the future, or is a head in training mode.
    """
    if isinstance(network, PJEPA):
        pattern, config = live_pattern(network), network.config
        assert config.input_dim is not None

        def encode(features: Tensor, context: SequenceContext) -> Tensor:
            return network.encoder.read(features, context, pattern)

        widths = (config.input_dim, network.latent_dim(pattern))
        return _Runner("model", "block", pattern.block or 1, widths, network.mask_token, encode)
    if network.delay is None:
        raise InputError(
            f"this {network.config.kind} head reads the whole video; train one with causal=true for streams"
        )
    if network.training:
        raise InputError("this head is in training mode, where its answers are random; call head.eval() first")
    widths = (network.width, network.classes)
    like = network.standardise.mean
    return _Runner("head", "chunk", network.delay + 1, widths, like, lambda x, context: network.scores(x, context)[-1])


def live_pattern(model: PJEPA) -> AttentionPattern:
    """The attention of a model's streams.

    Raises:
        InputError: none does without the future.
    """
    pattern = model.config.stream_attention
    if pattern is None or model.config.oracle:
        raise InputError(
            f"this model attends {model.config.attention} and has no live_attention: it cannot run on a stream"
        )
    return pattern


def init(network: Network, batch_size: int = 1) -> StreamState:
    """The state before the first frame of ``batch_size`` streams that run in step.

    Args:
        network: a model, or a head.

    Raises:
        InputError: it needs the future, or is a head in training mode.
    """
    kind, none = _runner_for(network), (0,) * batch_size
    return StreamState(
        owner=ref(network),
        weights=weights_signature(network),
        config=network.config,
        frames=none,
        memory=Memory(),
        waiting=kind.like.new_zeros(batch_size, 0, kind.widths[0]),
        held=none,
        given=none,
    )


def step(network: Network, chunk: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
    """Take the next frames, (B, n, D_in); return what became final, (B, m, D), and the new state.

    Of a model, these are latents; of a head, class scores (B, m, C). They are those of the offline run. ``m`` equals
    ``n`` for causal networks; for those that answer in blocks it is a multiple of the block and may be 0. Streams that
    were reset in the middle of a block may give fewer: see `StreamState.given`. After an error the old state is as good
    as before.

    Raises:
        InputError: another batch size or width than the state's, a frame that is not finite or so large that the
            network's numbers overflow, another network's state, a stream that was finished in the middle of a block.
    """
    kind = _runner_for(network)
    chunk = _check_chunk(network, kind, chunk, state)
    _check_blocks(kind, state)
    lengths = [held + chunk.shape[1] for held in state.held]
    ready = [length // kind.block * kind.block for length in lengths]
    rows = _join_waiting(state.waiting, state.held, chunk)
    out, state = _advance(kind, rows[:, : max(ready)], ready, state)
    held = [length - done for length, done in zip(lengths, ready, strict=True)]
    return out, replace(state, waiting=_cut(rows, ready, held), held=tuple(held))


def finish(network: Network, state: StreamState) -> tuple[Tensor, StreamState]:
    """Encode what the open blocks hold, as if the videos ended here; (B, m, D) and the state behind it."""
    kind = _runner_for(network)
    _check_owner(network, kind, state)
    out, state = _advance(kind, state.waiting, state.held, state)
    return out, replace(state, waiting=state.waiting[:, :0], held=(0,) * state.streams)


def provisional(network: Network, state: StreamState) -> Tensor:
    """(B, m, D) of the frames that wait for the end of their block, as far as it is known now.

    They are revised when it ends (or asked for again with more frames); `step` gives the final ones. Rows are
    `StreamState.held` long, zeros behind. A causal network has nothing that waits: m is 0.
    """
    out, after = finish(network, state)
    state.memory.reclaim(after.memory)
    return out


def example(network: Network) -> StreamState:
    """The state of one stream behind its first answers: what a network remembers, and of which shapes."""
    kind = _runner_for(network)
    return step(network, kind.like.new_zeros(1, kind.block, kind.widths[0]), init(network))[1]


def reset(state: StreamState, streams: Sequence[int] | None = None) -> StreamState:
    """Let some streams (default: all) begin anew: their next frame is the first one of another video.

    Raises:
        InputError: a stream that the state does not have.
    """
    chosen = tuple(range(state.streams)) if streams is None else tuple(streams)
    unknown = [index for index in chosen if not 0 <= index < state.streams]
    if unknown:
        raise InputError(f"no stream {unknown[0]} to reset; this state has {state.streams}, counted from 0")
    frames, held = (
        tuple(0 if index in chosen else value for index, value in enumerate(values))
        for values in (state.frames, state.held)
    )
    waiting = state.waiting[:, : max(held, default=0)]
    return replace(state, frames=frames, memory=state.memory.without(chosen), waiting=waiting, held=held)


def delays(network: Network, frame: int, rate: float) -> tuple[float, float]:
    """Seconds from frame ``frame`` of a stream until its answer is there: (final, provisional).

    A causal network answers at once. Otherwise, a frame is final with the last frame of its block, and provisional at
    once. What the features themselves look ahead comes on top (`Timeline.look_ahead`).
    """
    block = _runner_for(network).block
    return (block - 1 - frame % block) / rate, 0.0


def _join_waiting(waiting: Tensor, held: Sequence[int], chunk: Tensor) -> Tensor:
    """(B, n, D_in): each stream's waiting frames, the chunk's behind them, zeros behind the shorter ones."""
    rows = torch.cat([waiting, chunk], dim=1)
    if len(set(held)) == 1:
        return rows
    index = torch.arange(waiting.shape[1], device=chunk.device)
    keep = torch.ones(rows.shape[:2], dtype=torch.bool, device=chunk.device)
    keep[:, : len(index)] = index < torch.tensor(held, device=chunk.device)[:, None]
    return Packing(keep).pack(rows)


def _cut(rows: Tensor, first: Sequence[int], lengths: Sequence[int]) -> Tensor:
    """(B, max(lengths), D_in): of each row, so many frames from its ``first`` on."""
    if len(set(first)) == 1 and len(set(lengths)) == 1:
        return rows[:, first[0] : first[0] + lengths[0]].clone()  # not a view that keeps the whole chunk
    index = torch.arange(rows.shape[1], device=rows.device)
    starts = torch.tensor(first, device=rows.device)[:, None]
    ends = starts + torch.tensor(lengths, device=rows.device)[:, None]
    return Packing((index >= starts) & (index < ends)).pack(rows)[:, : max(lengths)]


@torch.no_grad()
def _advance(kind: _Runner, frames: Tensor, counts: Sequence[int], state: StreamState) -> tuple[Tensor, StreamState]:
    """Run the first ``counts`` frames of each row of (B, m, D_in), which follow on what the state remembers."""
    size = max(kind.block, CHUNK // kind.block * kind.block)
    parts = [kind.like.new_zeros(len(frames), 0, kind.widths[1])]
    for start in range(0, frames.shape[1], size):
        piece = frames[:, start : start + size]
        left = [min(max(0, count - start), piece.shape[1]) for count in counts]
        out, state = _advance_piece(kind, piece, left, state)
        parts.append(out)
    return torch.cat(parts, dim=1) if len(parts) != 2 else parts[1], replace(state, given=tuple(counts))


def _advance_piece(
    kind: _Runner, frames: Tensor, counts: Sequence[int], state: StreamState
) -> tuple[Tensor, StreamState]:
    context = Cached(state.memory, state.frames, counts, frames.shape[1], frames.device)
    out, real = kind.run(frames, context), context.places.valid
    _check_finite(kind, out, real, state)
    following = tuple(frame + count for frame, count in zip(state.frames, counts, strict=True))
    out = out if real is None else out * real[..., None]
    return out, replace(state, frames=following, memory=context.remembered)


def _check_owner(network: Network, kind: _Runner, state: StreamState) -> None:
    if state.owner() is network:
        return
    if state.config != network.config or state.weights != weights_signature(network):
        raise InputError(f"this state belongs to another {kind.name}; begin with keystep.stream.init({kind.name})")


def _check_blocks(kind: _Runner, state: StreamState) -> None:
    """Refuse to go on where a block was closed before its time: what follows would not be the offline answers."""
    for row, (frame, held) in enumerate(zip(state.frames, state.held, strict=True)):
        if frame % kind.block and not held:
            raise InputError(
                f"stream {row} was finished at frame {frame}, in the middle of a {kind.unit} of {kind.block}; go on "
                "from the state before finish, or reset the stream"
            )


def _check_finite(kind: _Runner, out: Tensor, real: Tensor | None, state: StreamState) -> None:
    """Refuse what would stay in the memory and spoil every frame that comes."""
    finite = out.isfinite().all(-1)
    if real is not None:
        finite = finite | ~real
    if not bool(finite.all()):
        row, frame = (~finite).nonzero()[0].tolist()
        raise InputError(
            f"frame {state.frames[row] + frame} of stream {row}, or one beside it, is so large that the {kind.name}'s "
            "numbers overflow; look for broken features"
        )


def _check_chunk(network: Network, kind: _Runner, chunk: Tensor, state: StreamState) -> Tensor:
    """The chunk on the network's device and in its precision."""
    _check_owner(network, kind, state)
    expected = (state.waiting.shape[0], state.waiting.shape[2])
    if chunk.ndim != 3 or (chunk.shape[0], chunk.shape[2]) != expected:
        raise InputError(f"chunk has shape {tuple(chunk.shape)}; this stream takes ({expected[0]}, n, {expected[1]})")
    chunk = chunk.to(kind.like)  # first: what is finite in float64 need not be so in float32
    finite = chunk.isfinite().all(-1)
    if not bool(finite.all()):
        row, frame = (~finite).nonzero()[0].tolist()
        raise InputError(f"frame {state.frames[row] + state.held[row] + frame} of stream {row} holds NaN or infinity")
    return chunk
