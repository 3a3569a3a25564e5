"""What a head knows of the frames around those that it is given: the whole video, or what a stream remembers.

A head is written once. It asks its flow for the frames before, and for attention; offline these are there, on a stream
they come from a memory. So a stream gives the offline numbers by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from keystep.config.attention import AttentionPattern
from keystep.nn.attention import attend, attend_seen, opened, visible
from keystep.nn.places import Places, lay_out


class Flow(Protocol):
    """Frames (B, n) that go through a head together."""

    places: Places

    def clean(self, x: Tensor) -> Tensor:
        """(B, n, D) with exact zeros at padding, whatever stood there."""
        ...

    def around(self, x: Tensor, before: int, after: int) -> Tensor:
        """(B, before + n + after, D): zeros where the video has no frames."""
        ...

    def attend(self, query: Tensor, key: Tensor, value: Tensor, pattern: AttentionPattern, stride: int = 1) -> Tensor:
        """(B, H, n, d) attention to the frames whose index is a multiple of ``stride``, within the pattern."""
        ...


class Whole:
    """All frames of some videos, (B, T), real ones first; None: all are real."""

    def __init__(self, features: Tensor, valid: Tensor | None = None) -> None:
        if valid is not None and bool(valid.all()):
            valid = None
        shape = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device) if valid is None else valid
        self.places = Places(lay_out(shape).positions, valid)
        self._padding = None if valid is None else ~valid[..., None]
        self._strided: dict[int, Places] = {}

    def clean(self, x: Tensor) -> Tensor:
        """See `Flow`."""
        return x if self._padding is None else x.masked_fill(self._padding, 0.0)

    def around(self, x: Tensor, before: int, after: int) -> Tensor:
        """See `Flow`."""
        return pad(x, (0, 0, before, after))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, pattern: AttentionPattern, stride: int = 1) -> Tensor:
        """See `Flow`."""
        if stride == 1:
            return attend(query, key, value, pattern, self.places)
        if stride not in self._strided:  # kept, so that all layers share one plan
            self._strided[stride] = self.places[::stride]
        return attend(query, key[:, :, ::stride], value[:, :, ::stride], pattern, self.places, self._strided[stride])


class Continued:
    """The next frames of streams that run in step, behind what is remembered of the earlier ones.

    first: index of the first of them. carried: what the flow before left in its ``carry``; nothing at the start.
    """

    def __init__(self, features: Tensor, first: int, carried: Sequence[Tensor] = ()) -> None:
        self.first, self.count = first, features.shape[1]
        self.places = Places(torch.arange(first, first + self.count, device=features.device)[None])
        self.carry: list[Tensor] = []
        """What the next flow needs, in the order in which a head asks for it."""
        self._carried = list(carried)
        self._seen: dict[tuple[AttentionPattern, int, int], Tensor] = {}

    def clean(self, x: Tensor) -> Tensor:
        """See `Flow`; no frame of a stream is padding."""
        return x

    def around(self, x: Tensor, before: int, after: int) -> Tensor:
        """See `Flow`; nothing can be known of what comes after."""
        assert after == 0, "a head that looks ahead was given a stream"
        past = self._recall() if self._carried else x.new_zeros(len(x), before, x.shape[2])
        known = torch.cat([past, x], dim=1)
        self.carry.append(known[:, known.shape[1] - before :].clone())  # not a view that keeps all of it
        return known

    def attend(self, query: Tensor, key: Tensor, value: Tensor, pattern: AttentionPattern, stride: int = 1) -> Tensor:
        """See `Flow`."""
        assert pattern.window is not None, "the memory of a stream is bounded"
        fresh = slice(-self.first % stride, None, stride)
        keys, values = key[:, :, fresh], value[:, :, fresh]
        if self._carried:
            keys = torch.cat([self._recall(), keys], dim=2)
            values = torch.cat([self._recall(), values], dim=2)
        seen = self._visible(pattern, stride, keys.shape[2])
        last = (self.first + self.count - 1) // stride * stride  # index of the last key
        near = self.first + self.count - pattern.window  # a key has to be later to be seen by the next frame
        kept = min(keys.shape[2], max(0, (last - near + stride - 1) // stride))
        self.carry += [x[:, :, x.shape[2] - kept :].clone() for x in (keys, values)]
        return attend_seen(query, keys, values, seen)

    def _visible(self, pattern: AttentionPattern, stride: int, keys: int) -> Tensor:
        """(1, n, M) bool, worked out once for all layers."""
        name = (pattern, stride, keys)
        if name not in self._seen:
            last = (self.first + self.count - 1) // stride * stride
            positions = last - stride * torch.arange(keys - 1, -1, -1, device=self.places.positions.device)
            self._seen[name] = opened(visible(pattern, self.places, Places(positions[None])))
        return self._seen[name]

    def _recall(self) -> Tensor:
        return self._carried.pop(0)
