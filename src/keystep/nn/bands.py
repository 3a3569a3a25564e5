"""Fixed bands of a latent, which are computed from the features without learning, and the smoothed learned band.

A network can only preserve a frame, its surroundings and its past if a loss asks for it, and a linear probe on the
learned band would have to recover them. Held bands contain them explicitly. A probe can weight or drop each band
(`keystep.evals.probe`), for example the past if labels depend on the current frame only.

- ``frame``: the standardised features.
- ``around``: averages around the frame after subtracting the video's mean: over windows at offsets up to 7.2 tau, and
  exponential ones with half-lives up to 64 tau. Only before the frame if attention is causal.
- ``memory``: summary of the video up to and including this frame: the mean, the logarithms of the cumulative positive
  and negative parts (relative to the training mean), the maximum, and the logarithm of the time.
- ``ahead``: the same from the end of the video backwards, if attention is bidirectional.

``steady`` is the learned band averaged with a half-life of one tau (`Steady`), for probes of slowly changing labels.

In all held bands except ``frame``, wide features are reduced to their leading principal components. Everything is
computed from running sums in float64, so that streams give the same result for any chunking over hours.
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
"""Frames in a block of a scan; recursion levels if the number of frames is symbolic (in exported graphs)."""

Inside = Callable[[Tensor, int], Tensor]
"""Scan within a block: (items (N, n, H, C), frames between items) -> the result of each item and all before it."""
Join = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Combine (results of items, results of earlier items, frames in between). Earlier results of 0 have no effect."""

NAMES = ("frame", "around", "memory", "ahead")


def attention_scope(pattern: AttentionPattern) -> str:
    """``all`` or ``past``: which frames an attention pattern sees, as far as held bands depend on it."""
    return "all" if pattern.kind == "bidirectional" else "past"


class HeldBands(nn.Module):
    """Compute the held bands of the frames of a context: (B, n, D_in) -> (B, n, width) for each band."""

    basis: Tensor | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.tau is not None
        self.config, self.tau, width = config, config.tau, config.token_width
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
        """Compute the held bands that exist for an attention pattern.

        Args:
            features: (B, n, D_in).
            context: of these frames.
            pattern: attention of the encoder.
            visible: (B, n) bool, the frames that averages and sums use; None: all valid ones.
            names: the bands to compute.

        Returns:
            Band name -> (B, n, width).
        """
        frame = context.clean(self.norm(mean_token(features, self.norm.width)))
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
        """(B, n, averages x C), without the mean of the video (or of its frames so far); 0 if no frame is visible."""
        seen = marked[..., -2:-1]
        if pattern.kind == "bidirectional":
            sums = marked.sum(1, keepdim=True)
        else:
            sums = _scan_state(context, "around.sums", marked, _sums)
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
        """Exponentially weighted sums for each half-life, (B, n, C + 1): of past and, if visible, future frames."""
        half_lives = [self.tau * half_life for half_life in HALF_LIVES]
        sides = _averages_on_both_sides("around.averages", centred, context, pattern, half_lives)
        return [average for side in sides for average in side.unbind(2)]

    def _memory(self, marked: Tensor, context: SequenceContext) -> Tensor:
        """(B, n, 4 C + 1): summary of the past."""
        parts = _signed(marked)
        largest = _scan_state(context, "memory.largest", marked[..., :-2], _largest)
        return self._summarise(_scan_state(context, "memory.sums", parts, _sums), largest)

    def _ahead(self, marked: Tensor) -> Tensor:
        """(B, n, 4 C): summary of the future."""
        parts, frames = _signed(marked).flip(1), marked[..., :-2].flip(1)
        sums = _sums(parts, parts.new_zeros(len(parts), parts.shape[2]))
        largest = _largest(frames, frames.new_zeros(len(frames), frames.shape[2]))
        return self._summarise(sums, largest)[..., :-1].flip(1)

    def _summarise(self, sums: Tensor, largest: Tensor) -> Tensor:
        """(B, n, 4 C + 1) from the sums (B, n, 2 C + 2) and maxima (B, n, C) so far.

        If frames are hidden, sums are scaled to the total number of frames.
        """
        above, below = sums[..., :-2].chunk(2, dim=2)
        seen, frames = sums[..., -2:-1].clamp(min=1), sums[..., -1:].clamp(min=1)
        amounts = torch.log1p(sums[..., :-2] * (frames / seen / self.tau))
        return torch.cat([(above - below) / seen, amounts, largest, torch.log(frames / self.tau)], dim=2)


class Steady(nn.Module):
    """Exponential moving average of the learned band: (B, n, C) -> (B, n, C).

    The half-life is ``tau`` frames, over past frames and, if attention is bidirectional, future frames.
    """

    def __init__(self, tau: float) -> None:
        super().__init__()
        self.tau = tau

    def forward(self, learned: Tensor, context: SequenceContext, pattern: AttentionPattern) -> Tensor:
        """Average over the valid frames of the context."""
        marked = context.clean(torch.cat([learned, torch.ones_like(learned[..., :1])], dim=2)).double()
        sides = _averages_on_both_sides("steady", marked, context, pattern, [self.tau])
        weighted = sum(sides[1:], start=sides[0])[:, :, 0]
        return (weighted[..., :-1] / weighted[..., -1:].clamp(min=1e-9)).to(learned.dtype)


