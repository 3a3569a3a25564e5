"""Linear probe: how well one affine map of a frame predicts its label from a frozen representation.

The probe is ridge regression onto one-hot classes, which has a closed-form solution. If the columns form bands, each
band has its own strength. Strengths and penalty are selected by accuracy on the validation videos. A temperature on the
scores, which does not change the predictions, calibrates the probabilities. Test videos are not used here.

Multinomial logistic regression is as good on narrow representations and worse on wide ones: with more than a thousand
columns it overfits to the training persons (docs/LOG.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from keystep.data.annotation import IGNORED
from keystep.data.statistics import ChannelMoments
from keystep.errors import InputError
from keystep.evals.strengths import Moments, Search, Strengths, column_scales
from keystep.heads.linear import Affine, LinearHead, linear_head

Array = npt.NDArray[Any]

Penalties = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]

_ROWS = 1_024
"""Frames that are standardised at a time."""


class ProbeConfig(BaseModel):
    """Settings of the probe, which is deterministic."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    penalties: Penalties = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
    """Candidate L2 penalties in decreasing order: factors of the squared weights in the mean squared error."""
    choice_frames: Count = 20_000
    """Number of evenly spaced labelled training frames for selecting strengths and controls."""

    @field_validator("penalties")
    @classmethod
    def _falling(cls, penalties: tuple[float, ...]) -> tuple[float, ...]:
        if list(penalties) != sorted(set(penalties), reverse=True):
            raise ValueError(f"penalties {penalties} must be strictly decreasing")
        return penalties


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A fitted probe for unstandardised representations; the standardisation is folded into the weights."""

    weight: npt.NDArray[np.float32]  # (D, C)
    bias: npt.NDArray[np.float32]  # (C,)
    penalty: float
    valid_accuracy: float
    """Accuracy (0-100) over all labelled validation frames."""
    strengths: Mapping[str, float] = field(default_factory=dict)
    """Band -> its strength, 0 if dropped; empty without bands."""
    at_edge: bool = False
    """Whether the penalty is the first or last of several candidates, so that others may be better."""

    def scores(self, latents: Array) -> npt.NDArray[np.float32]:
        """(T, D) -> (T, C) unnormalised log-probabilities.

        Raises:
            InputError: another width than in training, or NaN or infinite values.
        """
        frames = _validate_frames(latents, "the latents")
        if frames.shape[1] != len(self.weight):
            raise InputError(f"the probe expects width {len(self.weight)}, but the latents have {frames.shape[1]}")
        return np.asarray(frames @ self.weight + self.bias, dtype=np.float32)

    def head(self, names: Sequence[str] = (), origin: Mapping[str, str] | None = None) -> LinearHead:
        """The probe as a head, which can be saved and run on a stream."""
        steps = Affine(torch.from_numpy(self.weight).T.contiguous(), torch.from_numpy(self.bias))
        return linear_head(steps, names=tuple(names), origin=origin or {})

    def predict(self, latents: Array) -> npt.NDArray[np.int64]:
        """(T, D) -> (T,) class ids."""
        return np.asarray(self.scores(latents).argmax(axis=1), dtype=np.int64)


def fit_probe(
    train: Sequence[Array],
    train_labels: Sequence[Array],
    valid: Sequence[Array],
    valid_labels: Sequence[Array],
    *,
    classes: int,
    config: ProbeConfig | None = None,
    refine: bool = True,
    bands: Mapping[str, int] | None = None,
    chosen: Mapping[str, float] | None = None,
) -> LinearProbe:
    """Fit a probe for each penalty on the training videos and return the best one on the validation videos.

    Args:
        train, valid: (T_i, D) array for each video.
        train_labels, valid_labels: (T_i,) integer array for each video, -100 for unlabelled frames. A class may have no
            training frames.
        classes: number of classes.
        config: settings.
        refine: False fits on `ProbeConfig.choice_frames` only, which is enough to compare representations.
        bands: band name -> number of columns, in column order, nearest to the frame first.
        chosen: band name -> strength of all bands except the last, if only that of the last is to be selected.

    Returns:
        The probe. Ties go to the strongest penalty.

    Raises:
        InputError: no labelled frames, inconsistent widths or lengths, a label outside of 0..classes-1, or NaN or
            infinite values; the message has the index of the video and of the frame (from 0).
    """
    config = config or ProbeConfig()
    frames, targets, _ = _collect_labelled(train, train_labels, classes, "training")
    valid_frames, valid_targets, videos = _collect_labelled(valid, valid_labels, classes, "validation")
    if frames.shape[1] != valid_frames.shape[1]:
        raise InputError(f"training width {frames.shape[1]}, but validation width {valid_frames.shape[1]}")
    if bands is not None and band_width(bands) != frames.shape[1]:
        raise InputError(f"bands {dict(bands)} have {band_width(bands)} columns in total, not {frames.shape[1]}")
    if chosen and list(chosen) != list(bands or ())[:-1]:
        raise InputError(
            f"chosen gives strengths of {list(chosen)}; expected all bands but the last of {list(bands or ())}"
        )
    mean, factors = standardise(frames, valid_frames)  # in place: frames now have mean 0 and variance 1
    stride = -(-len(frames) // config.choice_frames)
    some = Moments.of(frames[::stride], targets[::stride], classes)
    widths = tuple((bands or {"": frames.shape[1]}).values())
    strengths: Strengths = (1.0,)
    if len(widths) > 1:
        step = -(-len(valid_frames) // config.choice_frames)
        validation = (valid_frames[::step], valid_targets[::step], videos[::step])
        search = Search(some, *validation, widths, config.penalties)
        strengths = search.select_last(tuple(chosen.values())) if chosen else search.best()
    moments = Moments.of(frames, targets, classes) if stride > 1 and refine else some
    scales = column_scales(widths, strengths)
    weight, penalty, right = moments.best(scales, config.penalties, valid_frames, valid_targets)
    bias = moments.shares.double().numpy()
    factor = sharpness(valid_frames @ weight + bias, valid_targets)
    raw = factor * weight * factors[:, None]  # for raw inputs, float64
    return LinearProbe(
        raw.astype(np.float32),
        (factor * bias - mean @ raw).astype(np.float32),
        penalty,
        100 * float(right.mean()),
        dict(zip(bands, strengths, strict=True)) if bands else {},
        len(config.penalties) > 1 and penalty in config.penalties[:1] + config.penalties[-1:],
    )


def sharpness(scores: Array, targets: Array) -> float:
    """The factor on scores (N, C) that maximises the likelihood of the classes (N,) under a softmax."""
    rows = np.arange(len(targets))

    def loss(logarithm: float) -> float:
        scaled = np.exp(logarithm) * scores
        return float(np.mean(logsumexp(scaled, axis=1) - scaled[rows, targets]))

    return float(np.exp(minimize_scalar(loss, bounds=(0.0, 6.0), method="bounded").x))


def band_width(bands: Mapping[str, int]) -> int:
    """Total number of columns of all bands.

    Raises:
        InputError: no bands, or a band without columns.
    """
    if not bands:
        raise InputError("bands must not be empty")
    for name, width in bands.items():
        if width < 1:
            raise InputError(f"band {name!r} has {width} columns; expected at least one")
    return sum(bands.values())


def standardise(
    train: npt.NDArray[np.float32], valid: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Standardise the training frames (N, D) in place, and apply the same map to the validation frames.

    Returns:
        Mean and factor of each column, (D,) each. The factor is 0 for columns that are constant to float32 precision.
    """
    moments = ChannelMoments(train.shape[1])
    for rows in _blocks(train):
        moments.add(rows)
    factors = 1 / moments.deviation(np.inf)
    for frames in (train, valid):
        for rows in _blocks(frames):
            rows[:] = (rows - moments.mean) * factors
    return moments.mean, factors


