"""The task ``mistakes``: find what is wrong in runs of a procedure, knowing correct runs only.

Everything is fitted on correct runs: steps, graph and nearest frames on the training videos, calibration on the
validation videos. Test videos need annotated mistakes (`keystep.data.mistakes`). All scores are causal, with the delay
of their row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from keystep.data.mistakes import Mistake, mistaken_frames, read_mistakes
from keystep.data.tasks import find_tasks
from keystep.errors import InputError, named
from keystep.evals.bootstrap import Difference
from keystep.evals.calibration import Calibration, deviations
from keystep.evals.detection import MEASURES, Detection, Truth
from keystep.evals.graphing import graph_of_segments, labelled_segments
from keystep.evals.head_sources import HeadInput, sources
from keystep.evals.judge import Judge
from keystep.evals.mistake_monitor import MistakeMonitor
from keystep.evals.modes import mark_oracle, slot_delay
from keystep.evals.protocol import Entrant, Evaluation
from keystep.evals.representation import Representation
from keystep.evals.surprises import (
    Floats,
    PredictorError,
    Signal,
    change_points,
    elapsed,
    live_steps,
    nearest_distance,
    step_names,
    unusual_time,
)
from keystep.procedure import GraphConfig, Order
from keystep.procedure.tracking import Tracker
from keystep.progress import SILENT, Progress
from keystep.stream.smoothing import Smoothing

NONE = Smoothing()
RESAMPLES = 1000
"""Number of bootstrap samples of an interval."""
ERROR, ORDER, BOTH, NEAREST = "predictor's error", "order", "error and order", "nearest training frame"
TRUE_ORDER = mark_oracle(f"{ORDER}, true steps")
"""Name of the row that no stream can have."""


@dataclass(eq=False)
class MistakeRow:
    """A row of the table. control: whether nothing was learned without labels. runs: by seed."""

    name: str
    delay: float
    control: bool
    runs: dict[int, Detection] = field(default_factory=dict)

    def mean(self, measure: str) -> float:
        """Mean over seeds, 0-100."""
        return float(np.mean([run.measures()[measure][0] for run in self.runs.values()]))


@dataclass(frozen=True, eq=False)
class Steps:
    """Steps that were announced on one representation, and what follows from them.

    Attributes:
        ids: video -> (T,) class ids.
        order: video -> (T,) surprise of the order.
        done: video -> the steps that were done.
        smoothing: with which they were announced.
    """

    ids: Mapping[str, np.ndarray]
    order: Mapping[str, Floats]
    done: Mapping[str, tuple[str, ...]]
    smoothing: Smoothing


class MistakeStudy:
    """The rows of all methods on the same videos.

    Args:
        judge: data and split.

    Raises:
        InputError: training or validation videos with mistakes, or test videos that are not annotated.
    """

    def __init__(self, judge: Judge) -> None:
        self.judge, self.folder, self.rate = judge, judge.folder, float(judge.folder.timeline.rate)
        split = judge.split
        self.correct, self.videos = split.valid, (*split.valid, *split.test)
        for video in (*split.train, *split.valid):
            if read_mistakes(self.folder, video):
                raise InputError(
                    f"{self.folder.root}: {video} has mistakes, but split {split.name} trains on it or calibrates with "
                    "it; make a split whose training and validation videos are correct runs"
                )
        self.mistakes = {video: self._annotated(video) for video in split.test}
        self.background = tuple(self.folder.classes[label] for label in judge.background)
        self.rows: dict[str, MistakeRow] = {}
        self.monitors: dict[tuple[str, int, str], MistakeMonitor] = {}
        self.missing: dict[str, dict[int, Mapping[str, tuple[str, ...]]]] = {}

    def _annotated(self, video: str) -> list[Mistake]:
        found = read_mistakes(self.folder, video)
        if found is None:
            raise InputError(
                f"{self.folder.root}: no mistakes/{video}.csv; every test video needs one, with a header only if its "
                "run is correct (docs/mistakes.md)"
            )
        return found

    @cached_property
    def truths(self) -> dict[str, Truth]:
        """Test video -> truth."""
        return {
            video: Truth.of(self.folder.labels(video), mistaken_frames(found, self.folder.length(video)))
            for video, found in self.mistakes.items()
        }

    @cached_property
    def tasks(self) -> dict[str, str]:
        """Video -> its task, which a stream knows; empty if there is only one."""
        return find_tasks(self.folder, self.judge.videos)

    @cached_property
    def trackers(self) -> dict[str, Tracker]:
        """Task -> what follows its runs with the order of the labelled training videos.

        Raises:
            InputError: a task without a training video.
        """
        found = {}
        for task in dict.fromkeys(self.tasks[video] for video in self.videos):
            train = [video for video in self.judge.split.train if self.tasks[video] == task]
            if not train:
                raise InputError(f"{self.folder.root}: task {named(task)} has no training video in this split")
            segments = labelled_segments(self.folder, train)
            config = GraphConfig(support=max(2, min(GraphConfig().support, len(train) // 4)))
            graph = graph_of_segments(segments, self.rate, config, background=self.background)
            found[task] = Tracker(Order(graph), self.rate)
        return found

    @cached_property
    def lengths(self) -> dict[str, int]:
        """Video -> number of slots."""
        return {video: self.folder.length(video) for video in self.videos}

    def steps(self, ids: Mapping[str, np.ndarray], smoothing: Smoothing = NONE) -> Steps:
        """Follow announced (or true) steps with the graph."""
        runs = {
            video: self.trackers[self.tasks[video]].of_run(step_names(own, self.folder.classes, self.background))
            for video, own in ids.items()
        }
        order = {video: found for video, (found, _) in runs.items()}
        return Steps(ids, order, {video: done for video, (_, done) in runs.items()}, smoothing)

    def calibration(self, values: Mapping[str, Floats], steps: Steps | None) -> Calibration:
        """A calibration on the correct videos, by step unless steps are None."""
        phases = None if steps is None else [steps.ids[video] for video in self.correct]
        return Calibration.of([values[video] for video in self.correct], phases)

    def tails(self, values: Mapping[str, Floats], steps: Steps | None) -> dict[str, Floats]:
        """Video -> (T,) share of correct frames (of the same step) with at least this value."""
        calibration = self.calibration(values, steps)
        return {
            video: calibration.tail(values[video], None if steps is None else steps.ids[video]) for video in self.videos
        }

    def both(self, first: Mapping[str, Floats], second: Mapping[str, Floats]) -> dict[str, Floats]:
        """The tails of two signals together: the tail of the sum of their negative logarithms (Fisher)."""
        return self.tails(_sums(first, second), None)

    def marked(self, name: str) -> str:
        """The name of a row, marked as ORACLE if the data were made with true boundaries."""
        return mark_oracle(name) if self.folder.oracle else name

    def add(self, name: str, control: bool, seed: int, tails: Mapping[str, Floats], delay: float) -> None:
        """Add a run to a row, which is created for its first seed. delay: in seconds, look-ahead included."""
        name = self.marked(name)
        row = self.rows.setdefault(name, MistakeRow(name, delay, control))
        scores = {video: deviations(tails[video]) for video in self.truths}
        row.runs[seed] = Detection.of(scores, self.truths)

    def note_done(self, name: str, seed: int, steps: Steps) -> None:
        """Keep what is missing at the end of the test videos."""
        found = {video: self.trackers[self.tasks[video]].order.missing(steps.done[video]) for video in self.truths}
        self.missing.setdefault(self.marked(name), {})[seed] = found


def judge_mistakes(evaluation: Evaluation, entrants: Sequence[Entrant], progress: Progress = SILENT) -> MistakeStudy:
    """Score the controls, and every model that is causal and predicts what it cannot see.

    Raises:
        InputError: as for `MistakeStudy`, or a model without causal attention.
    """
    judge = evaluation.judge
    study = MistakeStudy(judge)
    best = evaluation.best_control["causal"].control if "causal" in evaluation.best_control else None
    asked = list(sources(judge, entrants, "causal", 1, best))
    models = {(mark_oracle(one.name) if one.model.config.oracle else one.name, one.seed): one for one in entrants}
    with progress.task("judging mistakes", total=len(asked), unit="representations") as meter:
        for source in asked:
            _add_source(study, evaluation, source, models.get((source.name, source.seed)))
            meter.advance(note=source.name)
        _add_oracle(study)
    return study


def _add_source(study: MistakeStudy, evaluation: Evaluation, source: HeadInput, entrant: Entrant | None) -> None:
    """The rows on one representation: order, nearest training frame, and for a model, the predictor's error."""
    representation, control, seed = source.made(), source.family != "learned", source.seed
    wait = (source.delay or 0.0) + (source.block - 1 if source.block else 0) / study.rate
    steps = _announced(study, evaluation, source, representation)
    order = study.tails(steps.order, steps)
    study.note_done(f"{ORDER}, {source.name}", seed, steps)
    study.add(f"{ORDER}, {source.name}", control, seed, order, wait)
    train = study.judge.split.train
    nearest = nearest_distance(representation, study.videos, train, sum(map(study.folder.length, train)))
    calibrated = study.tails(nearest, steps)
    study.add(f"{NEAREST}, {source.name}", control, seed, calibrated, wait)
    study.add(f"{NEAREST} and order, {source.name}", control, seed, study.both(calibrated, order), wait)
    if source.family == "raw":
        study.add(f"{NEAREST} (not calibrated), {source.name}", True, 0, study.tails(nearest, None), wait)
        for name, signal, phases in _simple(study, representation, steps):
            study.add(name, True, 0, study.tails(signal.values, phases), wait + signal.delay)
    if entrant is None:
        return
    try:
        found = PredictorError.of(entrant.model, study.folder, study.videos, study.correct)
    except InputError as error:  # a model that sees the future; its order is live all the same
        study.folder.problems.notes.append(f"{source.name}: no predictor's error: {error}")
        return
    unusual, wait = study.tails(found.values, steps), wait + found.surprise.delay / study.rate
    study.add(f"{ERROR}, {source.name}", control, seed, unusual, wait)
    study.add(f"{BOTH}, {source.name}", control, seed, study.both(unusual, order), wait)
    for task, tracker in study.trackers.items():
        study.monitors[source.name, seed, task] = _monitor(study, found, steps, unusual, order, tracker)