def _averages_on_both_sides(
    name: str, x: Tensor, context: SequenceContext, pattern: AttentionPattern, half_lives: Sequence[float]
) -> list[Tensor]:
    """Exponential averages (B, n, half-lives, C) of the frames so far and, if visible, of the future frames."""
    nothing = x.new_zeros(len(x), len(half_lives), x.shape[2])

    def averages(x: Tensor, state: Tensor) -> Tensor:
        return _averages(x, state, half_lives)

    sides = [_scan_state(context, name, x, averages, nothing)]
    if pattern.kind == "bidirectional":
        sides.append(averages(x.flip(1), nothing).flip(1))
    return sides


def _averages(x: Tensor, state: Tensor, half_lives: Sequence[float]) -> Tensor:
    """(B, n, half-lives, C) of ``y = a y + (1 - a) x`` from the initial y, (B, half-lives, C)."""
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


def _scan_state(
    context: SequenceContext,
    name: str,
    x: Tensor,
    advance: Callable[[Tensor, Tensor], Tensor],
    nothing: Tensor | None = None,
) -> Tensor:
    """Apply ``advance`` to frames (B, n, D) and the context's state, and store the last state.

    Args:
        context: holds the state.
        name: of the state.
        x: (B, n, D).
        advance: (frames, state before them) -> the state after each of them, (B, n, ...).
        nothing: the state before the first frame; None: zeros (B, D).

    Returns:
        The state after each frame, (B, n, ...).
    """
    initial = x.new_zeros(len(x), x.shape[2]) if nothing is None else nothing
    valid = context.places.valid

    def update(state: Tensor) -> tuple[Tensor, Tensor]:
        found = advance(x, state)
        if valid is None:
            return found, found[:, -1].clone()  # a view would keep all frames in memory
        states = torch.cat([state[:, None], found], dim=1)
        last = valid.sum(1).view(-1, *[1] * (found.ndim - 1)).expand(-1, 1, *found.shape[2:])
        return found, states.gather(1, last)[:, 0]

    return context.state(name, lambda: initial, update)


def _signed(marked: Tensor) -> Tensor:
    """(B, n, C + 2) frames with marks -> (B, n, 2 C + 2): positive parts, negative parts, marks."""
    frames = marked[..., :-2]
    return torch.cat([frames.clamp(min=0), -frames.clamp(max=0), marked[..., -2:]], dim=2)


def _sums(x: Tensor, state: Tensor) -> Tensor:
    """(B, n, D) cumulative sums, starting from (B, D)."""
    return x.cumsum(1) + state[:, None]


def _largest(x: Tensor, state: Tensor) -> Tensor:
    """(B, n, D) cumulative maxima (at least 0), starting from (B, D)."""

    def inside(places: Tensor, distance: int) -> Tensor:
        reach = 1  # by doubling, because graphs have no cumulative maximum
        while reach < (min(places.shape[1], PIECE) if isinstance(places.shape[1], int) else PIECE):
            places = torch.maximum(places, _earlier(places, reach))
            reach *= 2
        return places

    def join(here: Tensor, before: Tensor, frames: Tensor) -> Tensor:
        return torch.maximum(here, before)

    found = _scan(x.clamp(min=0)[:, :, None], inside, join)[:, :, 0]
    return torch.maximum(found, state[:, None])


def _scan(x: Tensor, inside: Inside, join: Join, distance: int = 1, levels: int = LEVELS) -> Tensor:
    """(B, n, H, C): cumulative results, with ``distance`` frames between items.

    Scans blocks of `PIECE` items, then recursively their totals; in graphs, the number of blocks is symbolic.
    """
    count = x.shape[1]
    if (count <= PIECE) if isinstance(count, int) else not levels:
        return inside(x, distance)
    pieces = (count + PIECE - 1) // PIECE
    if not isinstance(count, int):
        pieces = pieces + 1  # graphs would specialise on a number of blocks that may be 1
    whole = pad(x, (0, 0, 0, 0, 0, pieces * PIECE - count))
    within = inside(whole.reshape(len(x) * pieces, PIECE, *x.shape[2:]), distance)
    within = within.reshape(len(x), pieces, *within.shape[1:])
    before = _earlier(_scan(within[:, :, -1], inside, join, distance * PIECE, levels - 1), 1)
    return join(within, before[:, :, None], distance * _count(within[0])[..., None]).flatten(1, 2)[:, :count]


def _earlier(x: Tensor, places: int) -> Tensor:
    """(B, n, H, C): shift by ``places`` items towards later ones, filling with 0."""
    return pad(x, (0, 0, 0, 0, places, 0))[:, : x.shape[1]]


def _count(x: Tensor) -> Tensor:
    """For (B, n, ...): (n, 1) float64 with 1, 2, ..., n."""
    return torch.arange(1, x.shape[1] + 1, dtype=torch.float64, device=x.device)[:, None]
