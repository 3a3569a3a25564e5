"""Bands of a latent that hold what is known, beside the one that is learned.

A linear reader of the learned band alone would have to find the frame itself and all that has been in it again, and
what a network keeps of them it keeps with losses. Held bands keep them as they are; a reader weighs each band by itself
(`keystep.evals.probe`), so that where labels are a matter of the moment the others do no harm.

- ``frame``: the standardised features.
- ``near``: averages around the frame, or before it where attention sees no future, at up to 7.2 tau.
- ``memory``: what has been so far: exponential averages at eight half-lives, logarithms of the sums above and below the
  mean, the largest value, and the logarithm of the time.
- ``ahead``: the same from the end of the video backwards, where attention sees it.

In all but ``frame``, wide features are reduced to their leading principal components.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from keystep.config import ModelConfig
from keystep.config.attention import AttentionPattern
from keystep.config.run import HALF_LIVES
from keystep.nn.centring import centre, running_centre
from keystep.nn.context import SequenceContext
from keystep.nn.norm import ChannelNorm
from keystep.nn.pooling import mean_token

SCANNED = 64
"""Frames whose averages are computed by one matrix product."""


class HeldBands(nn.Module):
    """Features of the frames of a context -> the held bands of a config, (B, n, D_in) -> (B, n, width) each."""

    basis: Tensor | None
    decays: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.input_dim is not None and config.tau is not None
        self.config, self.tokens, self.tau = config, config.slot_tokens, config.tau
        width = config.input_dim // self.tokens
        self.norm = ChannelNorm(width)
        reduced = config.held_components < width
        self.register_buffer("basis", torch.zeros(width, config.held_components) if reduced else None)
        half_lives = torch.tensor(HALF_LIVES, dtype=torch.float64) * self.tau
        self.register_buffer("decays", 0.5 ** (1 / half_lives))

    def forward(self, features: Tensor, context: SequenceContext, pattern: AttentionPattern) -> list[Tensor]:
        """The held bands that the config names for this attention, in its order."""
        frame = context.clean(self.norm(mean_token(features, self.tokens)))
        parts = frame if self.basis is None else frame @ self.basis
        made = {"near": self._near, "memory": self._memory, "ahead": self._ahead}
        return [
            frame if name == "frame" else made[name](parts, context, pattern).to(features.dtype)
            for name in self.config.widths(pattern)
            if name != "context"
        ]

    def _near(self, x: Tensor, context: SequenceContext, pattern: AttentionPattern) -> Tensor:
        """(B, n, offsets x C): averages over half their distance, of the frames that exist; 0 where there are none."""
        offsets = self.config.near_frames(pattern)
        before = max(offset_width // 2 - shift for shift, offset_width in offsets)
        after = max(shift + (width - 1) // 2 for shift, width in offsets)
        if pattern.kind == "bidirectional":
            x = centre(x, context.places.valid)
        else:
            after = 0
            real = x
            x = context.state(
                "near.total",
                lambda: torch.zeros(len(real), real.shape[2], dtype=torch.float64, device=real.device),
                lambda total: running_centre(real, total, context.before),
            )
        x = context.clean(x)
        ones = context.clean(torch.ones_like(x[..., :1]))
        around = context.around("near", torch.cat([x, ones], dim=2), before, after).double()
        sums = nn.functional.pad(around.cumsum(1), (0, 0, 1, 0))  # (B, 1 + before + n + after, C + 1)
        parts = []
        for shift, width in offsets:
            start = before + shift - width // 2
            total = sums[:, start + width : start + width + x.shape[1]] - sums[:, start : start + x.shape[1]]
            parts.append(total[..., :-1] / total[..., -1:].clamp(min=1))
        return torch.cat(parts, dim=2)

    def _memory(self, x: Tensor, context: SequenceContext, pattern: AttentionPattern) -> Tensor:
        """(B, n, 11 C + 1): what has been, this frame included."""
        valid, frames = context.places.valid, context.before + _count(x)
        names = ("averages", "sums", "largest")
        initial = self._nothing(x)
        found = {}
        for name, first, update in zip(names, initial, (self._averages, _sums, _largest), strict=True):

            def advanced(state: Tensor, update=update) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
                out = update(x.double(), state)
                return out, _last(out, state, valid)

            found[name] = context.state(f"memory.{name}", lambda first=first: first, advanced)  # type: ignore[misc]
        return self._described(found["averages"], found["sums"], found["largest"], frames)

    def _ahead(self, x: Tensor, context: SequenceContext, pattern: AttentionPattern) -> Tensor:
        """(B, n, 11 C): what is still to come, this frame included."""
        backwards = _reversed(x, context.places.valid).double()
        averages, sums, largest = self._nothing(x)
        found = self._described(
            self._averages(backwards, averages), _sums(backwards, sums), _largest(backwards, largest), _count(x)
        )
        return _reversed(found[..., :-1], context.places.valid)

    def _nothing(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The states before the first frame: (B, half-lives, C), (B, 2, C) and (B, 1, C), float64."""
        shape = (len(x), len(HALF_LIVES), x.shape[2])
        averages = torch.zeros(shape, dtype=torch.float64, device=x.device)
        return averages, averages[:, :2].clone(), averages[:, :1].clone()

    def _averages(self, x: Tensor, state: Tensor) -> Tensor:
        """(B, n, half-lives, C) of ``y = a y + (1 - a) x``, from the y before."""
        parts = []
        for piece in torch.split(x, SCANNED, dim=1):
            count = torch.arange(piece.shape[1], device=x.device)
            age = count[:, None] - count  # (n, n)
            decays = self.decays[:, None, None]
            weights = torch.where(age >= 0, (1 - decays) * decays ** age.clamp(min=0), 0.0)  # (half-lives, n, n)
            kept = self.decays[:, None] ** (count + 1)  # (half-lives, n)
            found = torch.einsum("hij,bjc->bihc", weights, piece) + torch.einsum("hi,bhc->bihc", kept, state)
            state = found[:, -1]
            parts.append(found)
        return torch.cat(parts, dim=1)

    def _described(self, averages: Tensor, sums: Tensor, largest: Tensor, frames: Tensor) -> Tensor:
        """(B, n, 11 C + 1) of the states behind each frame, and how many frames there were until then, (..., n, 1)."""
        weight = 1 - self.decays**frames  # of all frames so far, (..., n, half-lives)
        columns = [averages / weight[..., None], torch.log1p(sums / self.tau), largest]
        clock = torch.log(frames / self.tau).expand(*averages.shape[:2], 1)
        return torch.cat([torch.cat(columns, dim=2).flatten(2), clock], dim=2)


