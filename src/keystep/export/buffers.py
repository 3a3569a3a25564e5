"""Sequence contexts for exported graphs, with real-valued operations that every runtime supports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from keystep.config.attention import AttentionPattern
from keystep.export.columns import Columns
from keystep.nn.context import Continued, Initial, Kind, SequenceContext, Update
from keystep.nn.pattern import opened, visible
from keystep.nn.places import Places
from keystep.nn.rope import RealRotation, Rotation, Variant


@dataclass(frozen=True)
class StateTensor:
    """A state tensor that the caller keeps between calls, initialised to zero.

    Attributes:
        name: in the context.
        shape: with the streams first.
        shareable: the new value may overwrite the old one, because the step reads it nowhere else.
        kind: of its keys or values; None for other state.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    shareable: bool = False
    kind: Kind | None = None

    def initial(self) -> Tensor:
        """The value before the first frame."""
        return torch.zeros(self.shape, dtype=self.dtype)


class Rotations(nn.ModuleDict):
    """`RealRotation` modules by head width, as part of the program."""

    def get(self, head_dim: int, variant: Variant, by_segment: bool) -> RealRotation:
        """The rotation for this width, created on first use."""
        assert not by_segment, "exported graphs do not support true segments"
        name = f"{variant}_{head_dim}"
        if name not in self:
            self[name] = RealRotation(head_dim, variant)
        rotation = self[name]
        assert isinstance(rotation, RealRotation)
        return rotation


class FixedBuffers(Continued):
    """The next ``frames`` frames of streams, with memory of fixed size: the equivalent of `Cached` for graphs.

    Args:
        frame: (B,) index of each stream's next frame. Index 0 starts a new video.
        frames: number of frames.
        rotations: shared by all calls.
        state: name -> ``after`` of the previous call. None: collect the state tensors in ``declared``.
    """

    def __init__(
        self, frame: Tensor, frames: int, rotations: Rotations, state: Mapping[str, Tensor] | None = None
    ) -> None:
        positions = frame[:, None] + torch.arange(frames)  # (B, n)
        super().__init__(Places(positions), before=frame[:, None, None])
        self.declared: list[StateTensor] = []
        self.after: dict[str, Tensor] = {}
        self._frames, self._rotations, self._state = frames, rotations, state
        self._begins = frame == 0
        self._columns: dict[Kind, tuple[Columns, Tensor, Tensor, Tensor]] = {}

    def rotary(self, head_dim: int, variant: Variant = "relative", by_segment: bool = False) -> Rotation:
        """See `SequenceContext`."""
        return self._rotations.get(head_dim, variant, by_segment)(self.places.positions)  # type: ignore[no-any-return]

    def attend(
        self, name: str, query: Tensor, key: Tensor, value: Tensor, pattern: AttentionPattern, stride: int = 1
    ) -> Tensor:
        """See `SequenceContext`."""
        kind = Kind(pattern, stride)
        if kind not in self._columns:
            columns = Columns(pattern, self._frames, stride)
            positions = self.places.positions
            self._columns[kind] = (columns, *columns.writes(positions), _hiding(columns.seen(positions)))
        columns, source, target, hiding = self._columns[kind]
        for part, new in (("keys", key), ("values", value)):
            shape = (new.shape[0], new.shape[1], columns.count, new.shape[3])
            before = self._before(StateTensor(f"{part}.{name}", shape, torch.float32, True, kind))
            self.after[f"{part}.{name}"] = _write(before, new, source, target)
        return plain_attention(query, self.after[f"keys.{name}"], self.after[f"values.{name}"], hiding)

    def state(self, name: str, initial: Initial, update: Update) -> Tensor:
        """See `SequenceContext`."""
        first = initial()
        before = self._before(StateTensor(name, tuple(first.shape), first.dtype))
        begins = self._begins.view(-1, *[1] * (first.ndim - 1))
        out, self.after[name] = update(torch.where(begins, first, before))
        return out

    def _before(self, tensor: StateTensor) -> Tensor:
        if self._state is not None:
            return self._state[tensor.name]
        self.declared.append(tensor)
        return tensor.initial()


class WholeGraph(SequenceContext):
    """All ``frames`` frames of one video: the equivalent of `Whole` for graphs. Attention is T x T."""

    def __init__(self, frames: int, rotations: Rotations) -> None:
        super().__init__(Places(torch.arange(frames)[None]))
        self._rotations = rotations
        self._hiding: dict[Kind, Tensor] = {}

    def rotary(self, head_dim: int, variant: Variant = "relative", by_segment: bool = False) -> Rotation:
        """See `SequenceContext`."""
        return self._rotations.get(head_dim, variant, by_segment)(self.places.positions)  # type: ignore[no-any-return]

    def attend(
        self, name: str, query: Tensor, key: Tensor, value: Tensor, pattern: AttentionPattern, stride: int = 1
    ) -> Tensor:
        """See `SequenceContext`."""
        kind = Kind(pattern, stride)
        if kind not in self._hiding:
            self._hiding[kind] = _hiding(
                opened(visible(pattern, self.places, Places(self.places.positions[:, ::stride])))
            )
        return plain_attention(query, key[:, :, ::stride], value[:, :, ::stride], self._hiding[kind])

    def around(self, name: str, x: Tensor, before: int, after: int) -> Tensor:
        """See `SequenceContext`."""
        return pad(x, (0, 0, before, after))

    def state(self, name: str, initial: Initial, update: Update) -> Tensor:
        """See `SequenceContext`."""
        return update(initial())[0]


def plain_attention(query: Tensor, keys: Tensor, values: Tensor, hiding: Tensor) -> Tensor:
    """Softmax attention with basic operations, (B, H, n, d) over (B, H, M, d). hiding: -inf where invisible, else 0."""
    scores = (query * query.shape[-1] ** -0.5) @ keys.transpose(-1, -2) + hiding
    attended: Tensor = scores.softmax(-1) @ values
    return attended


def _hiding(seen: Tensor) -> Tensor:
    """Visibility (B, n, M) bool -> (B, 1, n, M), 0 or -inf."""
    return torch.zeros(()).masked_fill(~seen, float("-inf"))[:, None]


def _write(buffer: Tensor, new: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """The buffer (B, H, M, d) with the columns (B, H, n, d) of this call written to it."""
    streams, heads, frames, width = new.shape
    if source.shape[1] > frames or frames > 1:
        new = new.gather(2, source[:, None, :, None].expand(-1, heads, -1, width))
    return buffer.scatter(2, target[:, None, :, None].expand(streams, heads, -1, width), new)
