"""Begin, advance, finish and reset streams of models and heads."""

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
"""Maximum number of frames that are computed at once, which bounds the memory that a long chunk needs."""


class _Adapter(NamedTuple):
    """How a network runs on a stream.

    Attributes:
        name, unit: names of the network and of its block, for messages.
        block: number of frames that are answered together.
        widths: of an input and of an output frame.
        like: a tensor with the network's type and device.
        run: (B, n, D_in) frames and their context -> (B, n, D).
    """

    name: str
    unit: str
    block: int
    widths: tuple[int, int]
    like: Tensor
    run: Callable[[Tensor, SequenceContext], Tensor]


def _adapter(network: Network) -> _Adapter:
    """How a network runs.

    Raises:
        InputError: it needs future frames, or is a head in training mode.
    """
    if isinstance(network, PJEPA):
        pattern, config = live_pattern(network), network.config
        assert config.input_dim is not None

        def encode(features: Tensor, context: SequenceContext) -> Tensor:
            return network.encoder.read(features, context, pattern)

        widths = (config.input_dim, network.latent_dim(pattern))
        return _Adapter("model", "block", pattern.block or 1, widths, network.mask_token, encode)
    if network.delay is None:
        raise InputError(
            f"this {network.config.kind} head reads the whole video; train one with causal=true for streams"
        )
    if network.training:
        raise InputError("this head is in training mode, where dropout makes scores random; call head.eval() first")
    widths = (network.width, network.classes)
    like = network.standardise.mean
    return _Adapter("head", "chunk", network.delay + 1, widths, like, lambda x, context: network.scores(x, context)[-1])


def live_pattern(model: PJEPA) -> AttentionPattern:
    """The attention that a model uses on streams.

    Raises:
        InputError: the model has none that works without future frames.
    """
    pattern = model.config.stream_attention
    if pattern is None or model.config.oracle:
        raise InputError(
            f"this model attends {model.config.attention} and has no live_attention: it cannot run on a stream"
        )
    return pattern


def init(network: Network, batch_size: int = 1) -> StreamState:
    """Create the state before the first frame.

    Args:
        network: a model or a head.
        batch_size: number of independent streams B.

    Raises:
        InputError: the network needs future frames, or is a head in training mode.
    """
    kind, none = _adapter(network), (0,) * batch_size
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


