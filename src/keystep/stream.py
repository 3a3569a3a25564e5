"""Live encoding: a chunk of frames in, final latents out, with a state that the caller holds.

The state keeps the keys and values that later frames can still see, so each frame is computed once, whatever the
chunks; the latents are those of `PJEPA.encode` with the same attention. With a window, the state stops growing.
A causal model answers at once. A block-causal one answers when a block is complete: frames of the open block wait.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from keystep.errors import InputError
from keystep.nn.attention import AttentionPattern, attend
from keystep.nn.blocks import Readout
from keystep.nn.centring import running_centre
from keystep.nn.places import Places
from keystep.pjepa import PJEPA


@dataclass(frozen=True)
class StreamState:
    """All that a stream remembers between chunks. A value: `step` returns a new one and leaves the old one usable.

    frame: index of the next frame to encode.
    positions: (M,) int64, the frames whose keys and values are kept.
    layers: keys and values of each block, (B, H, M, d) each.
    waiting: (B, n, D_in) frames of the open block (block-causal models only).
    total: (B, D) float64 sum of the projected frames so far, for the running mean.
    """

    frame: int
    positions: Tensor
    layers: tuple[tuple[Tensor, Tensor], ...]
    waiting: Tensor
    total: Tensor

    @property
    def size_bytes(self) -> int:
        """Memory held by the state's tensors."""
        tensors = [self.positions, self.waiting, self.total, *(tensor for layer in self.layers for tensor in layer)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def init(model: PJEPA, batch_size: int = 1) -> StreamState:
    """The state before the first frame of ``batch_size`` streams that run in step.

    Raises:
        InputError: the model has no attention that does without the future.
    """
    _pattern(model)
    config, weight = model.config, model.mask_token
    assert config.input_dim is not None
    empty = weight.new_zeros(batch_size, config.heads, 0, config.dim // config.heads)
    return StreamState(
        frame=0,
        positions=torch.zeros(0, dtype=torch.int64, device=weight.device),
        layers=tuple((empty, empty) for _ in range(config.depth)),
        waiting=weight.new_zeros(batch_size, 0, config.input_dim),
        total=torch.zeros(batch_size, config.dim, dtype=torch.float64, device=weight.device),
    )


def step(model: PJEPA, chunk: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
    """Take the next frames, (B, n, D_in); return the latents that became final, (B, m, D), and the new state.

    ``m`` equals ``n`` for causal models; for block-causal ones it is a multiple of the block and may be 0. On an error
    the old state is still good.

    Raises:
        InputError: another batch size or width than the state's, or a frame that is not finite.
    """
    frames = torch.cat([state.waiting, _checked(model, chunk, state)], dim=1)
    block = _pattern(model).block or 1
    ready = frames.shape[1] // block * block
    return _advance(model, frames[:, :ready], frames[:, ready:], state)


def finish(model: PJEPA, state: StreamState) -> tuple[Tensor, StreamState]:
    """Encode what an open block still holds, as if the video ended here; (B, m, D) and the state behind it."""
    return _advance(model, state.waiting, state.waiting[:, :0], state)


@torch.no_grad()
def _advance(model: PJEPA, frames: Tensor, waiting: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
    """Run the encoder over ``frames`` (B, m, D_in), which follow on what the state remembers."""
    count = frames.shape[1]
    if count == 0:
        return frames.new_zeros(len(frames), 0, model.config.dim), replace(state, waiting=waiting)
    encoder, pattern = model.encoder, _pattern(model)
    new = torch.arange(state.frame, state.frame + count, device=frames.device)
    positions = torch.cat([state.positions, new])
    queries, keys = (Places(p.expand(len(frames), -1)) for p in (new, positions))
    kept = _kept(pattern, positions, state.frame + count)
    tables = encoder.rotary_tables(queries)
    outputs = Readout(encoder, model.config.averaged_blocks)
    layers = []
    x, total = encoder.project(frames), state.total
    if encoder.centring:
        x, total = running_centre(x, total, state.frame)
    x = encoder.shift(x)
    for block, (old_key, old_value) in zip(encoder.blocks, state.layers, strict=True):
        query, key, value = block.attn.heads_of(block.norm1(x), tables)  # type: ignore[operator, union-attr]
        key, value = torch.cat([old_key, key], dim=2), torch.cat([old_value, value], dim=2)
        x = x + block.attn.mix(attend(query, key, value, pattern, queries, keys))  # type: ignore[operator, union-attr]
        x = x + block.mlp(block.norm2(x))  # type: ignore[operator]
        outputs.add(x)
        layers.append((key[:, :, kept], value[:, :, kept]))
    return outputs.mean(), StreamState(state.frame + count, positions[kept], tuple(layers), waiting, total)


def _kept(pattern: AttentionPattern, positions: Tensor, next_frame: int) -> Tensor:
    """(M,) bool: what frame ``next_frame`` or a later one can still see."""
    if pattern.window is None:
        return torch.ones_like(positions, dtype=torch.bool)
    distance = next_frame - positions
    kept = distance < pattern.window
    if pattern.stride is not None and pattern.memory is not None:
        kept |= (positions % pattern.stride == 0) & (distance < pattern.memory)
    return kept


def _pattern(model: PJEPA) -> AttentionPattern:
    pattern = model.config.stream_attention
    if pattern is None or model.config.oracle:
        raise InputError(
            f"this model attends {model.config.attention} and has no live_attention: it cannot run on a stream"
        )
    return pattern


def _checked(model: PJEPA, chunk: Tensor, state: StreamState) -> Tensor:
    """The chunk on the model's device and in its precision."""
    expected = (state.waiting.shape[0], state.waiting.shape[2])
    if chunk.ndim != 3 or (chunk.shape[0], chunk.shape[2]) != expected:
        raise InputError(f"chunk has shape {tuple(chunk.shape)}; this stream takes ({expected[0]}, n, {expected[1]})")
    if not bool(chunk.isfinite().all()):
        frame = int((~chunk.isfinite().all(-1)).any(0).nonzero()[0])
        raise InputError(f"frame {state.frame + state.waiting.shape[1] + frame} holds NaN or infinity")
    return chunk.to(model.mask_token)
