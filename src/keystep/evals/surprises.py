"""Signals of mistakes for one video, each (T,) and higher where something unusual is done. All but the change-point
score depend on the past only; `Signal.delay` says how long a frame waits for its value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from keystep.data.folder import FeatureFolder
from keystep.data.statistics import ChannelMoments
from keystep.evals.palette import BACKGROUND_NAMES
from keystep.evals.signals import Surprise, change_scores
from keystep.metrics import segmentation_scores
from keystep.pjepa import PJEPA
from keystep.stream.smoothing import Smoothing, SmoothingState

Floats = npt.NDArray[np.float64]

SPAN, CONTEXT = 2.0, 60.0
"""Seconds that are hidden at a time, and that are visible before them."""
WINDOW = 2.0
"""Seconds on each side of the change-point score."""
BANK = 6000
"""Number of training frames, evenly spaced, among which the nearest one is searched."""
SMOOTHINGS = tuple(Smoothing(half_life, hold) for half_life in (0.0, 0.5, 1.0, 2.0) for hold in (0.0, 0.5, 1.0))
"""Candidates for the steps of a stream; the one with the best edit score on the validation videos is used."""


@dataclass(frozen=True, eq=False)
class Signal:
    """A signal of all videos.

    Attributes:
        values: video -> (T,).
        delay: maximum time in seconds until the value of a frame is known.
    """

    values: Mapping[str, Floats]
    delay: float


@dataclass(frozen=True, eq=False)
class PredictorError:
    """The predictor's error at hidden stretches (`Surprise`), averaged over each stretch.

    Errors grow with the distance from the last visible frame, so each is divided by the typical one at the same place.

    Attributes:
        surprise: hides one stretch after the other, each with the past visible.
        typical: (span,) mean error of correct runs at each place in a stretch.
        values: video -> (T,).
    """

    surprise: Surprise
    typical: Floats
    values: Mapping[str, Floats]

    @classmethod
    def of(cls, model: PJEPA, folder: FeatureFolder, videos: Sequence[str], correct: Sequence[str]) -> PredictorError:
        """Compute the errors of ``videos``, of which the ``correct`` ones say what is typical.

        Raises:
            InputError: a model without causal attention.
        """
        rate, config = float(folder.timeline.rate), model.origin.config
        clusters = config.target.clusters if config is not None and config.target.kind == "clusters" else None
        span = max(2, round(SPAN * rate))
        surprise = Surprise(model, span, round(CONTEXT * rate), clusters)
        found = {video: surprise.of_video(folder.features(video))[:, 0].astype(np.float64) for video in videos}
        typical = _typical([found[video] for video in correct], span)
        return cls(surprise, typical, {video: relative_errors(errors, typical) for video, errors in found.items()})


def _typical(errors: Sequence[Floats], span: int) -> Floats:
    """(span,) mean error at each place in a stretch."""
    places = np.concatenate([np.arange(len(video)) % span for video in errors])
    sums = np.bincount(places, np.concatenate(list(errors)), span)
    return np.asarray(sums / np.maximum(np.bincount(places, minlength=span), 1))


def relative_errors(errors: Floats, typical: Floats) -> Floats:
    """(T,) mean over each stretch of the errors relative to the typical ones; a stretch begins at the first frame."""
    if not len(errors):
        return errors
    span = len(typical)
    starts = np.arange(0, len(errors), span)
    relative = errors / typical[np.arange(len(errors)) % span]
    means = np.add.reduceat(relative, starts) / np.diff([*starts, len(errors)])
    return np.asarray(np.repeat(means, np.diff([*starts, len(errors)])))


def nearest_distance(
    representation: Mapping[str, np.ndarray], videos: Sequence[str], train: Sequence[str], frames: int
) -> dict[str, Floats]:
    """Control: distance to the nearest of `BANK` training frames, in standard deviations of each channel.

    Args:
        representation: video -> (T, D), each read once at a time.
        videos: to score.
        train: videos of correct runs.
        frames: number of frames of these.
    """
    share, chosen, moments, seen = max(1, -(-frames // BANK)), [], None, 0
    for video in train:
        rows = representation[video]
        moments = moments or ChannelMoments(rows.shape[1])
        moments.add(rows)
        chosen.append(rows[-seen % share :: share])
        seen += len(rows)
    assert moments is not None
    mean, deviation = moments.mean.astype(np.float32), moments.deviation().astype(np.float32)
    bank = torch.from_numpy((np.concatenate(chosen) - mean) / deviation)
    return {
        video: torch.cdist(torch.from_numpy((representation[video] - mean) / deviation), bank).amin(1).double().numpy()
        for video in videos
    }


def change_points(representation: Mapping[str, np.ndarray], videos: Sequence[str], rate: float) -> Signal:
    """Control: the change-point score; 0 where a window reaches beyond the video."""
    window = max(1, round(WINDOW * rate))
    found = {}
    for video in videos:
        scores = change_scores(representation[video], window)
        found[video] = np.zeros(len(representation[video]))
        found[video][window : window + len(scores)] = scores
    return Signal(found, (window - 1) / rate)


def elapsed(lengths: Mapping[str, int], rate: float) -> dict[str, Floats]:
    """Control: seconds since the start."""
    return {video: np.arange(length) / rate for video, length in lengths.items()}


def unusual_time(
    clock: Mapping[str, Floats], steps: Mapping[str, np.ndarray], correct: Sequence[str]
) -> dict[str, Floats]:
    """Control: distance of the elapsed time from its median in ``correct`` videos at the same step, in seconds."""
    times, ids = (np.concatenate([found[video] for video in correct]) for found in (clock, steps))
    medians = {int(step): float(np.median(times[ids == step])) for step in np.unique(ids)}
    anywhere = float(np.median(times))
    return {
        video: np.abs(clock[video] - np.array([medians.get(int(step), anywhere) for step in steps[video]]))
        for video in clock
    }


def live_steps(
    scores: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], rate: float
) -> tuple[dict[str, np.ndarray], Smoothing]:
    """The steps that a stream announces, (T,) class ids of each video.

    Args:
        scores: video -> (T, C) unnormalised log-probabilities of a probe.
        labels: validation video -> (T,) true class ids, by which the smoothing is chosen.
        rate: frames per second.
    """
    truths = list(labels.values())

    def edit(smoothing: Smoothing) -> float:
        said = [announced(scores[video], smoothing, rate)[0] for video in labels]
        return segmentation_scores(said, truths)["edit"]

    best = max(SMOOTHINGS, key=edit)
    return {video: announced(own, best, rate)[0] for video, own in scores.items()}, best


def announced(
    scores: np.ndarray, smoothing: Smoothing, rate: float, state: SmoothingState | None = None
) -> tuple[np.ndarray, SmoothingState]:
    """(n, C) scores -> (n,) class ids, each from the frames so far, and the new state."""
    probabilities = torch.from_numpy(scores).float().softmax(-1).numpy()
    state, found = state or SmoothingState(), np.zeros(len(scores), np.int64)
    for frame, own in enumerate(probabilities):
        state = state.update(own, smoothing, rate)
        assert state.announced is not None
        found[frame] = state.announced
    return found, state


def step_names(ids: np.ndarray, classes: Sequence[str], background: Sequence[str] = ()) -> list[str | None]:
    """(T,) class ids as names; None for background and unlabelled frames."""
    none = {*background, *(name for name in classes if name.lower() in BACKGROUND_NAMES)}
    names = [None if name in none else name for name in classes]
    return [names[label] if 0 <= label < len(names) else None for label in ids.tolist()]
