"""The tasks ``anticipate`` and ``remaining``: what a frozen representation of the past knows of the future.

Both fit `keystep.foresight.Forecaster` on a representation, and score it beside controls on the same representation
(the current step held, a semi-Markov chain of the steps that the forecaster itself recognises) and on none (the clock).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from keystep.data.annotation import IGNORED, Split
from keystep.data.folder import FeatureFolder
from keystep.evals.forecasting import HORIZONS, fit_forecaster, weighted_quantiles
from keystep.evals.representation import Listed, Representation
from keystep.evals.rows import Mode
from keystep.evals.task import Answers, Scores, VideoScores
from keystep.foresight import Clock, Forecast, Forecaster, StepChain
from keystep.foresight.targets import Floats, Ids, ages, later_steps, next_steps, remaining_slots

MANY_CLASSES = 10
"""Recall is top-5 with more classes than this, as in EPIC-KITCHENS-100 and Assembly101, and top-1 otherwise."""
LAST = 0.2
"""Share of a video in which the time left is scored by itself, too."""

Later = Mapping[float, list[Floats]]
"""Horizon in seconds -> (T, C) scores of the step then, for each test video."""


class Anticipate:
    """The step at each horizon, and the next step with the time until it starts.

    Args:
        horizons: seconds. Those below the duration of a slot are left out.
    """

    title = "Anticipation"
    note = (
        "In percent, from the past alone. top-1: of all slots whose step after the stated time is known. class mean: "
        "the same, averaged over classes. recall before start: one forecast for each step, made the stated time "
        "before it starts, as in EPIC-KITCHENS-100 and Assembly101, averaged over classes. next step: which step "
        "follows the current one, at all slots, and the mean absolute error in seconds of the forecast of its start. "
        "step held: the step recognised now. The Markov chain knows transitions and durations of the training videos, "
        "the step recognised now and since when; whether it takes it as certain is selected on the validation videos. "
        "Fitted on training videos, selected on validation videos."
    )
    modes: tuple[Mode, ...] = ("causal",)

    def __init__(self, horizons: Sequence[float] = HORIZONS) -> None:
        self.horizons = tuple(horizons)

    def score(self, representation: Representation, folder: FeatureFolder, split: Split) -> Answers:
        """See `keystep.evals.task.EvaluationTask`."""
        forecaster = fit(representation, folder, split, self.horizons)
        horizons, truth = forecaster.horizons, _Truth(folder, split.test)
        forecasts = {name: forecaster.forecast(representation[name]) for name in (*split.valid, *split.test)}
        tested = [forecasts[name] for name in split.test]
        own = self._scores(
            truth,
            {horizon: [one.later[place] for one in tested] for place, horizon in enumerate(horizons)},
            [one.following for one in tested],
            [one.start.expected for one in tested],
        )
        furthest = round(max(horizons) * truth.rate)
        chain = StepChain.fit([folder.labels(name) for name in split.train], len(folder.classes), furthest)
        return Answers(
            own,
            {
                "step held": self._held(truth, horizons, tested, chain),
                "Markov chain": self._chain(truth, horizons, forecasts, chain, split),
            },
            forecaster,
        )

    def _held(self, truth: _Truth, horizons: Sequence[float], tested: Sequence[Forecast], chain: StepChain) -> Scores:
        """The current step at every horizon; the next step and its start are those most frequent after it."""
        now = [one.now for one in tested]
        steps = [each.argmax(1) for each in now]
        none = [np.zeros_like(each) for each in steps]
        waits = [chain.wait(each, age) / truth.rate for each, age in zip(steps, none, strict=True)]
        return self._scores(truth, dict.fromkeys(horizons, now), [chain.transitions[each] for each in steps], waits)

    def _chain(
        self,
        truth: _Truth,
        horizons: Sequence[float],
        forecasts: Mapping[str, Forecast],
        chain: StepChain,
        split: Split,
    ) -> Scores:
        """A semi-Markov chain of the recognised steps."""
        valid = _Truth(truth.folder, split.valid)
        later: dict[float, list[Floats]] = {}
        for horizon in horizons:
            makers = [_chained(chain, round(horizon * truth.rate), certain) for certain in (True, False)]
            right = [
                valid.accuracy(horizon, [maker(forecasts[name].now) for name in split.valid]).value for maker in makers
            ]
            best = makers[int(np.argmax(right))]
            later[horizon] = [best(forecasts[name].now) for name in split.test]
        now = [forecasts[name].now for name in split.test]
        steps = [each.argmax(1) for each in now]
        waits = [chain.wait(each, ages(each)) / truth.rate for each in steps]
        return self._scores(truth, later, [each @ chain.transitions for each in now], waits)

    def _scores(self, truth: _Truth, later: Later, following: Sequence[Floats], waits: Sequence[Floats]) -> Scores:
        """All measures; scores of steps (T, C) or more, of which the columns after the classes are not used."""
        found: dict[str, VideoScores] = {}
        for horizon, scores in later.items():
            found[f"{horizon:g} s: top-1"] = truth.accuracy(horizon, scores)
            found[f"{horizon:g} s: class mean"] = truth.class_mean(horizon, scores)
            found[f"{horizon:g} s: recall@{truth.top} before start"] = truth.recall_before_start(horizon, scores)
        steps = [each.steps for each in truth.following]
        found["next step: top-1"] = truth.share(following, steps)
        found["next step: class mean"] = truth.by_class(following, steps, 1)
        errors = [np.abs(wait - each.slots / truth.rate) for wait, each in zip(waits, truth.following, strict=True)]
        known = [~np.isnan(error) for error in errors]
        sums = np.array([error[keep].sum() for error, keep in zip(errors, known, strict=True)])
        found["next step: start MAE (s)"] = VideoScores(sums, np.array([keep.sum() for keep in known]))
        return found


class _Truth:
    """What is to be foreseen in some videos, and how forecasts of it are scored."""

    def __init__(self, folder: FeatureFolder, videos: Sequence[str]) -> None:
        self.folder, self.rate, self.classes = folder, float(folder.timeline.rate), len(folder.classes)
        self.labels = [folder.labels(name) for name in videos]
        self.following = [next_steps(labels, self.classes) for labels in self.labels]
        self.top = 5 if self.classes > MANY_CLASSES else 1

    def accuracy(self, horizon: float, scores: Sequence[Floats]) -> VideoScores:
        """Share of the slots whose step after the horizon is foreseen."""
        return self.share(scores, self._later(horizon))

    def class_mean(self, horizon: float, scores: Sequence[Floats]) -> VideoScores:
        """The same, averaged over classes."""
        return self.by_class(scores, self._later(horizon), 1)

    def recall_before_start(self, horizon: float, scores: Sequence[Floats]) -> VideoScores:
        """Recall of the steps, each at one slot, the horizon before it starts; averaged over classes."""
        targets = []
        for labels, later in zip(self.labels, self._later(horizon), strict=True):
            starts = np.flatnonzero(np.diff(labels, prepend=-1) != 0) - round(horizon * self.rate)
            before = np.zeros(len(labels), bool)
            before[starts[starts >= 0]] = True
            targets.append(np.where(before, later, IGNORED))
        return self.by_class(scores, targets, self.top)

    def share(self, scores: Sequence[Floats], targets: Sequence[Ids]) -> VideoScores:
        """Top-1 in percent."""
        found = [self._right(each, target, 1) for each, target in zip(scores, targets, strict=True)]
        return VideoScores(
            np.array([right.sum() for right, _ in found]), np.array([len(right) for right, _ in found]), 100, True
        )

    def by_class(self, scores: Sequence[Floats], targets: Sequence[Ids], top: int) -> VideoScores:
        """Top-k in percent, averaged over classes."""
        found = [self._right(each, target, top) for each, target in zip(scores, targets, strict=True)]
        parts = [np.bincount(wanted, right, self.classes) for right, wanted in found]
        wholes = [np.bincount(wanted, minlength=self.classes) for _, wanted in found]
        return VideoScores(np.stack(parts, axis=1), np.stack(wholes, axis=1).astype(np.float64), 100, True)

    def _right(self, scores: Floats, targets: Ids, top: int) -> tuple[Floats, Ids]:
        """Whether each known target is among the best ``top`` classes, and the known targets."""
        known = (targets >= 0) & (targets < self.classes)
        wanted, rows = targets[known], scores[known, : self.classes]
        better = (rows > np.take_along_axis(rows, wanted[:, None], axis=1)).sum(1)
        return (better < top).astype(np.float64), wanted

    def _later(self, horizon: float) -> list[Ids]:
        slots = round(horizon * self.rate)
        return [later_steps(labels, slots, self.classes) for labels in self.labels]


class Remaining:
    """The time left and the progress, with their uncertainty."""

    title = "Time left"
    note = (
        "From the past alone, averaged over the slots of each test video, then over videos. MAE: mean absolute error "
        "of the remaining time (in surgery, remaining surgical duration, RSD) in minutes, over the whole video and its "
        "last fifth; of the progress, the share of the video that is over, in percent of the video. interval: the one "
        "that holds 90 % of the slots of validation videos; its width in minutes, and how many slots of test videos it "
        "holds. median - elapsed: the median duration of the training videos minus the elapsed time. elapsed time: the "
        "median time left of the training videos that are longer than the elapsed time. Fitted on training videos, "
        "selected and calibrated on validation videos."
    )
    modes: tuple[Mode, ...] = ("causal",)

    def score(self, representation: Representation, folder: FeatureFolder, split: Split) -> Answers:
        """See `keystep.evals.task.EvaluationTask`."""
        forecaster = fit(representation, folder, split)
        forecasts = [forecaster.forecast(representation[name]) for name in split.test]
        times = [np.stack([*one.remaining]) / 60 for one in forecasts]
        own = _time_scores(times, [one.progress.expected for one in forecasts], float(folder.timeline.rate))
        return Answers(own, forecaster=forecaster)

    def controls(self, folder: FeatureFolder, split: Split) -> Mapping[str, Scores]:
        """Methods that know nothing but the elapsed time."""
        rate = float(folder.timeline.rate)
        clock = Clock(np.sort([folder.length(name) / rate for name in split.train]))
        methods: Mapping[str, Callable[[Floats], Floats]] = {
            "median - elapsed": lambda elapsed: np.maximum(clock.median - elapsed, 0),
            "elapsed time": clock.remaining,
        }
        lengths = {name: folder.length(name) for name in (*split.valid, *split.test)}
        return {name: _clock_scores(method, lengths, split, rate) for name, method in methods.items()}


def fit(
    representation: Representation, folder: FeatureFolder, split: Split, horizons: Sequence[float] = HORIZONS
) -> Forecaster:
    """Fit a forecaster on the training and validation videos of a split, for the horizons of at least a slot.

    Raises:
        InputError: as for `fit_forecaster`.
    """
    rate = float(folder.timeline.rate)
    usable = [horizon for horizon in horizons if round(horizon * rate)] or [1 / rate]
    train, valid = (
        (Listed(representation, names), [folder.labels(name) for name in names]) for names in (split.train, split.valid)
    )
    return fit_forecaster(*train, *valid, names=folder.classes, rate=rate, horizons=usable)


def _chained(chain: StepChain, slots: int, certain: bool) -> Callable[[Floats], Floats]:
    """A function from the probabilities of the current step (T, C) to those after some slots."""

    def later(now: Floats) -> Floats:
        steps = now.argmax(1)
        return chain.later(steps, ages(steps), slots) if certain else chain.mixed(now, steps, ages(steps), slots)

    return later


def _clock_scores(method: Callable[[Floats], Floats], lengths: Mapping[str, int], split: Split, rate: float) -> Scores:
    """Scores of a forecast of the seconds left from the seconds that have passed."""
    elapsed = {name: np.arange(length) / rate for name, length in lengths.items()}
    off = [remaining_slots(lengths[name]) / rate - method(elapsed[name]) for name in split.valid]
    low, high = weighted_quantiles(np.concatenate(off), np.concatenate([np.full(len(x), 1 / len(x)) for x in off]))
    times, shares = [], []
    for name in split.test:
        left = method(elapsed[name])
        times.append(np.maximum(np.stack([left, left + low, left + high]), 0) / 60)
        shares.append((elapsed[name] + 1 / rate) / (elapsed[name] + 1 / rate + left))
    return _time_scores(times, shares, rate)


def _time_scores(times: Sequence[Floats], shares: Sequence[Floats], rate: float) -> Scores:
    """Measures of forecasts of the minutes left with their intervals, (3, T), and of the progress (T,), by video."""
    found: dict[str, list[float]] = {}
    for (expected, low, high), share in zip(times, shares, strict=True):
        left, progress = remaining_slots(len(share)) / rate / 60, np.arange(1, len(share) + 1) / len(share)
        off, last = np.abs(expected - left), max(1, round(LAST * len(share)))
        measures = {
            "MAE (min)": off.mean(),
            "MAE of the last fifth (min)": off[-last:].mean(),
            "progress MAE (%)": 100 * np.abs(share - progress).mean(),
            "interval width (min)": (high - low).mean(),
            "interval holds (%)": 100 * ((low <= left) & (left <= high)).mean(),
        }
        for measure, value in measures.items():
            found.setdefault(measure, []).append(float(value))
    scores: dict[str, float | VideoScores] = {
        measure: VideoScores(np.array(values), np.ones(len(values))) for measure, values in found.items()
    }
    for measure in ("interval width (min)", "interval holds (%)"):  # neither is better for being larger or smaller
        scores[measure] = float(np.mean(found[measure]))
    return scores