def _count(x: Tensor) -> Tensor:
    """(n, 1) float64: 1, 2, ..., n."""
    return torch.arange(1, x.shape[1] + 1, dtype=torch.float64, device=x.device)[:, None]


def _sums(x: Tensor, state: Tensor) -> Tensor:
    """(B, n, 2, C): sums above and below 0 so far."""
    return torch.stack([x.clamp(min=0), -x.clamp(max=0)], dim=2).cumsum(1) + state[:, None]


def _largest(x: Tensor, state: Tensor) -> Tensor:
    """(B, n, 1, C): the largest value so far, 0 at least. By doubling, as graphs have no running maximum."""
    reach = 1
    while reach < x.shape[1]:
        x = torch.cat([x[:, :reach], torch.maximum(x[:, reach:], x[:, :-reach])], dim=1)
        reach *= 2
    return torch.maximum(x[:, :, None], state[:, None])


def _last(found: Tensor, state: Tensor, valid: Tensor | None) -> Tensor:
    """(B, ...) behind the last frame that is real, of (B, n, ...) behind each; the state before where none is."""
    if valid is None:
        return found[:, -1]
    everything = torch.cat([state[:, None], found], dim=1)
    index = valid.sum(1).view(-1, *[1] * (found.ndim - 1))
    return everything.gather(1, index.expand(-1, 1, *found.shape[2:]))[:, 0]


def _reversed(x: Tensor, valid: Tensor | None) -> Tensor:
    """(B, n, C) with each row's real frames, which come first, in reverse; what is at padding stays there."""
    if valid is None:
        return x.flip(1)
    index = torch.arange(x.shape[1], device=x.device).expand(valid.shape)
    mirrored = valid.sum(1, keepdim=True) - 1 - index
    return x.gather(1, torch.where(valid, mirrored, index)[..., None].expand_as(x))
