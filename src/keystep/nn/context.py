"""Access of a network to the frames around its input: all of a video, or the past of a stream.

Encoder and heads are written once against `SequenceContext` and do not depend on its kind:

- `Whole`: all frames at once.
- `Cached`: the next frames of streams, with a `Memory` of the past as an immutable value that can be saved.
- `keystep.export.buffers.FixedBuffers`: the same with tensors of fixed size, for exported graphs.

State is identified by a name that is unique in its network: keys and values (`attend`), the last frames (`around`), and
other state of fixed size (`state`), such as a running sum or a recurrent memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from keystep.config.attention import AttentionPattern
from keystep.errors import InputError
from keystep.nn.attention import attend, attend_seen, opened, visible
from keystep.nn.cache import EMPTY, Cache
from keystep.nn.places import Places
from keystep.nn.rope import Rotation, Variant, rotary_tables

SPARE = 256
"""Free columns in new key buffers, which make copies rare; limited by the attention window."""

Initial = Callable[[], Tensor]
"""Creates the state before the first frame of a video, (B, ...)."""
Update = Callable[[Tensor], tuple[Tensor, Tensor]]
"""State before these frames -> (output of the network, state after these frames)."""


class SequenceContext:
    """Frames (B, n) that pass through a network together.

    Attributes:
        places: their positions in their videos.
        before: number of frames of each video before these, 0 or (B, 1, 1).
    """

    def __init__(self, places: Places, before: Tensor | int = 0) -> None:
        self.places, self.before = places, before
        self._padding = None if places.valid is None else ~places.valid[..., None]

    def clean(self, x: Tensor) -> Tensor:
        """Set padding of (B, n, D) to exactly zero."""
        return x if self._padding is None else x.masked_fill(self._padding, 0.0)

    def rotary(self, head_dim: int, variant: Variant = "relative", by_segment: bool = False) -> Rotation:
        """Rotary embedding of queries and keys (B, H, n, d) by frame, or by segment and frame within it.

        Raises:
            InputError: positions by segment without segments.
        """
        places = self.places
        if not by_segment:
            return rotary_tables(places.positions, head_dim, variant)
        if places.segments is None:
            raise InputError("positions by segment need segment_lengths, the true boundaries (ORACLE)")
        return rotary_tables(places.positions, head_dim, variant, places.segments, places.segment_frames)

    def attend(
        self, name: str, query: Tensor, key: Tensor, value: Tensor, pattern: AttentionPattern, stride: int = 1
    ) -> Tensor:
        """(B, H, n, d) attention within the pattern to the frames whose index is a multiple of ``stride``."""
        raise NotImplementedError

    def around(self, name: str, x: Tensor, before: int, after: int) -> Tensor:
        """(B, before + n + after, D): the frames with their neighbours, zero-padded at the ends of the video."""
        raise NotImplementedError

    def state(self, name: str, initial: Initial, update: Update) -> Tensor:
        """Update a state (B, ...) and return the output.

        Args:
            name: of the state.
            initial: creates the state before the first frame of a video.
            update: state -> (output, new state). It must not change the state at padding (see `clean`).
        """
        raise NotImplementedError


class Whole(SequenceContext):
    """All frames of a batch of videos; padding comes last."""

    def __init__(self, places: Places) -> None:
        super().__init__(places)
        self._strided: dict[int, Places] = {}

    def attend(
        self, name: str, query: Tensor, key: Tensor, value: Tensor, pattern: AttentionPattern, stride: int = 1
    ) -> Tensor:
        """See `SequenceContext`."""
        if stride == 1:
            return attend(query, key, value, pattern, self.places)
        if stride not in self._strided:  # cached, so that all layers share one plan
            self._strided[stride] = self.places[::stride]
        return attend(query, key[:, :, ::stride], value[:, :, ::stride], pattern, self.places, self._strided[stride])

    def around(self, name: str, x: Tensor, before: int, after: int) -> Tensor:
        """See `SequenceContext`."""
        return pad(x, (0, 0, before, after))

    def state(self, name: str, initial: Initial, update: Update) -> Tensor:
        """See `SequenceContext`."""
        return update(initial())[0]


class Continued(SequenceContext):
    """The next frames of streams. Earlier frames are available as named state; later ones are not available."""

    def around(self, name: str, x: Tensor, before: int, after: int) -> Tensor:
        """See `SequenceContext`."""
        assert after == 0, "a network with look-ahead cannot run on a stream"

        def update(past: Tensor) -> tuple[Tensor, Tensor]:
            known = torch.cat([past, x], dim=1)
            return known, self._last(known, before)

        return self.state(f"{name}.past", lambda: x.new_zeros(len(x), before, x.shape[2]), update)

    def _last(self, known: Tensor, count: int) -> Tensor:
        """The last valid frames of (B, count + n, D), (B, count, D), copied, because a view would keep all frames."""
        if self.places.valid is None:
            return known[:, known.shape[1] - count :].clone()
        index = self.places.valid.sum(1, keepdim=True) + torch.arange(count, device=known.device)
        return known.gather(1, index[..., None].expand(-1, -1, known.shape[2]))


class Kind(NamedTuple):
    """Identifies keys that share columns: those of every ``stride``-th frame, for queries with ``pattern``."""

    pattern: AttentionPattern
    stride: int


@dataclass(frozen=True, eq=False)
class Memory:
    """State of a network for a batch of streams, as an immutable value: it can be continued more than once.

    Attributes:
        caches: keys and values by kind.
        states: all other state, (B, ...) each.
    """

    caches: Mapping[Kind, Cache] = field(default_factory=dict)
    states: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Size of the memory, including free columns."""
        states = sum(tensor.numel() * tensor.element_size() for tensor in self.states.values())
        return states + sum(cache.size_bytes for cache in self.caches.values())

    def without(self, streams: Sequence[int]) -> Memory:
        """Forget the keys and values of some streams; their other state is reset at their first frame."""
        return Memory({kind: cache.without(streams) for kind, cache in self.caches.items()}, self.states)

    def reclaim(self, later: Memory) -> None:
        """Free the columns of a later memory that is no longer used."""
        for kind, cache in self.caches.items():
            cache.reclaim(later.caches[kind])


