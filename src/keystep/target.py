"""What frames should be predicted as, behind one interface.

Every target is a module without gradients: called with a batch it gives (B, T, K) floats, or class ids (B, T) or
(B, T, n), and after each optimiser step it may follow the encoder. Its state is saved with the training, never with
the model.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from keystep.batch import SequenceBatch
from keystep.config import TargetConfig
from keystep.config.attention import AttentionPattern
from keystep.config.times import averaged_frames, seconds
from keystep.data.statistics import Statistics, k_means, principal_components
from keystep.errors import InputError
from keystep.nn.centring import centre
from keystep.nn.encoder import Encoder
from keystep.nn.norm import ChannelNorm
from keystep.nn.over_time import averaged, shifted, smoothed, standardise_over_time
from keystep.nn.pooling import mean_token, split_tokens
from keystep.objectives import UNKNOWN, Shares
from keystep.plugins import TARGETS

TOKEN_COMPONENTS = 1024
"""Of all tokens of a frame together, so many numbers at most go into its principal components."""

LEAST_VARIANCE = 1e-6
"""A column of the targets that varies less never changes."""


TRIED = 8
"""Frames of the made-up video that a target from outside is tried on."""


class TargetKind(Protocol):
    """What makes a target: a class derived from `Target`.

    ids: whether it gives class ids instead of numbers. moves: whether it follows the encoder, so that what it gives of
    a video changes while the model trains.
    """

    ids: bool
    moves: bool

    def made(self, config: TargetConfig, encoder: Encoder, statistics: Statistics, seed: int) -> Target:
        """The target of a run.

        Args:
            config: settled.
            encoder: with its first weights.
            statistics: of the channels of the training videos, with a sample of their frames.
        """
        ...

    def width(self, config: TargetConfig, input_dim: int, dim: int) -> int:
        """How many numbers of one frame it gives, or how many classes there are.

        Args:
            input_dim: width of the features, all tokens of a slot together.
            dim: width of the encoder's blocks.
        """
        ...


class Target(nn.Module):
    """Base of the targets: nothing to train, nothing to follow.

    shares: what the last columns are where they are shares of clusters. ids, moves: see `TargetKind`.
    """

    shares: Shares | None = None
    ids: ClassVar[bool] = False
    moves: ClassVar[bool] = False

    def forward(self, batch: SequenceBatch, pattern: AttentionPattern) -> Tensor:
        """Targets at every frame, (B, T, K) float or (B, T[, n]) int64; what stands at padding means nothing."""
        raise AssertionError("a target says what it gives")

    def follow(self, encoder: Encoder, momentum: float) -> None:
        """Called after each optimiser step with the encoder as it now is."""

    def calibrate(self, batches: Iterable[SequenceBatch], pattern: AttentionPattern) -> None:
        """Called before training with whole videos, for what has to be measured of the targets themselves."""


class EmaTarget(Target):
    """Latents of a slow copy of the encoder that sees every valid frame (the paper's target).

    The copy attends with the same pattern as the encoder in that step, as the authors' code does.
    """

    moves = True

    @classmethod
    def made(cls, config: TargetConfig, encoder: Encoder, statistics: Statistics, seed: int) -> EmaTarget:
        """See `TargetKind`."""
        return cls(encoder, config)

    @staticmethod
    def width(config: TargetConfig, input_dim: int, dim: int) -> int:
        """See `TargetKind`."""
        return dim

    def __init__(self, encoder: Encoder, config: TargetConfig) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.layers, self.normalise = config.layers, config.normalise

    @torch.no_grad()
    def forward(self, batch: SequenceBatch, pattern: AttentionPattern) -> Tensor:
        """(B, T, D)"""
        latents: Tensor = self.encoder(batch, batch.valid, pattern, self.layers)
        if self.normalise == "frame":
            return functional.layer_norm(latents, latents.shape[-1:])
        if self.normalise == "time":
            return standardise_over_time(latents, batch.valid)
        return latents

    @torch.no_grad()
    def follow(self, encoder: Encoder, momentum: float) -> None:
        """``copy += (1 - momentum) * (encoder - copy)``; the parts that are not trained are equal anyway."""
        for own, new in zip(self.encoder.parameters(), encoder.parameters(), strict=True):
            own.lerp_(new.detach().to(own.dtype), 1 - momentum)


class FeatureTarget(Target):
    """The standardised input itself, smoothed and reduced if asked for.

    Of a frame with several tokens, all of them side by side, not their mean: what one token shows is nearly lost in
    the mean, and what is not in the target teaches no pooler where to look (benchmarks/results/pooling.md).
    """

    basis: Tensor | None

    @classmethod
    def made(cls, config: TargetConfig, encoder: Encoder, statistics: Statistics, seed: int) -> FeatureTarget:
        """See `TargetKind`."""
        return cls(statistics, encoder.centring, config.smooth, config.components)

    @staticmethod
    def width(config: TargetConfig, input_dim: int, dim: int) -> int:
        """See `TargetKind`."""
        return feature_width(config, input_dim)

    def __init__(self, statistics: Statistics, centring: bool, smooth: int, components: int | None = None) -> None:
        super().__init__()
        self.norm, self.centring, self.smooth = channel_norm(statistics), centring, smooth
        reduced = components is not None and components < statistics.input_dim
        self.register_buffer("basis", _principal(statistics, components) if reduced else None)  # type: ignore[arg-type]

    @torch.no_grad()
    def forward(self, batch: SequenceBatch, pattern: AttentionPattern) -> Tensor:
        """(B, T, D_in or components), centred over each crop's valid frames if the model's input is; padding is 0."""
        frames = self.standardised(batch.features.float())
        frames = frames.masked_fill(~batch.valid[..., None], 0.0)  # padding may hold NaN
        if self.centring:
            frames = centre(frames, batch.valid)
        if self.basis is not None:
            frames = frames @ self.basis
        return frames if self.smooth == 1 else smoothed(frames, batch.valid, self.smooth)

    def standardised(self, features: Tensor) -> Tensor:
        """(B, T, D_in), each token by itself."""
        return self.norm(split_tokens(features, self.norm.width)).flatten(-2)  # type: ignore[no-any-return]


class ClusterTarget(FeatureTarget):
    """The k-means cluster of each standardised input frame, an id in 0..K-1 (as HuBERT does for speech).

    Of a frame with several tokens, that of their mean.
    """

    centres: Tensor
    ids = True

    @classmethod
    def made(cls, config: TargetConfig, encoder: Encoder, statistics: Statistics, seed: int) -> ClusterTarget:
        """See `TargetKind`."""
        return cls(statistics, encoder.centring, config.smooth, config.clusters, seed)

    @staticmethod
    def width(config: TargetConfig, input_dim: int, dim: int) -> int:
        """See `TargetKind`."""
        return config.clusters

    def __init__(self, statistics: Statistics, centring: bool, smooth: int, clusters: int, seed: int) -> None:
        super().__init__(statistics, centring, smooth)
        sample = (_one_token(statistics).sample - statistics.mean) / statistics.deviation
        self.register_buffer("centres", torch.from_numpy(k_means(sample, clusters, seed)))

    @torch.no_grad()
    def forward(self, batch: SequenceBatch, pattern: AttentionPattern) -> Tensor:
        """(B, T) int64"""
        frames = super().forward(batch, pattern)  # (B, T, D)
        # argmin of |x - c|^2 = |c|^2 - 2 x.c + const, without a (B, T, K, D) tensor
        return (self.centres.square().sum(-1) - 2 * frames @ self.centres.T).argmin(-1)

    def standardised(self, features: Tensor) -> Tensor:
        """(B, T, D), the mean token."""
        return self.norm(mean_token(features, self.norm.width))  # type: ignore[no-any-return]


class ClusterShares(Target):
    """The cluster of each frame as shares, which can be averaged: 1 for its own, 0 for the others."""

    def __init__(self, clusters: ClusterTarget) -> None:
        super().__init__()
        self.clusters = clusters

    @torch.no_grad()
    def forward(self, batch: SequenceBatch, pattern: AttentionPattern) -> Tensor:
        """(B, T, clusters)"""
        return functional.one_hot(self.clusters(batch, pattern), len(self.clusters.centres)).float()


class WithShares(Target):
    """A target of floats, and behind it the shares of clusters at the same offsets."""

    def __init__(self, first: Target, second: Target, shares: Shares) -> None:
        super().__init__()
        self.first, self.second, self.shares = first, second, shares

    @torch.no_grad()
    def forward(self, batch: SequenceBatch, pattern: AttentionPattern) -> Tensor:
        """(B, T, K + offsets x clusters), NaN where unknown."""
        return torch.cat([self.first(batch, pattern), self.second(batch, pattern)], dim=-1)

    def calibrate(self, batches: Iterable[SequenceBatch], pattern: AttentionPattern) -> None:
        self.first.calibrate(batches, pattern)


class Neighbourhood(Target):
    """What stands around each frame: a target's averages at several times before and after it, side by side.

    Each is averaged over a width of its own, and divided by a deviation that `calibrate` measures, so that all count
    alike: averages over long times vary little. Unknown where there is no such frame in the crop.
    """

    deviation: Tensor

    def __init__(self, target: Target, shifts: Sequence[int], widths: Sequence[int], columns: int) -> None:
        """columns: numbers of all shifts together, 1 for class ids."""
        super().__init__()
        self.target, self.shifts, self.widths = target, tuple(shifts), tuple(widths)
        self.register_buffer("deviation", torch.ones(columns))

    @torch.no_grad()
    def forward(self, batch: SequenceBatch, pattern: AttentionPattern) -> Tensor:
        """(B, T, shifts x K) float, NaN where unknown, or (B, T, shifts) int64, -100 where unknown."""
        single: Tensor = self.target(batch, pattern)
        if not single.is_floating_point():
            single = single if single.ndim == 3 else single[..., None]
            single = single.masked_fill(~batch.valid[..., None], UNKNOWN)
            return torch.cat([shifted(single, shift, UNKNOWN) for shift in self.shifts], dim=-1)
        sums = nn.functional.pad(single.double().masked_fill(~batch.valid[..., None], 0.0).cumsum(1), (0, 0, 1, 0))
        parts = [
            averaged(sums, batch.valid, shift, width) for shift, width in zip(self.shifts, self.widths, strict=True)
        ]
        return torch.cat(parts, dim=-1).to(single.dtype) / self.deviation

    @torch.no_grad()
    def calibrate(self, batches: Iterable[SequenceBatch], pattern: AttentionPattern) -> None:
        """Measure the deviation of each column; one that never changes keeps 1."""
        total, squares, count = (torch.zeros(3, len(self.deviation), dtype=torch.float64)).unbind(0)
        for batch in batches:
            targets = self(batch, pattern).flatten(0, 1).double().cpu()
            known = ~targets.isnan()
            targets = targets.nan_to_num(0.0)
            total, squares, count = total + targets.sum(0), squares + targets.square().sum(0), count + known.sum(0)
        variance = squares / count.clamp(min=1) - (total / count.clamp(min=1)).square()
        deviation = torch.where(variance > LEAST_VARIANCE, variance.clamp(min=0).sqrt(), 1.0)
        self.deviation.copy_(deviation * self.deviation.cpu())

    def follow(self, encoder: Encoder, momentum: float) -> None:
        self.target.follow(encoder, momentum)


def build_target(
    config: TargetConfig, encoder: Encoder, statistics: Statistics, seed: int, rate: float | Fraction
) -> Target:
    """The target that a settled config asks for, for features at ``rate`` frames a second.

    Raises:
        InputError: there is none of that name, or one from outside does not give what it says.
    """
    kind = TARGETS.find(config.kind)
    target: Target = kind.made(config, encoder, statistics, seed)
    width = kind.width(config, statistics.input_dim, encoder.norm.normalized_shape[0])
    if config.kind not in TARGETS.own:
        _try(target, config.kind, width, statistics.input_dim)
    if not config.has_shares:
        return around(target, config, width, rate)
    clusters = ClusterTarget.made(config, encoder, statistics, seed)
    second = around(ClusterShares(clusters), config, config.clusters, rate)
    shares = Shares(len(shifts_of(config.offsets, rate)), config.clusters, config.cluster_weight)
    return WithShares(around(target, config, width, rate), second, shares)


def _try(target: Target, kind: str, width: int, input_dim: int) -> None:
    """Refuse a target that gives other shapes or types than it says."""
    features = torch.randn(1, TRIED, input_dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found: object = target(SequenceBatch.pad([features[0]]), AttentionPattern())
    shape = (1, TRIED) if target.ids else (1, TRIED, width)
    if isinstance(found, Tensor) and found.shape == shape and found.is_floating_point() != target.ids:
        return
    what = f"{tuple(found.shape)} {found.dtype}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
    wanted = f"{shape} {'int64 class ids' if target.ids else 'numbers'}"
    raise InputError(f"target {kind}: gave {what} for features (1, {TRIED}, {input_dim}); expected {wanted}")


def around(target: Target, config: TargetConfig, width: int, rate: float | Fraction) -> Target:
    """A target of ``width`` numbers, or of class ids, at the offsets of a settled config; itself for (0,)."""
    shifts = shifts_of(config.offsets, rate)
    if shifts == (0,):
        return target
    widths = [averaged_frames(config.spread * abs(shift)) for shift in shifts]
    return Neighbourhood(target, shifts, widths, 1 if target.ids else width * len(shifts))


def prediction_width(config: TargetConfig, input_dim: int, dim: int, rate: float | Fraction) -> int | None:
    """How many numbers a frame's prediction has; None where it is one latent, which needs no map of its own."""
    count = len(shifts_of(config.offsets, rate))
    if config.kind == "ema" and count == 1:
        return None
    width: int = TARGETS.find(config.kind).width(config, input_dim, dim)
    return (width + config.clusters * config.has_shares) * count


def feature_width(config: TargetConfig, input_dim: int) -> int:
    """How many numbers of one frame a ``features`` target has."""
    return min(input_dim, config.components or input_dim)


def shifts_of(offsets: Sequence[float | str], rate: float | Fraction) -> tuple[int, ...]:
    """Settled offsets, in seconds, as frames, each once, rising."""
    return tuple(sorted({round(seconds(offset, None) * float(rate)) for offset in offsets}))


def set_statistics(encoder: Encoder, statistics: Statistics) -> None:
    """Give an encoder what was measured of the training videos."""
    if isinstance(encoder.proj[0], ChannelNorm):
        encoder.proj[0] = channel_norm(statistics)
    if encoder.held is not None:
        level = statistics.mean if statistics.level is None else statistics.level
        encoder.held.norm = channel_norm(replace(statistics, mean=level))
        if encoder.held.basis is not None:
            encoder.held.basis.copy_(_principal(_one_token(statistics), encoder.held.basis.shape[1]))


def channel_norm(statistics: Statistics) -> ChannelNorm:
    """A `ChannelNorm` set to measured statistics."""
    norm = ChannelNorm(len(statistics.mean))
    norm.mean.copy_(torch.from_numpy(statistics.mean))
    norm.deviation.copy_(torch.from_numpy(statistics.deviation))
    return norm


def _one_token(statistics: Statistics) -> Statistics:
    """The same with a sample of the means of the frames' tokens, (N, D)."""
    return replace(statistics, sample=mean_token(torch.from_numpy(statistics.sample), len(statistics.mean)).numpy())


def _principal(statistics: Statistics, components: int) -> Tensor:
    """(D_in, components): the leading principal components of standardised frames, scaled to a mean variance of 1.

    Where a frame has many wide tokens, those of what the leading components of single tokens keep of it.
    """
    sample, width, deviation = statistics.sample, len(statistics.mean), statistics.deviation
    tokens = statistics.input_dim // width
    kept = min(width, max(1, TOKEN_COMPONENTS // tokens))
    if tokens == 1 or kept == width:
        values, vectors = _leading(sample, np.tile(deviation, tokens), components)
    else:
        _, own = _leading(sample.reshape(-1, width), deviation, kept)  # (D, kept)
        reduced = (sample.reshape(-1, tokens, width) / deviation) @ own.astype(np.float32)  # (N, tokens, kept)
        values, vectors = _leading(reduced.reshape(len(sample), -1), np.float32(1), components)
        vectors = np.einsum("dk,tkc->tdc", own, vectors.reshape(tokens, kept, -1)).reshape(tokens * width, -1)
    return torch.from_numpy((vectors / np.sqrt(max(values.mean(), 1e-12))).astype(np.float32))


def _leading(rows: np.ndarray, deviation: np.ndarray | np.float32, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Variances (count,) and directions (D, count) of the leading principal components of (N, D) / deviation."""
    parts = np.array_split(rows, len(rows) // 4096 + 1)  # the whole sample in float64 would take gigabytes
    values, vectors = principal_components(parts, rows.mean(0), deviation)
    return values[:count], vectors[:, :count]