def step(
    network: Network, chunk: Tensor, state: StreamState, counts: Sequence[int] | None = None
) -> tuple[Tensor, StreamState]:
    """Process the next frames.

    Args:
        network: a model or a head.
        chunk: (B, n, D_in) features, or latents for a head.
        state: the current state; it stays valid, also after an error.
        counts: per stream, how many of the n frames it has, from 0 on; finite numbers follow them. None: all.

    Returns:
        (B, m, D) latents, or (B, m, C) class scores of a head, which became final; and the new state. They equal those
        of the offline run. m equals n for causal networks; for networks with blocks it is a multiple of the block, and
        may be 0. With ``counts``, or after a reset within a block, streams may have fewer, see `StreamState.given`.

    Raises:
        InputError: the chunk has another batch size or width than the state, or a frame that is not finite or makes the
            network overflow; impossible counts; the state belongs to another network; or a stream was finished within a
            block.
    """
    kind = _adapter(network)
    chunk = _check_chunk(network, kind, chunk, state)
    _check_blocks(kind, state)
    counts = [chunk.shape[1]] * state.streams if counts is None else counts
    if len(counts) != state.streams or not all(0 <= count <= chunk.shape[1] for count in counts):
        raise InputError(f"counts are {[*counts]}; expected {state.streams} numbers from 0 to {chunk.shape[1]}")
    lengths = [held + count for held, count in zip(state.held, counts, strict=True)]
    ready = [length // kind.block * kind.block for length in lengths]
    rows = _join_waiting(state.waiting, state.held, chunk)
    out, state = _advance(kind, rows[:, : max(ready)], ready, state)
    held = [length - done for length, done in zip(lengths, ready, strict=True)]
    return out, replace(state, waiting=_cut(rows, ready, held), held=tuple(held))


def finish(network: Network, state: StreamState) -> tuple[Tensor, StreamState]:
    """Close the open blocks, because the videos end here.

    Args:
        network: a model or a head.
        state: the current state; it stays valid.

    Returns:
        (B, m, D) latents or class scores of the waiting frames, and the new state. A stream that was finished within a
        block cannot continue, only be reset.

    Raises:
        InputError: the state belongs to another network, or the network's numbers overflow.
    """
    kind = _adapter(network)
    _check_owner(network, kind, state)
    out, state = _advance(kind, state.waiting, state.held, state)
    return out, replace(state, waiting=state.waiting[:, :0], held=(0,) * state.streams)


def provisional(network: Network, state: StreamState) -> Tensor:
    """Compute preliminary outputs of the frames that wait for the end of their block, as if the video ended now.

    Args:
        network: a model or a head.
        state: the current state, which does not change.

    Returns:
        (B, m, D); row b is valid up to ``state.held[b]`` and zero after it. m is 0 for causal networks. `step` returns
        the final outputs.

    Raises:
        InputError: as for `finish`.
    """
    out, after = finish(network, state)
    state.memory.reclaim(after.memory)
    return out


def example(network: Network) -> StreamState:
    """The state of one stream after its first outputs, which shows what a network caches, in which shapes."""
    kind = _adapter(network)
    return step(network, kind.like.new_zeros(1, kind.block, kind.widths[0]), init(network))[1]


def reset(state: StreamState, streams: Sequence[int] | None = None) -> StreamState:
    """Reset streams: their next frame is the first one of another video.

    Args:
        state: the current state; it stays valid.
        streams: indices of the streams. None: all.

    Raises:
        InputError: an index that does not exist.
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
    """Delay of the outputs of a frame, without the look-ahead of its features (`Timeline.look_ahead`).

    Args:
        network: a model or a head.
        frame: its index in the stream.
        rate: frames per second.

    Returns:
        Seconds until the output is (final, provisional). It is final with the last frame of the block, and provisional
        immediately. Both are 0 for causal networks.

    Raises:
        InputError: the network needs future frames.
    """
    block = _adapter(network).block
    return (block - 1 - frame % block) / rate, 0.0


def _join_waiting(waiting: Tensor, held: Sequence[int], chunk: Tensor) -> Tensor:
    """(B, n, D_in): the waiting frames of each stream followed by those of the chunk, zeros after shorter rows."""
    rows = torch.cat([waiting, chunk], dim=1)
    if len(set(held)) == 1:
        return rows
    index = torch.arange(waiting.shape[1], device=chunk.device)
    keep = torch.ones(rows.shape[:2], dtype=torch.bool, device=chunk.device)
    keep[:, : len(index)] = index < torch.tensor(held, device=chunk.device)[:, None]
    return Packing(keep).pack(rows)


def _cut(rows: Tensor, first: Sequence[int], lengths: Sequence[int]) -> Tensor:
    """(B, max(lengths), D_in): of each row, ``lengths`` frames from ``first`` on."""
    if len(set(first)) == 1 and len(set(lengths)) == 1:
        return rows[:, first[0] : first[0] + lengths[0]].clone()  # not a view that keeps the whole chunk
    index = torch.arange(rows.shape[1], device=rows.device)
    starts = torch.tensor(first, device=rows.device)[:, None]
    ends = starts + torch.tensor(lengths, device=rows.device)[:, None]
    return Packing((index >= starts) & (index < ends)).pack(rows)[:, : max(lengths)]


@torch.no_grad()
def _advance(kind: _Adapter, frames: Tensor, counts: Sequence[int], state: StreamState) -> tuple[Tensor, StreamState]:
    """Run the first ``counts`` frames of each row of (B, m, D_in), which follow those in the state's memory."""
    size = max(kind.block, CHUNK // kind.block * kind.block)
    parts = [kind.like.new_zeros(len(frames), 0, kind.widths[1])]
    for start in range(0, frames.shape[1], size):
        piece = frames[:, start : start + size]
        left = [min(max(0, count - start), piece.shape[1]) for count in counts]
        out, state = _advance_piece(kind, piece, left, state)
        parts.append(out)
    return torch.cat(parts, dim=1) if len(parts) != 2 else parts[1], replace(state, given=tuple(counts))


def _advance_piece(
    kind: _Adapter, frames: Tensor, counts: Sequence[int], state: StreamState
) -> tuple[Tensor, StreamState]:
    context = Cached(state.memory, state.frames, counts, frames.shape[1], frames.device)
    out, real = kind.run(frames, context), context.places.valid
    _check_finite(kind, out, real, state)
    following = tuple(frame + count for frame, count in zip(state.frames, counts, strict=True))
    out = out if real is None else out * real[..., None]
    return out, replace(state, frames=following, memory=context.remembered)


def _check_owner(network: Network, kind: _Adapter, state: StreamState) -> None:
    if state.owner() is network:
        return
    if state.config != network.config or state.weights != weights_signature(network):
        raise InputError(f"this state belongs to another {kind.name}; start with keystep.stream.init({kind.name})")


def _check_blocks(kind: _Adapter, state: StreamState) -> None:
    """Raise InputError if a block was closed early, because later outputs would differ from the offline ones."""
    for row, (frame, held) in enumerate(zip(state.frames, state.held, strict=True)):
        if frame % kind.block and not held:
            raise InputError(
                f"stream {row} was finished at frame {frame}, in the middle of a {kind.unit} of {kind.block}; continue "
                "from the state before finish, or reset the stream"
            )


def _check_finite(kind: _Adapter, out: Tensor, real: Tensor | None, state: StreamState) -> None:
    """Raise InputError if outputs are not finite, because the memory would spread them to all later frames."""
    finite = out.isfinite().all(-1)
    if real is not None:
        finite = finite | ~real
    if not bool(finite.all()):
        row, frame = (~finite).nonzero()[0].tolist()
        raise InputError(
            f"frame {state.frames[row] + frame} of stream {row}, or one near it, is so large that the {kind.name} "
            "overflows; check the features"
        )


def _check_chunk(network: Network, kind: _Adapter, chunk: Tensor, state: StreamState) -> Tensor:
    """The chunk on the network's device and in its precision."""
    _check_owner(network, kind, state)
    expected = (state.waiting.shape[0], state.waiting.shape[2])
    if chunk.ndim != 3 or (chunk.shape[0], chunk.shape[2]) != expected:
        raise InputError(f"chunk has shape {tuple(chunk.shape)}; this stream takes ({expected[0]}, n, {expected[1]})")
    chunk = chunk.to(kind.like)  # first, because float64 numbers may overflow in float32
    finite = chunk.isfinite().all(-1)
    if not bool(finite.all()):
        row, frame = (~finite).nonzero()[0].tolist()
        raise InputError(f"frame {state.frames[row] + state.held[row] + frame} of stream {row} holds NaN or infinity")
    return chunk
