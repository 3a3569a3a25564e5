"""Linear probe: how much of the labels can one affine map a frame read from frozen representations?

Ridge regression onto the classes, one column each, which is solved at once and exactly. Where the columns are bands,
each has a strength of its own. Strengths and penalty are those that read the validation videos best; a factor on the
scores, which changes no answer, makes probabilities of them. Test videos never enter here.

Multinomial logistic regression reads narrow representations as well, and wide ones worse: over a thousand columns it
grows sure of what tells the training persons apart (docs/LOG.md).
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
"""Frames that are standardised at once."""


class ProbeConfig(BaseModel):
    """How the probe is fitted. All of it is deterministic: there is no seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    penalties: Penalties = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
    """L2 penalties to try, falling: each times the squared weights is added to the mean squared error."""
    choice_frames: Count = 20_000
    """Labelled training frames, evenly spaced, by which strengths are chosen, and representations among many."""

    @field_validator("penalties")
    @classmethod
    def _falling(cls, penalties: tuple[float, ...]) -> tuple[float, ...]:
        if list(penalties) != sorted(set(penalties), reverse=True):
            raise ValueError(f"penalties {penalties} must fall")
        return penalties


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """The chosen head, to be applied to representations as they are: the standardisation is folded in."""

    weight: npt.NDArray[np.float32]  # (D, C)
    bias: npt.NDArray[np.float32]  # (C,)
    penalty: float
    valid_accuracy: float
    """Accuracy (0-100) over all labelled validation frames."""
    strengths: Mapping[str, float] = field(default_factory=dict)
    """Band -> its strength, 0 where it was dropped; empty where the columns are no bands."""
    at_edge: bool = False
    """Whether the penalty is the weakest or the strongest of several that were tried, so that others may be better."""

    def scores(self, latents: Array) -> npt.NDArray[np.float32]:
        """(T, D) -> (T, C) unnormalised log-probabilities.

        Raises:
            InputError: another width than the probe was trained on, or a NaN or infinite number.
        """
        frames = _checked(latents, "the latents")
        if frames.shape[1] != len(self.weight):
            raise InputError(f"the probe reads width {len(self.weight)}, but the latents have {frames.shape[1]}")
        return np.asarray(frames @ self.weight + self.bias, dtype=np.float32)

    def head(self, names: Sequence[str] = (), origin: Mapping[str, str] | None = None) -> LinearHead:
        """The same as a head that can be saved and run on a stream."""
        steps = Affine(torch.from_numpy(self.weight).T.contiguous(), torch.from_numpy(self.bias))
        return linear_head(steps, names=tuple(names), origin=origin or {})

    def predict(self, latents: Array) -> npt.NDArray[np.int64]:
        """(T, D) -> (T,) class indices."""
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
    """Solve for each penalty on the training videos and return the probe that is best on the validation videos.

    Args:
        train, valid: one (T_i, D) array a video.
        train_labels, valid_labels: one (T_i,) integer array a video, -100 where there is no label. A class without
            training frames is allowed.
        refine: False stays with `ProbeConfig.choice_frames`, which are enough to choose between representations.
        bands: name -> number of columns of the bands that the columns are, in their order, nearest to the frame first.
        chosen: name -> strength of all bands but the last one, where only that of the last is to be chosen.

    Returns:
        The probe. Among equally good ones the strongest penalty wins.

    Raises:
        InputError: nothing labelled, widths or lengths that disagree, a label outside of 0..classes-1, or a NaN or
            infinite number, always with the index of the video (counted from 0) and of the frame.
    """
    config = config or ProbeConfig()
    frames, targets, _ = _labelled(train, train_labels, classes, "training")
    valid_frames, valid_targets, videos = _labelled(valid, valid_labels, classes, "validation")
    if frames.shape[1] != valid_frames.shape[1]:
        raise InputError(f"training width {frames.shape[1]}, but validation width {valid_frames.shape[1]}")
    if bands is not None and band_width(bands) != frames.shape[1]:
        raise InputError(f"bands {dict(bands)} are {band_width(bands)} columns together, not {frames.shape[1]}")
    assert not chosen or list(chosen) == list(bands or ())[:-1], "strengths of all bands but the last"
    mean, factors = _standardise(frames, valid_frames)  # in place, from here on frames have mean 0 and variance 1
    stride = -(-len(frames) // config.choice_frames)
    some = Moments.of(frames[::stride], targets[::stride], classes)
    widths = tuple((bands or {"": frames.shape[1]}).values())
    strengths: Strengths = (1.0,)
    if len(widths) > 1:
        step = -(-len(valid_frames) // config.choice_frames)
        validation = (valid_frames[::step], valid_targets[::step], videos[::step])
        search = Search(some, *validation, widths, config.penalties)
        strengths = search.beside(tuple(chosen.values())) if chosen else search.best()
    moments = Moments.of(frames, targets, classes) if stride > 1 and refine else some
    scales = column_scales(widths, strengths)
    weight, penalty, right = moments.best(scales, config.penalties, valid_frames, valid_targets)
    bias = moments.shares.double().numpy()
    factor = _sharpness(valid_frames @ weight + bias, valid_targets)
    raw = factor * weight * factors[:, None]  # for raw inputs, float64
    return LinearProbe(
        raw.astype(np.float32),
        (factor * bias - mean @ raw).astype(np.float32),
        penalty,
        100 * float(right.mean()),
        dict(zip(bands, strengths, strict=True)) if bands else {},
        len(config.penalties) > 1 and penalty in config.penalties[:1] + config.penalties[-1:],
    )


def _sharpness(scores: Array, targets: Array) -> float:
    """The factor on scores (N, C) whose softmax gives the classes (N,) the highest likelihood."""
    rows = np.arange(len(targets))

    def loss(logarithm: float) -> float:
        scaled = np.exp(logarithm) * scores
        return float(np.mean(logsumexp(scaled, axis=1) - scaled[rows, targets]))

    return float(np.exp(minimize_scalar(loss, bounds=(0.0, 6.0), method="bounded").x))


def band_width(bands: Mapping[str, int]) -> int:
    """Columns of all bands (name -> columns) together; InputError where there is no band, or one without columns."""
    if not bands:
        raise InputError("a representation in bands needs at least one band")
    for name, width in bands.items():
        if width < 1:
            raise InputError(f"band {name!r} has {width} columns; leave it out or give it at least one")
    return sum(bands.values())


def _standardise(
    train: npt.NDArray[np.float32], valid: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Give every column of the training frames (N, D) mean 0 and variance 1, in place, and the others the same.

    Returns:
        The mean and the factor of each column, (D,) each. A column that is constant to float32 precision carries
        nothing; its factor is 0 and it drops out.
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
    """(N, D) in parts that stay in the processor's cache; they are views."""
    return (frames[start : start + _ROWS] for start in range(0, len(frames), _ROWS))


def _labelled(
    videos: Sequence[Array], labels: Sequence[Array], classes: int, part: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """All labelled frames of all videos: (N, D) float32, a copy, (N,) classes, and (N,) the index of the video."""
    if len(videos) != len(labels):
        raise InputError(f"{len(videos)} {part} videos, but labels for {len(labels)}")
    frames, targets = [], []
    for index, (video, raw) in enumerate(zip(videos, labels, strict=True)):
        name = f"{part} video {index}"
        values, wanted = _checked(video, name), np.asarray(raw)
        if wanted.shape != values.shape[:1] or not np.issubdtype(wanted.dtype, np.integer):
            raise InputError(
                f"{name}: {len(values)} frames need as many integer labels, not {wanted.dtype} {wanted.shape}"
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


def _checked(latents: Array, name: str) -> npt.NDArray[np.float32]:
    """(T, D) as float32, or a line that names what is wrong with it."""
    frames = np.asarray(latents, dtype=np.float32)
    if frames.ndim != 2:
        raise InputError(f"{name}: shape {frames.shape}; expected (T, D)")
    usable = np.isfinite(frames).all(axis=1)
    if not usable.all():
        raise InputError(f"{name}, frame {int((~usable).argmax())}: NaN or infinite; remove or repair this video")
    return frames
