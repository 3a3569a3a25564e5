"""One step of a stream, and what begins, ends and resets it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from weakref import ref

import torch
from torch import Tensor

from keystep.config.attention import AttentionPattern
from keystep.errors import InputError
from keystep.nn.attention import attend_seen, opened, visible
from keystep.nn.blocks import Readout
from keystep.nn.centring import running_centre
from keystep.nn.places import Packing, Places
from keystep.persistence import weights_signature
from keystep.pjepa import PJEPA
from keystep.stream.cache import NOTHING, Cache
from keystep.stream.state import StreamState

CHUNK = 256
"""Frames that go through the model at once, so that a long chunk needs no more memory than a short one."""


def init(model: PJEPA, batch_size: int = 1) -> StreamState:
    """The state before the first frame of ``batch_size`` streams that run in step.

    Raises:
        InputError: the model has no attention that does without the future.
    """
    _pattern(model)
    config, weight = model.config, model.mask_token
    assert config.input_dim is not None
    none = (0,) * batch_size
    return StreamState(
        owner=ref(model),
        weights=weights_signature(model),
        config=config,
        frames=none,
        cache=Cache.empty(batch_size, config.depth, config.heads, config.dim // config.heads, weight),
        waiting=weight.new_zeros(batch_size, 0, config.input_dim),
        held=none,
        total=torch.zeros(batch_size, config.dim, dtype=torch.float64, device=weight.device),
        given=none,
    )


def step(model: PJEPA, chunk: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
    """Take the next frames, (B, n, D_in); return the latents that became final, (B, m, D), and the new state.

    ``m`` equals ``n`` for causal models; for block-causal ones it is a multiple of the block and may be 0. Streams that
    were reset in the middle of a block may give fewer: see `StreamState.given`. After an error the old state is as good
    as before.

    Raises:
        InputError: another batch size or width than the state's, a frame that is not finite or so large that the
            model's numbers overflow, another model's state, a stream that was finished in the middle of a block.
    """
    chunk = _checked(model, chunk, state)
    pattern = _pattern(model)
    block = pattern.block or 1
    _check_blocks(state, block)
    lengths = [held + chunk.shape[1] for held in state.held]
    ready = [length // block * block for length in lengths]
    rows = _rows(state.waiting, state.held, chunk)
    latents, state = _advance(model, rows[:, : max(ready)], ready, state)
    held = [length - done for length, done in zip(lengths, ready, strict=True)]
    return latents, replace(state, waiting=_cut(rows, ready, held), held=tuple(held))


def finish(model: PJEPA, state: StreamState) -> tuple[Tensor, StreamState]:
    """Encode what the open blocks hold, as if the videos ended here; (B, m, D) and the state behind it."""
    _check_owner(model, state)
    latents, state = _advance(model, state.waiting, state.held, state)
    return latents, replace(state, waiting=state.waiting[:, :0], held=(0,) * state.streams)


def provisional(model: PJEPA, state: StreamState) -> Tensor:
    """(B, m, D) latents of the frames that wait for the end of their block, as far as it is known now.

    They are revised when it ends (or asked for again with more frames); `step` gives the final ones. Rows are
    `StreamState.held` long, zeros behind. A causal model has nothing that waits: m is 0.
    """
    latents, after = finish(model, state)
    state.cache.reclaim(after.cache)
    return latents


def reset(state: StreamState, streams: Sequence[int] | None = None) -> StreamState:
    """Let some streams (default: all) begin anew: their next frame is the first one of another video.

    Raises:
        InputError: a stream that the state does not have.
    """
    chosen = tuple(range(state.streams)) if streams is None else tuple(streams)
    unknown = [index for index in chosen if not 0 <= index < state.streams]
    if unknown:
        raise InputError(f"no stream {unknown[0]} to reset; this state has {state.streams}, counted from 0")
    total = state.total.clone()
    total[list(chosen)] = 0
    frames, held = (
        tuple(0 if index in chosen else value for index, value in enumerate(values))
        for values in (state.frames, state.held)
    )
    waiting = state.waiting[:, : max(held, default=0)]
    cache = state.cache.without(chosen)
    return replace(state, frames=frames, cache=cache, waiting=waiting, held=held, total=total)


def delays(model: PJEPA, frame: int, rate: float) -> tuple[float, float]:
    """Seconds from frame ``frame`` of a stream until its latent is there: (final, provisional).

    A causal model answers at once. In a block-causal one, a frame is final with the last frame of its block, and
    provisional at once. What the features themselves look ahead comes on top (`Timeline.look_ahead`).
    """
    block = _pattern(model).block or 1
    return (block - 1 - frame % block) / rate, 0.0


def _rows(waiting: Tensor, held: Sequence[int], chunk: Tensor) -> Tensor:
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
def _advance(model: PJEPA, frames: Tensor, counts: Sequence[int], state: StreamState) -> tuple[Tensor, StreamState]:
    """Encode the first ``counts`` frames of each row of (B, m, D_in), which follow on what the state remembers."""
    block = _pattern(model).block or 1
    size = max(block, CHUNK // block * block)
    parts = [frames.new_zeros(len(frames), 0, model.config.dim)]
    for start in range(0, frames.shape[1], size):
        piece = frames[:, start : start + size]
        left = [min(max(0, count - start), piece.shape[1]) for count in counts]
        latents, state = _advance_piece(model, piece, left, state)
        parts.append(latents)
    return torch.cat(parts, dim=1) if len(parts) != 2 else parts[1], replace(state, given=tuple(counts))


def _advance_piece(
    model: PJEPA, frames: Tensor, counts: Sequence[int], state: StreamState
) -> tuple[Tensor, StreamState]:
    encoder, pattern = model.encoder, _pattern(model)
    index = torch.arange(frames.shape[1], device=frames.device)
    first = torch.tensor(state.frames, device=frames.device)[:, None]
    positions = first + index  # (B, n)
    real = None
    if min(counts) < frames.shape[1]:
        real = index < torch.tensor(counts, device=frames.device)[:, None]
    recorded = positions if real is None else positions.masked_fill(~real, NOTHING)
    cache = state.cache.extended(recorded, _spare(pattern, state))
    queries = Places(positions, real)
    seen = _seen(pattern, queries, cache)
    tables = encoder.rotary_tables(queries)
    outputs = Readout(encoder, model.config.averaged_blocks)
    x, total = encoder.project(frames), state.total
    if encoder.centring:
        x = x if real is None else x * real[..., None]
        x, total = running_centre(x, total, first[..., None])
    x = encoder.shift(x)
    for number, block in enumerate(encoder.blocks):
        query, key, value = block.attn.heads_of(block.norm1(x), tables)  # type: ignore[operator, union-attr]
        cache.write(number, key, value)
        x = x + block.attn.mix(attend_seen(query, cache.keys(number), cache.values(number), seen))  # type: ignore[operator, union-attr]
        x = x + block.mlp(block.norm2(x))  # type: ignore[operator]
        outputs.add(x)
    latents = outputs.mean()
    _check_latents(latents, real, state)
    next_frames = tuple(frame + count for frame, count in zip(state.frames, counts, strict=True))
    if pattern.window is not None:
        cache = cache.keeping(_kept(pattern, cache.positions, torch.tensor(next_frames, device=frames.device)))
    latents = latents if real is None else latents * real[..., None]
    return latents, replace(state, frames=next_frames, cache=cache, total=total)


def _seen(pattern: AttentionPattern, queries: Places, cache: Cache) -> Tensor | None:
    """(B, n, M) bool, or None where every query sees every column."""
    keys = Places(cache.positions, cache.positions != NOTHING)
    seen = opened(visible(pattern, queries, keys))
    return None if bool(seen.all()) else seen


def _spare(pattern: AttentionPattern, state: StreamState) -> int:
    """Free columns for the next buffers: enough that copies are rare, and bounded once the window is full."""
    return max(CHUNK, state.cache.positions.shape[1] if pattern.window is None else 0)


def _kept(pattern: AttentionPattern, positions: Tensor, next_frames: Tensor) -> Tensor:
    """(B, M) bool: what each stream's next frame or a later one can still see."""
    assert pattern.window is not None
    distance = next_frames[:, None] - positions
    kept = distance < pattern.window
    if pattern.stride is not None and pattern.memory is not None:
        kept |= (positions % pattern.stride == 0) & (distance < pattern.memory)
    return kept & (positions != NOTHING)