def _monitor(
    study: MistakeStudy,
    found: PredictorError,
    steps: Steps,
    error: Mapping[str, Floats],
    order: Mapping[str, Floats],
    tracker: Tracker,
) -> MistakeMonitor:
    """The same on a stream."""
    return MistakeMonitor(
        found.surprise,
        found.typical,
        steps.smoothing,
        tracker,
        study.folder.classes,
        study.background,
        study.calibration(found.values, steps),
        study.calibration(steps.order, steps),
        study.calibration(_sums(error, order), None),
    )


def _sums(first: Mapping[str, Floats], second: Mapping[str, Floats]) -> dict[str, Floats]:
    """Video -> (T,) sum of the negative logarithms of two tails."""
    return {video: -np.log(tail) - np.log(second[video]) for video, tail in first.items()}


def _announced(study: MistakeStudy, evaluation: Evaluation, source: HeadInput, representation: Representation) -> Steps:
    """The steps that the linear probe of a representation announces on a stream."""
    row = evaluation.find(study.marked(source.name), "causal")
    if source.family == "control" and not row:
        row = evaluation.best_control["causal"].row
    assert row is not None, f"no linear probe of {source.name}"
    probe = next(run.probe for run in row.runs if run.seed == source.seed)
    scores = {video: probe.scores(representation[video]) for video in study.videos}
    labels = {video: study.judge.labels[video] for video in study.correct}
    return study.steps(*live_steps(scores, labels, study.rate))


