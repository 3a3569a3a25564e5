"""What frames should be predicted as, behind one interface.

Every target is a module without gradients: called with a batch it gives (B, T, K) floats, or class ids (B, T) or
(B, T, n), and after each optimiser step it may follow the encoder. Its state is saved with the training, never with
the model.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from keystep.batch import SequenceBatch
from keystep.config import TargetConfig
from keystep.config.attention import AttentionPattern
from keystep.data.statistics import Statistics, principal_components
from keystep.nn.centring import centre
from keystep.nn.encoder import ChannelNorm, Encoder
from keystep.nn.pooling import mean_token, split_tokens
from keystep.objectives import UNKNOWN

TOKEN_COMPONENTS = 1024
"""Of all tokens of a frame together, so many numbers at most go into its principal components."""


class Target(nn.Module):
    """Base of the targets: nothing to train, nothing to follow."""

    def forward(self, batch: SequenceBatch, pattern: AttentionPattern) -> Tensor:
        """Targets at every frame, (B, T, K) float or (B, T[, n]) int64; what stands at padding means nothing."""
        raise AssertionError("a target says what it gives")

    def follow(self, encoder: Encoder, momentum: float) -> None:
        """Called after each optimiser step with the encoder as it now is."""


class EmaTarget(Target):
    """Latents of a slow copy of the encoder that sees every valid frame (the paper's target).

    The copy attends with the same pattern as the encoder in that step, as the authors' code does.
    """

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
            return _standardise_over_time(latents, batch.valid)
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

    def __init__(
        self, statistics: Statistics, centring: bool, smooth: int, components: int | None = None, tokens: int = 1
    ) -> None:
        super().__init__()
        self.norm, self.centring, self.smooth, self.tokens = channel_norm(statistics), centring, smooth, tokens
        reduced = components is not None and components < tokens * len(statistics.mean)
        self.register_buffer("basis", _principal(statistics, components, tokens) if reduced else None)  # type: ignore[arg-type]

    @torch.no_grad()
    def forward(self, batch: SequenceBatch, pattern: AttentionPattern) -> Tensor:
        """(B, T, D_in or components), centred over each crop's valid frames if the model's input is; padding is 0."""
        frames = self.standardised(batch.features.float())
        frames = frames.masked_fill(~batch.valid[..., None], 0.0)  # padding may hold NaN
        if self.centring:
            frames = centre(frames, batch.valid)
        if self.basis is not None:
            frames = frames @ self.basis
        return frames if self.smooth == 1 else _smoothed(frames, batch.valid, self.smooth)

    def standardised(self, features: Tensor) -> Tensor:
        """(B, T, D_in), each token by itself."""
        return self.norm(split_tokens(features, self.tokens)).flatten(-2)  # type: ignore[no-any-return]


class ClusterTarget(FeatureTarget):
    """The k-means cluster of each standardised input frame, an id in 0..K-1 (as HuBERT does for speech).

    Of a frame with several tokens, that of their mean.
    """

    centres: Tensor

    def __init__(
        self, statistics: Statistics, centring: bool, smooth: int, clusters: int, seed: int, tokens: int = 1
    ) -> None:
        super().__init__(statistics, centring, smooth, tokens=tokens)
        sample = mean_token(torch.from_numpy(statistics.sample), tokens).numpy()
        sample = (sample - statistics.mean) / statistics.deviation
        self.register_buffer("centres", torch.from_numpy(_k_means(sample, clusters, seed)))

    @torch.no_grad()
    def forward(self, batch: SequenceBatch, pattern: AttentionPattern) -> Tensor:
        """(B, T) int64"""
        frames = super().forward(batch, pattern)  # (B, T, D)
        # argmin of |x - c|^2 = |c|^2 - 2 x.c + const, without a (B, T, K, D) tensor
        return (self.centres.square().sum(-1) - 2 * frames @ self.centres.T).argmin(-1)

    def standardised(self, features: Tensor) -> Tensor:
        """(B, T, D), the mean token."""
        return self.norm(mean_token(features, self.tokens))  # type: ignore[no-any-return]


class Neighbourhood(Target):
    """What stands around each frame: a target's averages over several widths, at several frames before and after it.

    Side by side, and unknown where there is no such frame in the crop.
    """

    def __init__(self, target: Target, shifts: Sequence[int], widths: Sequence[int] = (1,)) -> None:
        super().__init__()
        self.target, self.shifts, self.widths = target, tuple(shifts), tuple(widths)

    @torch.no_grad()
    def forward(self, batch: SequenceBatch, pattern: AttentionPattern) -> Tensor:
        """(B, T, widths x shifts x K) float, NaN where unknown, or (B, T, shifts) int64, -100 where unknown."""
        single: Tensor = self.target(batch, pattern)
        unknown: float = float("nan") if single.is_floating_point() else UNKNOWN
        if single.ndim == 2:
            single = single[..., None]
        parts = []
        for width in self.widths:
            targets = single if width == 1 else _smoothed(single, batch.valid, width)
            targets = targets.masked_fill(~batch.valid[..., None], unknown)
            parts += [_shifted(targets, shift, unknown) for shift in self.shifts]
        return torch.cat(parts, dim=-1)

    def follow(self, encoder: Encoder, momentum: float) -> None:
        self.target.follow(encoder, momentum)


def build_target(
    config: TargetConfig, encoder: Encoder, statistics: Statistics, seed: int, rate: float | Fraction
) -> Target:
    """The target that a config asks for, for features at ``rate`` frames a second."""
    if config.kind == "ema":
        target: Target = EmaTarget(encoder, config)
    elif config.kind == "features":
        target = FeatureTarget(statistics, encoder.centring, config.smooth, config.components, encoder.tokens)
    else:
        target = ClusterTarget(statistics, encoder.centring, config.smooth, config.clusters, seed, encoder.tokens)
    shifts = shifts_of(config.offsets, rate)
    return target if (shifts, config.scales) == ((0,), (1,)) else Neighbourhood(target, shifts, config.scales)


def prediction_width(config: TargetConfig, input_dim: int, dim: int, rate: float | Fraction) -> int | None:
    """How many numbers a frame's prediction has; None where it is one latent, which needs no map of its own."""
    count = len(shifts_of(config.offsets, rate)) * len(config.scales)
    if config.kind == "ema":
        return None if count == 1 else dim * count
    return (feature_width(config, input_dim) if config.kind == "features" else config.clusters) * count


def feature_width(config: TargetConfig, input_dim: int) -> int:
    """How many numbers of one frame a ``features`` target has."""
    return min(input_dim, config.components or input_dim)


def shifts_of(offsets: Sequence[float], rate: float | Fraction) -> tuple[int, ...]:
    """Offsets in seconds as frames, each once, rising."""
    return tuple(sorted({round(seconds * float(rate)) for seconds in offsets}))


def channel_norm(statistics: Statistics) -> ChannelNorm:
    """A `ChannelNorm` set to measured statistics."""
    norm = ChannelNorm(len(statistics.mean))
    norm.mean.copy_(torch.from_numpy(statistics.mean))
    norm.deviation.copy_(torch.from_numpy(statistics.deviation))
    return norm


def _shifted(targets: Tensor, shift: int, unknown: float) -> Tensor:
    """(B, T, K): at each frame the target ``shift`` frames later, or ``unknown``."""
    length = targets.shape[1]
    shift = max(-length, min(length, shift))
    moved = targets.roll(-shift, dims=1)
    if shift > 0:
        moved[:, length - shift :] = unknown
    elif shift < 0:
        moved[:, :-shift] = unknown
    return moved


def _principal(statistics: Statistics, components: int, tokens: int = 1) -> Tensor:
    """(D_in, components): the leading principal components of standardised frames, scaled to a mean variance of 1.

    Where a frame has many wide tokens, those of what the leading components of single tokens keep of it.
    """
    sample, width, deviation = statistics.sample, len(statistics.mean), statistics.deviation
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


def _smoothed(frames: Tensor, valid: Tensor, width: int) -> Tensor:
    """(B, T, D) averages over ``width`` frames around each, of those that are valid; zeros stay at padding."""

    def sums(x: Tensor) -> Tensor:
        return functional.avg_pool1d(x.transpose(1, 2), width, stride=1, padding=width // 2).transpose(1, 2)

    weight = valid[..., None].to(frames.dtype)
    return sums(frames * weight) / sums(weight).clamp(min=1e-6) * weight


def _standardise_over_time(latents: Tensor, valid: Tensor) -> Tensor:
    """Each channel to mean 0 and deviation 1 over a video's valid frames."""
    weight = valid[..., None].float()
    count = weight.sum(1, keepdim=True).clamp(min=1)
    centred = (latents - (latents * weight).sum(1, keepdim=True) / count) * weight
    return centred / (centred.square().sum(1, keepdim=True) / count + 1e-5).sqrt()


def _k_means(sample: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """(K, D_in) float32 centres."""
    from sklearn.cluster import MiniBatchKMeans

    from keystep.errors import InputError

    if len(sample) < clusters:
        raise InputError(f"{len(sample)} frames cannot make {clusters} clusters; set target.clusters lower")
    fitted = MiniBatchKMeans(clusters, random_state=seed, n_init=3, batch_size=4096).fit(sample)
    centres: np.ndarray = fitted.cluster_centers_.astype(np.float32)
    return centres
