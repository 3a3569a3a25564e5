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

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from keystep.config import ModelConfig
from keystep.config.attention import AttentionPattern
from keystep.config.run import HALF_LIVES
from keystep.nn.centring import centre, running_centre
from keystep.nn.context import SequenceContext
from keystep.nn.norm import ChannelNorm
from keystep.nn.pooling import mean_token

PARTS = [len(HALF_LIVES), 2, 1]
"""Of the memory: averages, sums above and below 0, the largest."""
PIECE, LEVELS = 64, 4
"""Places that are scanned at once, and how often pieces are made of pieces where a graph leaves their number open."""

Join = Callable[[Tensor, Tensor, Tensor | int], Tensor]
"""What stands at a place, what stands so many frames before it, that number -> both together. 0 adds nothing."""


class HeldBands(nn.Module):
    """Features of the frames of a context -> the held bands of a config, (B, n, D_in) -> (B, n, width) each."""

    basis: Tensor | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.input_dim is not None and config.tau is not None
        self.config, self.tokens, self.tau = config, config.slot_tokens, config.tau
        width = config.input_dim // self.tokens
        self.norm = ChannelNorm(width)
        reduced = config.held_components < width
        self.register_buffer("basis", torch.zeros(width, config.held_components) if reduced else None)

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
        before = max(width // 2 - shift for shift, width in offsets)
        after = max(shift + width // 2 for shift, width in offsets)
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
        sums = pad(around.cumsum(1), (0, 0, 1, 0))  # (B, 1 + before + n + after, C + 1)
        parts = []
        for shift, width in offsets:
            start = before + shift - width // 2
            total = sums[:, start + width : start + width + x.shape[1]] - sums[:, start : start + x.shape[1]]
            parts.append(total[..., :-1] / total[..., -1:].clamp(min=1))
        return torch.cat(parts, dim=2)

    def _memory(self, x: Tensor, context: SequenceContext, pattern: AttentionPattern) -> Tensor:
        """(B, n, 11 C + 1): what has been, this frame included."""

        def advanced(state: Tensor) -> tuple[Tensor, Tensor]:
            found = self._until(x, state)
            return found, _last(found, state, context.places.valid)

        found = context.state("memory", lambda: self._nothing(x), advanced)
        frames = context.before + _count(x)
        clock = torch.log(frames / self.tau).expand(len(x), -1, 1)
        return torch.cat([self._described(found, frames), clock], dim=2)

    def _ahead(self, x: Tensor, context: SequenceContext, pattern: AttentionPattern) -> Tensor:
        """(B, n, 11 C): what is still to come, this frame included."""
        backwards = _reversed(x, context.places.valid)
        found = self._described(self._until(backwards, self._nothing(x)), _count(x))
        return _reversed(found, context.places.valid)

    def _nothing(self, x: Tensor) -> Tensor:
        """The state before the first frame, (B, 11, C) float64, see `PARTS`."""
        return torch.zeros(len(x), sum(PARTS), x.shape[2], dtype=torch.float64, device=x.device)

    def _until(self, x: Tensor, state: Tensor) -> Tensor:
        """(B, n, 11, C): the state behind each frame."""
        x, count = x.double()[:, :, None], _count(x)[..., None]
        decays = self._decays(x)[:, None]

        def decayed(here: Tensor, before: Tensor, frames: Tensor | int) -> Tensor:
            return here + decays**frames * before

        def largest(here: Tensor, before: Tensor, frames: Tensor | int) -> Tensor:
            return torch.maximum(here, before)

        averages, sums, most = torch.split(state[:, None], PARTS, dim=2)
        parts = [
            decayed(_scan((1 - decays) * x, decayed), averages, count),
            torch.cat([x.clamp(min=0), -x.clamp(max=0)], dim=2).cumsum(1) + sums,
            largest(_scan(x.clamp(min=0), largest), most, count),
        ]
        return torch.cat(parts, dim=2)

    def _described(self, found: Tensor, frames: Tensor) -> Tensor:
        """(B, n, 11 C) of the states behind each frame, and how many frames there were until then, (..., n, 1)."""
        averages, sums, most = torch.split(found, PARTS, dim=2)
        weight = 1 - self._decays(found) ** frames  # of all frames so far, (..., n, half-lives)
        return torch.cat([averages / weight[..., None], torch.log1p(sums / self.tau), most], dim=2).flatten(2)

    def _decays(self, like: Tensor) -> Tensor:
        """(half-lives,) float64, whatever the precision of the model: what an average keeps from frame to frame."""
        half_lives = torch.tensor(HALF_LIVES, dtype=torch.float64, device=like.device) * self.tau
        return torch.exp2(-1 / half_lives)


def _count(x: Tensor) -> Tensor:
    """(n, 1) float64: 1, 2, ..., n."""
    return torch.arange(1, x.shape[1] + 1, dtype=torch.float64, device=x.device)[:, None]


def _scan(x: Tensor, join: Join, distance: int = 1, levels: int = LEVELS) -> Tensor:
    """(B, n, H, C): at each place what ``join`` makes of all until there, places being ``distance`` frames apart.

    By doubling within pieces, and then over the pieces: graphs have neither decaying sums nor running maxima, and do
    not know n.
    """
    count = x.shape[1]
    if (count <= PIECE) if isinstance(count, int) else not levels:
        return _doubled(x, join, distance)
    pieces = (count + PIECE - 1) // PIECE
    whole = pad(x, (0, 0, 0, 0, 0, pieces * PIECE - count))
    within = _doubled(whole.reshape(len(x) * pieces, PIECE, *x.shape[2:]), join, distance)
    within = within.reshape(len(x), pieces, PIECE, *x.shape[2:])
    before = _earlier(_scan(within[:, :, -1], join, distance * PIECE, levels - 1), 1)
    frames = distance * torch.arange(1, PIECE + 1, dtype=x.dtype, device=x.device)[:, None, None]
    return join(within, before[:, :, None], frames).flatten(1, 2)[:, :count]


def _doubled(x: Tensor, join: Join, distance: int) -> Tensor:
    """`_scan` of up to `PIECE` places."""
    reach = 1
    while reach < (min(x.shape[1], PIECE) if isinstance(x.shape[1], int) else PIECE):
        x = join(x, _earlier(x, reach), reach * distance)
        reach *= 2
    return x


def _earlier(x: Tensor, places: int) -> Tensor:
    """(B, n, H, C): at each place what stands so many places before, 0 where there is none."""
    return pad(x, (0, 0, 0, 0, places, 0))[:, : x.shape[1]]


def _last(found: Tensor, state: Tensor, valid: Tensor | None) -> Tensor:
    """(B, ...) behind the last frame that is real, of (B, n, ...) behind each; the state before where none is."""
    if valid is None:
        return found[:, -1].clone()  # not a view that keeps all of them
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