def _simple(study: MistakeStudy, raw: Representation, steps: Steps) -> Iterator[tuple[str, Signal, Steps | None]]:
    """Controls that know only how features change, or what time it is; with the steps to calibrate them by."""
    yield "change-point score, raw features", change_points(raw, study.videos, study.rate), steps
    clock = elapsed(study.lengths, study.rate)
    yield "clock", Signal(clock, 0.0), None
    yield "clock, by step", Signal(unusual_time(clock, steps.ids, study.correct), 0.0), None


def _add_oracle(study: MistakeStudy) -> None:
    """The order of the true steps, which no stream knows."""
    steps = study.steps({video: study.folder.labels(video) for video in study.videos})
    study.note_done(TRUE_ORDER, 0, steps)
    study.add(TRUE_ORDER, True, 0, study.tails(steps.order, steps), slot_delay(study.folder))


def video_draws(judge: Judge, resamples: int, seed: int = 0) -> Floats:
    """(resamples, videos): how often each test video, or all videos of its group, is drawn with replacement."""
    videos = judge.split.test
    names = [judge.groups.get(video, video) if judge.groups else video for video in videos]
    order = list(dict.fromkeys(names))
    counts = np.random.default_rng(seed).multinomial(len(order), np.full(len(order), 1 / len(order)), resamples)
    return counts[:, [order.index(name) for name in names]].astype(np.float64)