def _blocks(frames: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.float32]]:
    """Views of (N, D) that fit in the processor's cache."""
    return (frames[start : start + _ROWS] for start in range(0, len(frames), _ROWS))


def _collect_labelled(
    videos: Sequence[Array], labels: Sequence[Array], classes: int, part: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """All labelled frames: (N, D) float32 copy, (N,) classes, (N,) index of their video."""
    if len(videos) != len(labels):
        raise InputError(f"{len(videos)} {part} videos, but labels for {len(labels)}")
    frames, targets = [], []
    for index, (video, raw) in enumerate(zip(videos, labels, strict=True)):
        name = f"{part} video {index}"
        values, wanted = _validate_frames(video, name), np.asarray(raw)
        if wanted.shape != values.shape[:1] or not np.issubdtype(wanted.dtype, np.integer):
            raise InputError(
                f"{name}: {len(values)} frames need integer labels of shape ({len(values)},), not {wanted.dtype} "
                f"{wanted.shape}"
            )
        known = wanted != IGNORED
        wrong = known & ((wanted < 0) | (wanted >= classes))
        if wrong.any():
            frame = int(wrong.argmax())
            raise InputError(f"{name}, frame {frame}: label {wanted[frame]} is outside of 0..{classes - 1}")
        frames.append(values[known])
        targets.append(wanted[known].astype(np.int64))
    if len(widths := {values.shape[1] for values in frames}) > 1:
        raise InputError(f"{part} videos of different widths: {sorted(widths)}")
    if not sum(map(len, targets)):
        raise InputError(f"no {part} frame has a label (of {len(videos)} videos)")
    return np.concatenate(frames), np.concatenate(targets), np.repeat(np.arange(len(targets)), [*map(len, targets)])


def _validate_frames(latents: Array, name: str) -> npt.NDArray[np.float32]:
    """Latents as (T, D) float32; InputError if they are invalid."""
    frames = np.asarray(latents, dtype=np.float32)
    if frames.ndim != 2:
        raise InputError(f"{name}: shape {frames.shape}; expected (T, D)")
    usable = np.isfinite(frames).all(axis=1)
    if not usable.all():
        raise InputError(f"{name}, frame {int((~usable).argmax())}: NaN or infinite; remove or repair this video")
    return frames
