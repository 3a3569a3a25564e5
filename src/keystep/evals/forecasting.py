"""Fit a forecaster: ridge regression of steps and times on frozen representations, all read-outs from one solution.

Training frames fit the read-outs. Validation frames select the penalty of each read-out, how far it is trusted against
what usually follows the current step, and the width of the intervals. Test videos are not used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from keystep.data.annotation import IGNORED
from keystep.data.statistics import ChannelMoments
from keystep.errors import InputError
from keystep.evals.labelled_frames import Standard, validate_frames
from keystep.evals.probe import ProbeConfig, sharpness
from keystep.foresight.clock import Clock
from keystep.foresight.forecaster import INTERVAL, TIMES, Forecaster, plain_times, transformed, usual_times, with_clock
from keystep.foresight.targets import Floats, Ids, later_steps, next_steps, remaining_slots

HORIZONS = (1.0, 5.0, 15.0, 60.0)
"""Seconds."""
STRONGER = (10_000.0, 1_000.0, 100.0, 30.0, 10.0, 3.0, 1.0)
"""Penalties in addition to those of the probe: the future is less certain, and the strongest leave what is usual."""
TRUSTS = (0.0, 0.25, 0.5, 0.75, 1.0)
PRIOR = 1.0
"""Pseudo-count of what follows a step, shared like all steps are."""

Frames = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Part:
    """Sampled slots of some videos, with what is to be foreseen at each.

    inputs: (N, D + 3). steps: (H + 2, N) class ids: now, at each horizon, next; C where the video is over.
    times: (N, 3) of `TIMES`, NaN if unknown. weights: (N,), the same sum for each video. elapsed: (N,) seconds.
    """

    inputs: Frames
    steps: Ids
    times: Floats
    weights: Floats
    elapsed: Floats


def fit_forecaster(
    train: Sequence[Frames],
    train_labels: Sequence[Ids],
    valid: Sequence[Frames],
    valid_labels: Sequence[Ids],
    *,
    names: Sequence[str],
    rate: float,
    horizons: Sequence[float] = HORIZONS,
    config: ProbeConfig | None = None,
) -> Forecaster:
    """Fit a forecaster on training videos, and select and calibrate it on validation videos.

    Args:
        train, valid: (T_i, D) array for each video, each of which is read once.
        train_labels, valid_labels: (T_i,) integer array for each video, -100 for unlabelled frames.
        names: class names by id.
        rate: slots per second.
        horizons: seconds, of at least a slot.
        config: penalties, and the number of frames that are used of each part.

    Raises:
        InputError: no labelled frame in a part, a horizon shorter than a slot, or NaN or infinite values.
    """
    config, slots = config or ProbeConfig(), [_slots(horizon, rate) for horizon in horizons]
    for part, labels in (("training", train_labels), ("validation", valid_labels)):
        if all((each == IGNORED).all() for each in labels):
            raise InputError(f"no {part} frame has a label (of {len(labels)} videos)")
    clock = Clock(np.sort([len(labels) / rate for labels in train_labels]))
    sides = ((train, train_labels), (valid, valid_labels))
    parts = [_sample(*videos, clock, slots, len(names), rate, config.choice_frames) for videos in sides]
    standard = _standardise(parts)
    ridge = _Ridge.of(parts[0].inputs, parts[1].inputs, (*STRONGER, *config.penalties))
    steps = _read_all_steps(ridge, parts, len(names))
    scales = (_median_wait(parts[0], clock) / 10, clock.median / 10)
    waits = _waits(parts[0], len(names), scales[0])
    known = [usual_times(now, part.elapsed, clock, waits, scales) for now, part in zip(steps.now, parts, strict=True)]
    times, margins = _read_times(ridge, parts, known, scales, rate)
    read = (*steps.read, *times)
    weight = np.concatenate([one.weight for one in read], axis=1) * standard.factors[:, None]
    bias = np.concatenate([one.bias for one in read]) - standard.mean @ weight
    return Forecaster(
        tuple(names),
        tuple(map(float, horizons)),
        rate,
        clock,
        weight.astype(np.float32),
        bias.astype(np.float32),
        steps.usual,
        steps.trust,
        waits,
        scales,
        margins,
    )


@dataclass(frozen=True, eq=False)
class _ReadOut:
    """An affine map of standardised inputs: (D, K) and (K,)."""

    weight: Floats
    bias: Floats

    def scores(self, inputs: Frames) -> Floats:
        return np.asarray(inputs @ self.weight.astype(np.float32) + self.bias, np.float64)


@dataclass(frozen=True, eq=False)
class _Ridge:
    """Ridge regression on the training inputs for any targets and penalties, from one eigendecomposition."""

    inputs: Frames
    valid: Frames  # rotated to eigenvectors
    values: Floats
    vectors: Floats
    penalties: tuple[float, ...]

    @classmethod
    def of(cls, inputs: Frames, valid: Frames, penalties: tuple[float, ...]) -> _Ridge:
        values, vectors = np.linalg.eigh((inputs.T @ inputs).astype(np.float64) / len(inputs))
        return cls(inputs, valid @ vectors.astype(np.float32), np.maximum(values, 0), vectors, penalties)

    def best(self, targets: Floats, error: Callable[[Floats], float], kept: Flags) -> _ReadOut:
        """Solve for targets (N, K) with each penalty, and return the solution with the least error.

        Args:
            error: of the predictions at the validation frames, (V, K).
            kept: (N,) training frames with a target; the others count as the mean.
        """
        mean = targets[kept].mean(0) if kept.any() else np.zeros(targets.shape[1])
        centred = np.where(kept[:, None], targets - mean, 0.0)
        cross = self.vectors.T @ (self.inputs.T @ centred.astype(np.float32)).astype(np.float64) / len(centred)
        found = []
        for penalty in self.penalties:
            rotated = cross / (self.values + penalty)[:, None]
            found.append((error(self.valid @ rotated.astype(np.float32) + mean), rotated))
        return _ReadOut(self.vectors @ min(found, key=lambda one: one[0])[1], mean)


def _slots(horizon: float, rate: float) -> int:
    slots = round(horizon * rate)
    if slots < 1:
        raise InputError(f"a horizon of {horizon:g} s is less than a slot at {rate:g} Hz")
    return slots


def _standardise(parts: Sequence[_Part]) -> Standard:
    """Standardise the inputs of all parts in place, by those of the first."""
    moments = ChannelMoments(parts[0].inputs.shape[1])
    moments.add(parts[0].inputs)
    standard = Standard(moments.mean, 1 / moments.deviation(np.inf))
    for part in parts:
        standard.apply(part.inputs)
    return standard


def _sample(
    videos: Sequence[Frames],
    labels: Sequence[Ids],
    clock: Clock,
    slots: Sequence[int],
    classes: int,
    rate: float,
    most: int,
) -> _Part:
    """Evenly spaced slots of videos, about ``most``, without those that have no label now."""
    stride = -(-sum(map(len, labels)) // most)
    inputs, steps, times, weights, passed = [], [], [], [], []
    for index, ids in enumerate(labels):
        kept = np.flatnonzero(ids != IGNORED)
        kept = kept[kept % stride == 0] if (ids[::stride] != IGNORED).any() else kept[:1]
        following, elapsed = next_steps(ids, classes), np.arange(len(ids)) / rate
        ahead = [ids, *(later_steps(ids, each, classes) for each in slots), following.steps]
        left, over = remaining_slots(len(ids)) / rate, np.arange(1, len(ids) + 1) / len(ids)
        frames = validate_frames(videos[index], f"video {index}")[kept]
        inputs.append(with_clock(frames, clock, elapsed[kept]))
        steps.append(np.stack(ahead)[:, kept])
        times.append(np.stack([following.slots / rate, left, over], axis=1)[kept])
        weights.append(np.full(len(kept), 1 / max(1, len(kept))))
        passed.append(elapsed[kept])
    return _Part(
        np.concatenate(inputs),
        np.concatenate(steps, axis=1),
        np.concatenate(times),
        np.concatenate(weights),
        np.concatenate(passed),
    )


class _Steps(NamedTuple):
    """Read-outs of the current, the later and the next step; `Forecaster.usual` and ``trust``.

    now: probabilities of the current step in the training and the validation part, (N, C) each.
    """

    read: list[_ReadOut]
    now: list[Floats]
    usual: Floats
    trust: Floats


def _read_all_steps(ridge: _Ridge, parts: Sequence[_Part], classes: int) -> _Steps:
    """Read out the current step, that at each horizon, and the next one."""
    fitted, chosen = parts
    usual = np.stack([_usual(fitted.steps[0], later, classes) for later in fitted.steps[1:]])
    read = [
        _read_steps(ridge, *known, classes + (place > 0))
        for place, known in enumerate(zip(fitted.steps, chosen.steps, strict=True))
    ]
    now = [softmax(read[0].scores(part.inputs), axis=1) for part in parts]
    trust = [
        _trust(softmax(one.scores(chosen.inputs), axis=1), now[1] @ after, wanted, classes)
        for one, after, wanted in zip(read[1:], usual, chosen.steps[1:], strict=True)
    ]
    return _Steps(read, now, usual, np.array(trust))


def _read_steps(ridge: _Ridge, targets: Ids, wanted: Ids, outcomes: int) -> _ReadOut:
    """Read out a step; the penalty with the best accuracy on validation frames, calibrated there."""
    known, scored = targets != IGNORED, wanted != IGNORED
    hot = np.eye(outcomes)[np.where(known, targets, 0)]

    def error(scores: Floats) -> float:
        return -float((scores.argmax(1) == wanted)[scored].mean()) if scored.any() else 0.0

    found = ridge.best(hot, error, known)
    if not scored.any():
        return found
    scores = ridge.valid @ (ridge.vectors.T @ found.weight).astype(np.float32) + found.bias
    factor = sharpness(scores[scored], wanted[scored])
    return _ReadOut(factor * found.weight, factor * found.bias)


def _usual(now: Ids, later: Ids, classes: int) -> Floats:
    """(C, C + 1) how often each step is followed by each one, at some horizon."""
    known = later != IGNORED
    counts = np.zeros((classes, classes + 1))
    np.add.at(counts, (now[known], later[known]), 1)
    shares = (counts.sum(0) + 1e-9) / (counts.sum() + 1e-9 * (classes + 1))
    smoothed = counts + PRIOR * shares
    return np.asarray(smoothed / smoothed.sum(1, keepdims=True))


def _trust(read: Floats, usual: Floats, wanted: Ids, classes: int) -> float:
    """The share of the read-out with the most correct validation frames; ties go to the larger one."""
    scored = (wanted != IGNORED) & (wanted < classes)

    def right(share: float) -> int:
        mixed = share * read + (1 - share) * usual
        return int((mixed[:, :classes].argmax(1) == wanted)[scored].sum())

    return max(reversed(TRUSTS), key=right)


def _median_wait(part: _Part, clock: Clock) -> float:
    waits = part.times[:, 0][~np.isnan(part.times[:, 0])]
    return float(np.median(waits)) if len(waits) else clock.median


def _waits(part: _Part, classes: int, scale: float) -> Floats:
    """(C,) mean transformed time until the next step, by current step; that of all steps for those that never occur."""
    values, known = np.log1p(part.times[:, 0] / scale), ~np.isnan(part.times[:, 0])
    overall = float(values[known].mean()) if known.any() else 0.0
    counts = np.bincount(part.steps[0][known], minlength=classes)
    sums = np.bincount(part.steps[0][known], values[known], minlength=classes)
    return (sums + overall) / (counts + 1)


def _read_times(
    ridge: _Ridge, parts: Sequence[_Part], usual: Sequence[Floats], scales: tuple[float, float], rate: float
) -> tuple[list[_ReadOut], Floats]:
    """Read out what `TIMES` differ by from ``usual``, their forecasts without the representation.

    Args:
        parts, usual: of the training and of the validation videos.

    Returns:
        The read-outs, and their margins, (3, 2).
    """
    off = [transformed(part.times, scales) - each for part, each in zip(parts, usual, strict=True)]
    found, margins = [], []
    for place in range(len(TIMES)):
        known, scored = (~np.isnan(each[:, place]) for each in off)
        weights = parts[1].weights[scored]

        def error(values: Floats, place: int = place, scored: Flags = scored, weights: Floats = weights) -> float:
            guess = usual[1].copy()
            guess[:, place] += values[:, 0]
            absolute = np.abs(plain_times(guess, scales, rate) - parts[1].times)
            return float(np.average(absolute[scored, place], weights=weights)) if scored.any() else 0.0

        one = ridge.best(np.nan_to_num(off[0][:, [place]]), error, known)
        residuals = off[1][:, place] - one.scores(parts[1].inputs)[:, 0]
        margins.append(weighted_quantiles(residuals[scored], weights))
        found.append(one)
    return found, np.array(margins)


def weighted_quantiles(values: Floats, weights: Floats) -> tuple[float, float]:
    """The quantiles between which `INTERVAL` of the weight is, the same share on both sides; 0 without values."""
    if not len(values):
        return 0.0, 0.0
    order = np.argsort(values)
    cumulated = np.cumsum(weights[order]) / weights.sum()
    outside = (1 - INTERVAL) / 2
    places = np.searchsorted(cumulated, [outside, 1 - outside]).clip(0, len(values) - 1)
    low, high = values[order][places]
    return float(low), float(high)