class Intervals:
    """Bootstrap intervals of rows and their differences, over the test videos (or groups) and over seeds.

    Every row is measured on the same draws of videos; seeds are drawn independently.
    """

    def __init__(self, study: MistakeStudy) -> None:
        self.study, self.draws = study, video_draws(study.judge, RESAMPLES)
        self._drawn: dict[str, dict[str, Floats]] = {}

    def drawn(self, row: MistakeRow) -> dict[str, Floats]:
        """Measure -> (`RESAMPLES`,) values of a row."""
        if row.name not in self._drawn:
            rng = np.random.default_rng((1, len(self._drawn)))
            runs = [run.measures(self.draws) for run in row.runs.values()]
            weights = rng.multinomial(len(runs), np.full(len(runs), 1 / len(runs)), RESAMPLES) / len(runs)
            self._drawn[row.name] = {
                measure: (np.stack([run[measure] for run in runs], axis=1) * weights).sum(1) for measure in MEASURES
            }
        return self._drawn[row.name]

    def of(self, row: MistakeRow, measure: str) -> tuple[float, float]:
        """The 95 % interval of a row."""
        low, high = np.percentile(self.drawn(row)[measure], [2.5, 97.5])
        return float(low), float(high)

    def difference(self, row: MistakeRow, rival: MistakeRow, measure: str) -> Difference:
        """First row minus second row, in points."""
        low, high = np.percentile(self.drawn(row)[measure] - self.drawn(rival)[measure], [2.5, 97.5])
        count = len(self.study.judge.by_group(self.study.judge.frames))
        mean = row.mean(measure) - rival.mean(measure)
        return Difference(mean, float(low), float(high), (len(row.runs), len(rival.runs)), count)


def strongest(study: MistakeStudy, measure: str) -> MistakeRow:
    """The control with the highest mean on the test videos, without those that know the truth."""
    fair = [row for row in study.rows.values() if row.control and row.name != TRUE_ORDER]
    return max(fair, key=lambda row: row.mean(measure))


@dataclass(frozen=True, eq=False)
class Missed:
    """Omitted steps that were found at the end of the test videos, (seeds, videos) each."""

    right: Floats
    named: Floats
    omitted: Floats

    def scores(self) -> list[dict[str, float]]:
        """Precision, recall and F1 of each seed, 0-100, pooled over videos."""
        right, named, omitted = (values.sum(1) for values in (self.right, self.named, self.omitted))
        f1 = 200 * right / np.maximum(named + omitted, 1)
        shares = 100 * right / np.maximum(named, 1), 100 * right / np.maximum(omitted, 1), f1
        return [
            dict(zip(("precision", "recall", "F1"), map(float, run), strict=True)) for run in zip(*shares, strict=True)
        ]


def missed(study: MistakeStudy, name: str) -> Missed:
    """Compare what is missing at the end, according to a row's steps, with the annotated omissions."""
    counts = []
    for found in study.missing[name].values():
        for video, missing in found.items():
            omitted = {mistake.step for mistake in study.mistakes[video] if mistake.start == mistake.stop}
            counts.append((len(omitted & set(missing)), len(missing), len(omitted)))
    table = np.array(counts, dtype=np.float64).reshape(len(study.missing[name]), -1, 3)
    return Missed(*np.moveaxis(table, 2, 0))
