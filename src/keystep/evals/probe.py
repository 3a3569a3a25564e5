"""Linear probe: how much of the labels can one affine map a frame read from frozen representations?

Multinomial logistic regression with an L2 penalty. A path of falling penalties is followed from one solution to the
next, and left where the validation videos no longer gain; the penalty that is best on them is returned. Where the
columns are bands, each has a strength of its own, which the validation videos choose before. Test videos never enter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from keystep.data.annotation import IGNORED
from keystep.errors import InputError
from keystep.evals.regression import Regression
from keystep.evals.strengths import Search, Strengths, column_scales
from keystep.heads.linear import Affine, LinearHead, linear_head

Array = npt.NDArray[Any]

Penalties = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]

_ROWS = 1_024  # frames standardised at once, so that a block stays in the processor's cache
_SCORED = 16_384  # frames scored at once


class ProbeConfig(BaseModel):
    """How the probe is fitted. All of it is deterministic: there is no seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    penalties: Penalties = (0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
    """L2 penalties to try, falling: half of each times the squared weights is added to the mean cross entropy."""
    iterations: Count = 12
    """L-BFGS steps at each penalty."""
    path_frames: Count = 4_000
    """Labelled training frames, evenly spaced, on which the path is followed; from its best penalty on it is then
    followed on all of them."""

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
) -> LinearProbe:
    """Follow the path of penalties on the training videos and return the probe that is best on the validation videos.

    Args:
        train, valid: one (T_i, D) array a video.
        train_labels, valid_labels: one (T_i,) integer array a video, -100 where there is no label. A class without
            training frames is allowed.
        refine: False stays with the frames that the path was followed on, which is enough to choose between
            representations.
        bands: name -> number of columns of the bands that the columns are, in their order, nearest to the frame first.

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
    standard = _standardise(frames)  # in place, from here on frames have mean 0 and variance 1
    stride = -(-len(frames) // config.path_frames)
    thinned = Regression.on(frames[::stride].copy(), targets[::stride].copy(), classes, config.iterations)
    widths = tuple((bands or {"": frames.shape[1]}).values())
    strengths: Strengths = (1.0,)
    if len(widths) > 1:
        step = -(-len(valid_frames) // (2 * config.path_frames))
        some = valid_frames[::step].copy()
        standard.apply(some)
        strengths = Search(thinned, some, valid_targets[::step], videos[::step], widths, config.penalties).best()
    path = _Path(standard, column_scales(widths, strengths), valid_frames, valid_targets)
    best, solution = path.follow(thinned, config.penalties)
    if stride > 1 and refine:
        everything = Regression.on(frames, targets, classes, config.iterations)
        best, _ = path.follow(everything, config.penalties[config.penalties.index(best.penalty) :], solution)
    ends = config.penalties[:1] + config.penalties[-1:]
    named = dict(zip(bands, strengths, strict=True)) if bands else {}
    return replace(best, strengths=named, at_edge=len(config.penalties) > 1 and best.penalty in ends)


@dataclass(frozen=True, eq=False)
class _Path:
    """Falling penalties, and the validation frames (V, D), as they are, that say which is best."""

    standard: _Standard
    scales: npt.NDArray[np.float64]  # (D,) strength of each column, 0: left out
    frames: npt.NDArray[np.float32]
    targets: npt.NDArray[np.int64]

    def follow(
        self, regression: Regression, penalties: Sequence[float], start: Tensor | None = None
    ) -> tuple[LinearProbe, Tensor]:
        """The best probe of a path, which ends at the first penalty that does not gain, and its solution."""
        columns = np.flatnonzero(self.scales)
        part = regression if len(columns) == len(self.scales) else regression.of(columns)
        shrinking = torch.from_numpy(self.scales[columns] ** -2).float()
        start = part.zero() if start is None else start
        best: tuple[LinearProbe, Tensor] | None = None
        for penalty in penalties:
            start = part.solve(penalty * shrinking, start)
            weight = np.zeros((len(self.scales), len(start)))  # for raw inputs
            weight[columns] = start[:, :-1].T.double().numpy() * self.standard.inverse_std[columns, None]
            bias = (start[:, -1].double().numpy() - self.standard.mean @ weight).astype(np.float32)
            single = weight.astype(np.float32)
            accuracy = _accuracy(self.frames, self.targets, single, bias)
            if best is not None and accuracy <= best[0].valid_accuracy:
                break
            best = LinearProbe(single, bias, penalty, accuracy), start
        assert best is not None
        return best


def band_width(bands: Mapping[str, int]) -> int:
    """Columns of all bands (name -> columns) together; InputError where there is no band, or one without columns."""
    if not bands:
        raise InputError("a representation in bands needs at least one band")
    for name, width in bands.items():
        if width < 1:
            raise InputError(f"band {name!r} has {width} columns; leave it out or give it at least one")
    return sum(bands.values())


@dataclass(frozen=True, eq=False)
class _Standard:
    """Mean and 1 / standard deviation of each column, both (D,) float64; 0 where a column is constant."""

    mean: npt.NDArray[np.float64]
    inverse_std: npt.NDArray[np.float64]

    def apply(self, frames: npt.NDArray[np.float32]) -> None:
        """Standardise (N, D), in place."""
        for start in range(0, len(frames), _ROWS):
            frames[start : start + _ROWS] = (frames[start : start + _ROWS] - self.mean) * self.inverse_std


def _standardise(frames: npt.NDArray[np.float32]) -> _Standard:
    """Give every column of (N, D) mean 0 and variance 1, in place.

    A column that is constant to float32 precision carries nothing; its factor is 0 and it drops out.
    """
    mean = frames.mean(axis=0, dtype=np.float64)
    variance = np.zeros_like(mean)
    for start in range(0, len(frames), _ROWS):
        variance += np.square(frames[start : start + _ROWS] - mean).sum(axis=0)
    std = np.sqrt(variance / len(frames))
    varies = std > 1e-7 * np.abs(mean)
    standard = _Standard(mean, np.divide(1.0, std, out=np.zeros_like(std), where=varies))
    standard.apply(frames)
    return standard


def _accuracy(frames: Array, targets: Array, weight: Array, bias: Array) -> float:
    """Frame accuracy (0-100) of one head."""
    correct = 0
    for start in range(0, len(frames), _SCORED):
        scores = frames[start : start + _SCORED] @ weight + bias
        correct += int((scores.argmax(axis=1) == targets[start : start + _SCORED]).sum())
    return 100 * correct / len(frames)


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