class _Columns(NamedTuple):
    """Columns shared by all layers of one kind.

    chosen: (m,) indices of the frames that become columns; None: all. seen: (B, n, M) bool; None: all visible.
    """

    cache: Cache
    chosen: Tensor | None
    seen: Tensor | None


class Cached(Continued):
    """The next frames of B streams, after those in a `Memory`.

    Args:
        memory: `remembered` of the previous context; empty before the first frame.
        frames: for each stream, the index of the first of these frames. Index 0 starts a new video.
        counts: for each stream, how many of the ``length`` frames are valid.
        length: number of frames, n.
        device: of the tensors.
    """

    def __init__(
        self, memory: Memory, frames: Sequence[int], counts: Sequence[int], length: int, device: torch.device
    ) -> None:
        index = torch.arange(length, device=device)
        first = torch.tensor(frames, device=device)[:, None]
        positions = first + index  # (B, n)
        real = None if min(counts) >= length else index < torch.tensor(counts, device=device)[:, None]
        super().__init__(Places(positions, real), before=first[..., None])
        self._begins = first == 0 if 0 in frames else None
        self._next = [frame + count for frame, count in zip(frames, counts, strict=True)]
        self._memory = memory
        self._columns: dict[Kind, _Columns] = {}
        self._states: dict[str, Tensor] = {}

    @property
    def remembered(self) -> Memory:
        """The memory after these frames."""
        if not self._columns:
            return Memory({}, self._states)
        following = torch.tensor(self._next, device=self.places.positions.device)[:, None]
        caches = {}
        for kind, (cache, _, _) in self._columns.items():
            kept = cache if kind.pattern.window is None else cache.keep(_kept(kind, cache.positions, following))
            caches[kind] = kept
        return Memory(caches, self._states)

    def attend(
        self, name: str, query: Tensor, key: Tensor, value: Tensor, pattern: AttentionPattern, stride: int = 1
    ) -> Tensor:
        """See `SequenceContext`."""
        kind = Kind(pattern, stride)
        if kind not in self._columns:
            self._columns[kind] = self._extend(kind)
        cache, chosen, seen = self._columns[kind]
        if chosen is not None:
            key, value = key.index_select(2, chosen), value.index_select(2, chosen)
        cache.write(name, key, value)
        return attend_seen(query, *cache.read(name), seen)

    def state(self, name: str, initial: Initial, update: Update) -> Tensor:
        """See `SequenceContext`."""
        before = self._memory.states.get(name)
        if before is None:
            before = initial()
        elif self._begins is not None:
            before = torch.where(self._begins.view(-1, *[1] * (before.ndim - 1)), initial(), before)
        out, self._states[name] = update(before)
        return out

    def _extend(self, kind: Kind) -> _Columns:
        """The columns of the earlier frames, followed by those of these frames."""
        pattern, stride = kind
        written, chosen = self.places.positions, None
        if self.places.valid is not None:
            written = written.masked_fill(~self.places.valid, EMPTY)
        if stride > 1:
            multiple = written % stride == 0  # False for EMPTY
            chosen = multiple.any(0).nonzero()[:, 0]
            written = written.masked_fill(~multiple, EMPTY).index_select(1, chosen)
        old = self._memory.caches.get(kind) or Cache.empty(len(written), written.device)
        cache = old.extend(written, _spare(kind, old.positions.shape[1]))
        seen = opened(visible(pattern, self.places, Places(cache.positions, cache.positions != EMPTY)))
        return _Columns(cache, chosen, None if bool(seen.all()) else seen)


def _spare(kind: Kind, columns: int) -> int:
    """Number of free columns for new buffers: limited by the window; without a window, buffers double."""
    pattern, stride = kind
    if pattern.window is None:
        return max(SPARE, columns)
    return SPARE if pattern.memory is not None else min(SPARE, pattern.window) // stride


def _kept(kind: Kind, positions: Tensor, following: Tensor) -> Tensor:
    """(B, M) bool: columns that the next frame of each stream, (B, 1) ``following``, or a later one can see."""
    pattern = kind.pattern
    assert pattern.window is not None
    distance = following - positions
    kept = distance < pattern.window
    if pattern.stride is not None and pattern.memory is not None:
        kept |= (positions % pattern.stride == 0) & (distance < pattern.memory)
    return kept & (positions != EMPTY)
