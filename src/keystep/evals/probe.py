"""Linear probe: how well one affine map of a frame predicts its label from a frozen representation.

The probe is ridge regression onto one-hot classes, which has a closed-form solution. If the columns form bands, each
band has its own strength. Strengths and penalty are selected by accuracy on the validation videos. A temperature on the
scores, which does not change the predictions, calibrates the probabilities. Test videos are not used here.

Multinomial logistic regression is as good on narrow representations and worse on wide ones: with more than a thousand
columns it overfits to the training persons (docs/LOG.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from keystep.errors import InputError
from keystep.evals.labelled_frames import LabelledFrames, thinned, validate_frames
from keystep.evals.strengths import Moments, Search, Strengths, column_scales
from keystep.heads.linear import Affine, LinearHead, linear_head

Array = npt.NDArray[Any]

Penalties = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]

MOST_SCORES = 1 << 24
"""Scores of validation frames from which the temperature is fitted; of more, those of evenly spaced frames."""


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
        frames = validate_frames(latents, "the latents")
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
    known = LabelledFrames(train, train_labels, classes, "training")
    held_out = LabelledFrames(valid, valid_labels, classes, "validation")
    stride = -(-known.count // config.choice_frames)
    standard, sample = known.survey(stride)
    widths = tuple((bands or {"": sample[0].shape[1]}).values())
    _check_bands(sample[0].shape[1], bands, chosen)
    moments = Moments.of([sample[:2]], np.bincount(sample[1], minlength=classes) / len(sample[1]))
    del sample  # hundreds of megabytes
    strengths: Strengths = (1.0,)
    if len(widths) > 1:
        some = thinned(held_out.standardised(standard), -(-held_out.count // config.choice_frames))
        strengths = Search(moments, *some, widths, config.penalties).select(tuple((chosen or {}).values()))
        del some
    if stride > 1 and refine:
        moments = Moments.of((block[:2] for block in known.standardised(standard)), known.shares())
    valid_blocks = (block[:2] for block in held_out.standardised(standard))
    weight, penalty, right = moments.best(column_scales(widths, strengths), config.penalties, valid_blocks)
    bias = moments.shares.double().numpy()
    scored = ((frames @ weight + bias, *rest) for frames, *rest in held_out.standardised(standard))
    factor = sharpness(*thinned(scored, -(-held_out.count * classes // MOST_SCORES))[:2])
    raw = factor * weight * standard.factors[:, None]  # for raw inputs, float64
    return LinearProbe(
        raw.astype(np.float32),
        (factor * bias - standard.mean @ raw).astype(np.float32),
        penalty,
        100 * float(right.mean()),
        dict(zip(bands, strengths, strict=True)) if bands else {},
        len(config.penalties) > 1 and penalty in config.penalties[:1] + config.penalties[-1:],
    )


def _check_bands(width: int, bands: Mapping[str, int] | None, chosen: Mapping[str, float] | None) -> None:
    """Raise InputError for bands that are not the columns, or strengths of other bands."""
    if bands is not None and band_width(bands) != width:
        raise InputError(f"bands {dict(bands)} have {band_width(bands)} columns in total, not {width}")
    if chosen and list(chosen) != list(bands or ())[:-1]:
        raise InputError(
            f"chosen gives strengths of {list(chosen)}; expected all bands but the last of {list(bands or ())}"
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
