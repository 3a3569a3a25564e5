"""Bands of a latent beside the one that is learned: those that hold what is known, and the learned one at rest.

What a network keeps of a frame, its surroundings and its past, it keeps with losses, and a linear reader of the learned
band alone would have to find them again. Held bands keep them as they are. A reader chooses which bands it reads
(`keystep.evals.probe`), so that where labels are a matter of the moment it can leave the others out.

- ``frame``: the standardised features.
- ``around``: averages around the frame, without the video's mean: over windows at up to 7.2 tau, and exponential ones
  with half-lives of up to 64 tau. Before the frame alone where attention sees no future.
- ``memory``: what has been so far, this frame included: the mean, the logarithms of the sums above and below the mean
  of the training videos, the largest value, and the logarithm of the time.
- ``ahead``: the same from the end of the video backwards, where attention sees it.

``steady`` is the learned band averaged with a half-life of one tau, so that a reader need not follow each of its frames
(`Steady`).

In all held bands but ``frame``, wide features are reduced to their leading principal components. All of it is computed
from running sums in float64, so a stream gives the same at any chunking, for hours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from keystep.config import ModelConfig
from keystep.config.attention import AttentionPattern
from keystep.config.model import HALF_LIVES
from keystep.nn.context import SequenceContext
from keystep.nn.norm import ChannelNorm
from keystep.nn.pooling import mean_token

PIECE, LEVELS = 64, 4
"""Places that are scanned at once, and how often pieces are made of pieces where a graph leaves their number open."""

Inside = Callable[[Tensor, int], Tensor]
"""Places (N, n, H, C) so many frames apart -> what stands at each of them and all before."""
Join = Callable[[Tensor, Tensor, Tensor], Tensor]
"""What stands at places, what stands so many frames before them, that number -> both together. 0 adds nothing."""

NAMES = ("frame", "around", "memory", "ahead")


def sees(pattern: AttentionPattern) -> str:
    """Which frames of a video an attention sees, as far as it changes the held bands."""
    return "all" if pattern.kind == "bidirectional" else "past"


class HeldBands(nn.Module):
    """Features of the frames of a context -> held bands, (B, n, D_in) -> (B, n, width) each."""

    basis: Tensor | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.input_dim is not None and config.tau is not None
        self.config, self.tokens, self.tau = config, config.slot_tokens, config.tau
        width = config.input_dim // self.tokens
        self.norm = ChannelNorm(width)
        reduced = config.held_components < width
        self.register_buffer("basis", torch.zeros(width, config.held_components) if reduced else None)

    def forward(
        self,
        features: Tensor,
        context: SequenceContext,
        pattern: AttentionPattern,
        visible: Tensor | None = None,
        names: Collection[str] = NAMES,
    ) -> dict[str, Tensor]:
        """The held bands that there are with this attention, by name.

        Args:
            visible: (B, n) bool, the frames that averages and sums are made of; None: all real ones.
            names: those that are wanted.
        """
        frame = context.clean(self.norm(mean_token(features, self.tokens)))
        parts = frame if self.basis is None else frame @ self.basis
        real = context.clean(torch.ones_like(frame[..., :1]))
        seen = real
        if visible is not None:
            parts, seen = (x.masked_fill(~visible[..., None], 0.0) for x in (parts, seen))
        marked = torch.cat([parts, seen, real], dim=2).double()  # (B, n, C + 2)
        made = {
            "frame": lambda: frame,
            "around": lambda: self._around(marked, context, pattern),
            "memory": lambda: self._memory(marked, context),
            "ahead": lambda: self._ahead(marked),
        }
        wanted = (name for name in self.config.widths(pattern) if name in names)
        return {name: made[name]().to(features.dtype) for name in wanted}

    def _around(self, marked: Tensor, context: SequenceContext, pattern: AttentionPattern) -> Tensor:
        """(B, n, averages x C), without the mean of the video, or of its frames so far; 0 where no frame is seen."""
        seen = marked[..., -2:-1]
        if pattern.kind == "bidirectional":
            sums = marked.sum(1, keepdim=True)
        else:
            sums = _carried(context, "around.sums", marked, _sums)
        centred = (marked[..., :-2] - sums[..., :-2] / sums[..., -2:-1].clamp(min=1)) * seen
        centred = torch.cat([centred, seen], dim=2)  # (B, n, C + 1)
        found = [*self._windows(centred, context, pattern), *self._exponential(centred, context, pattern)]
        return torch.cat([part[..., :-1] / part[..., -1:].clamp(min=1e-9) for part in found], dim=2)

    def _windows(self, centred: Tensor, context: SequenceContext, pattern: AttentionPattern) -> list[Tensor]:
        """Sums over each window, (B, n, C + 1)."""
        windows = self.config.windows(pattern)
        before = max(width // 2 - shift for shift, width in windows)
        after = max(0, *(shift + width // 2 for shift, width in windows))
        around = context.around("around", centred, before, after)
        sums = pad(around.cumsum(1), (0, 0, 1, 0))  # (B, 1 + before + n + after, C + 1)
        length, found = centred.shape[1], []
        for shift, width in windows:
            start = before + shift - width // 2
            found.append(sums[:, start + width : start + width + length] - sums[:, start : start + length])
        return found

    def _exponential(self, centred: Tensor, context: SequenceContext, pattern: AttentionPattern) -> list[Tensor]:
        """Weighted sums at each half-life, (B, n, C + 1), before the frame and, where it is seen, behind it."""
        half_lives = [self.tau * half_life for half_life in HALF_LIVES]
        sides = _averages_on_both_sides("around.averages", centred, context, pattern, half_lives)
        return [average for side in sides for average in side.unbind(2)]

    def _memory(self, marked: Tensor, context: SequenceContext) -> Tensor:
        """(B, n, 4 C + 1): what has been."""
        parts = _signed(marked)
        largest = _carried(context, "memory.largest", marked[..., :-2], _largest)
        return self._described(_carried(context, "memory.sums", parts, _sums), largest)

    def _ahead(self, marked: Tensor) -> Tensor:
        """(B, n, 4 C): what is still to come."""
        parts, frames = _signed(marked).flip(1), marked[..., :-2].flip(1)
        sums = _sums(parts, parts.new_zeros(len(parts), parts.shape[2]))
        largest = _largest(frames, frames.new_zeros(len(frames), frames.shape[2]))
        return self._described(sums, largest)[..., :-1].flip(1)

    def _described(self, sums: Tensor, largest: Tensor) -> Tensor:
        """(B, n, 4 C + 1) of the sums (B, n, 2 C + 2) and the largest values (B, n, C) so far.

        Sums are those of as many frames as there were, also where some are hidden.
        """
        above, below = sums[..., :-2].chunk(2, dim=2)
        seen, frames = sums[..., -2:-1].clamp(min=1), sums[..., -1:].clamp(min=1)
        amounts = torch.log1p(sums[..., :-2] * (frames / seen / self.tau))
        return torch.cat([(above - below) / seen, amounts, largest, torch.log(frames / self.tau)], dim=2)


class Steady(nn.Module):
    """The learned band, averaged: (B, n, C) of the frames of a context -> (B, n, C).

    Exponentially with a half-life of ``tau`` frames, before the frame and, where attention sees it, behind it.
    """

    def __init__(self, tau: float) -> None:
        super().__init__()
        self.tau = tau

    def forward(self, learned: Tensor, context: SequenceContext, pattern: AttentionPattern) -> Tensor:
        """Averages over the real frames of the context."""
        marked = context.clean(torch.cat([learned, torch.ones_like(learned[..., :1])], dim=2)).double()
        sides = _averages_on_both_sides("steady", marked, context, pattern, [self.tau])
        weighted = sum(sides[1:], start=sides[0])[:, :, 0]
        return (weighted[..., :-1] / weighted[..., -1:].clamp(min=1e-9)).to(learned.dtype)


def _averages_on_both_sides(
    name: str, x: Tensor, context: SequenceContext, pattern: AttentionPattern, half_lives: Sequence[float]
) -> list[Tensor]:
    """Exponential averages (B, n, half-lives, C) of the frames so far and, where they are seen, of those to come."""
    nothing = x.new_zeros(len(x), len(half_lives), x.shape[2])

    def averages(x: Tensor, state: Tensor) -> Tensor:
        return _averages(x, state, half_lives)

    sides = [_carried(context, name, x, averages, nothing)]
    if pattern.kind == "bidirectional":
        sides.append(averages(x.flip(1), nothing).flip(1))
    return sides


def _averages(x: Tensor, state: Tensor, half_lives: Sequence[float]) -> Tensor:
    """(B, n, half-lives, C) of ``y = a y + (1 - a) x``, from the y before, (B, half-lives, C)."""
    decays = (0.5 ** (1 / torch.tensor(half_lives, dtype=torch.float64, device=x.device)))[:, None]

    def inside(places: Tensor, distance: int) -> Tensor:
        count = _count(places)[:, 0]
        age = count[:, None] - count  # (n, n)
        powers = decays[..., None] ** (distance * age.clamp(min=0))  # (half-lives, n, n)
        weights = torch.where(age >= 0, powers, 0.0)
        return (weights @ places.transpose(1, 2)).transpose(1, 2)

    def join(here: Tensor, before: Tensor, frames: Tensor) -> Tensor:
        return here + decays**frames * before

    found = (1 - decays) * _scan(x[:, :, None], inside, join)
    return join(found, state[:, None], _count(x)[..., None])


def _carried(
    context: SequenceContext,
    name: str,
    x: Tensor,
    advance: Callable[[Tensor, Tensor], Tensor],
    nothing: Tensor | None = None,
) -> Tensor:
    """What ``advance`` makes of frames (B, n, D) and the state before them: the state behind each of them, (B, n, ...).

    nothing: the state before the first frame; None: zeros (B, D).
    """
    initial = x.new_zeros(len(x), x.shape[2]) if nothing is None else nothing
    valid = context.places.valid

    def update(state: Tensor) -> tuple[Tensor, Tensor]:
        found = advance(x, state)
        if valid is None:
            return found, found[:, -1].clone()  # not a view that keeps all of them
        states = torch.cat([state[:, None], found], dim=1)
        last = valid.sum(1).view(-1, *[1] * (found.ndim - 1)).expand(-1, 1, *found.shape[2:])
        return found, states.gather(1, last)[:, 0]

    return context.state(name, lambda: initial, update)


def _signed(marked: Tensor) -> Tensor:
    """(B, n, C + 2) frames with their marks -> (B, n, 2 C + 2): what is above 0, what is below it, the marks."""
    frames = marked[..., :-2]
    return torch.cat([frames.clamp(min=0), -frames.clamp(max=0), marked[..., -2:]], dim=2)


def _sums(x: Tensor, state: Tensor) -> Tensor:
    """(B, n, D) sums so far, from those before, (B, D)."""
    return x.cumsum(1) + state[:, None]


def _largest(x: Tensor, state: Tensor) -> Tensor:
    """(B, n, D) largest values so far, 0 at least, from those before, (B, D)."""

    def inside(places: Tensor, distance: int) -> Tensor:
        reach = 1  # by doubling: graphs have no running maximum
        while reach < (min(places.shape[1], PIECE) if isinstance(places.shape[1], int) else PIECE):
            places = torch.maximum(places, _earlier(places, reach))
            reach *= 2
        return places

    def join(here: Tensor, before: Tensor, frames: Tensor) -> Tensor:
        return torch.maximum(here, before)

    found = _scan(x.clamp(min=0)[:, :, None], inside, join)[:, :, 0]
    return torch.maximum(found, state[:, None])


def _scan(x: Tensor, inside: Inside, join: Join, distance: int = 1, levels: int = LEVELS) -> Tensor:
    """(B, n, H, C): at each place what there is until then, places being ``distance`` frames apart.

    Within pieces, and then over the pieces, of which a graph does not know how many there are.
    """
    count = x.shape[1]
    if (count <= PIECE) if isinstance(count, int) else not levels:
        return inside(x, distance)
    pieces = (count + PIECE - 1) // PIECE
    if not isinstance(count, int):
        pieces = pieces + 1  # an empty one: a graph takes a number that may be 1 for one that always is
    whole = pad(x, (0, 0, 0, 0, 0, pieces * PIECE - count))
    within = inside(whole.reshape(len(x) * pieces, PIECE, *x.shape[2:]), distance)
    within = within.reshape(len(x), pieces, *within.shape[1:])
    before = _earlier(_scan(within[:, :, -1], inside, join, distance * PIECE, levels - 1), 1)
    return join(within, before[:, :, None], distance * _count(within[0])[..., None]).flatten(1, 2)[:, :count]


def _earlier(x: Tensor, places: int) -> Tensor:
    """(B, n, H, C): at each place what stands so many places before, 0 where there is none."""
    return pad(x, (0, 0, 0, 0, places, 0))[:, : x.shape[1]]


def _count(x: Tensor) -> Tensor:
    """Of (B, n, ...), (n, 1) float64: 1, 2, ..., n."""
    return torch.arange(1, x.shape[1] + 1, dtype=torch.float64, device=x.device)[:, None]