def _pattern(model: PJEPA) -> AttentionPattern:
    pattern = model.config.stream_attention
    if pattern is None or model.config.oracle:
        raise InputError(
            f"this model attends {model.config.attention} and has no live_attention: it cannot run on a stream"
        )
    return pattern


def _check_owner(model: PJEPA, state: StreamState) -> None:
    if state.owner() is model:
        return
    if state.config != model.config or state.weights != weights_signature(model):
        raise InputError("this state belongs to another model; begin with keystep.stream.init(model)")


def _check_blocks(state: StreamState, block: int) -> None:
    """Refuse to go on where a block was closed before its time: what follows would not be the offline latents."""
    for row, (frame, held) in enumerate(zip(state.frames, state.held, strict=True)):
        if frame % block and not held:
            raise InputError(
                f"stream {row} was finished at frame {frame}, in the middle of a block of {block}; go on from the "
                "state before finish, or reset the stream"
            )


def _check_latents(latents: Tensor, real: Tensor | None, state: StreamState) -> None:
    """Refuse what would stay in the keys and values and spoil every frame that comes."""
    finite = latents.isfinite().all(-1)
    if real is not None:
        finite = finite | ~real
    if not bool(finite.all()):
        row, frame = (~finite).nonzero()[0].tolist()
        raise InputError(
            f"frame {state.frames[row] + frame} of stream {row}, or one beside it, is so large that the model's "
            "numbers overflow; look for broken features"
        )


def _checked(model: PJEPA, chunk: Tensor, state: StreamState) -> Tensor:
    """The chunk on the model's device and in its precision."""
    _check_owner(model, state)
    expected = (state.waiting.shape[0], state.waiting.shape[2])
    if chunk.ndim != 3 or (chunk.shape[0], chunk.shape[2]) != expected:
        raise InputError(f"chunk has shape {tuple(chunk.shape)}; this stream takes ({expected[0]}, n, {expected[1]})")
    chunk = chunk.to(model.mask_token)  # first: what is finite in float64 need not be so in float32
    finite = chunk.isfinite().all(-1)
    if not bool(finite.all()):
        row, frame = (~finite).nonzero()[0].tolist()
        raise InputError(f"frame {state.frames[row] + state.held[row] + frame} of stream {row} holds NaN or infinity")
    return chunk
