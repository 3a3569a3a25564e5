"""Temporal heads on raw features, on the best control, and on learned latents: the paper's evaluation, honestly.

Every head is trained on the training videos, its epoch is chosen on the validation videos, and the test videos only
score. Offline rows may see the whole video; causal rows, representation and head together, answer with a stated delay.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from keystep.config.base import build
from keystep.data.annotation import segment_lengths
from keystep.data.clips import FILE as CLIPS
from keystep.data.clips import read_clips
from keystep.data.folder import FeatureFolder
from keystep.errors import InputError
from keystep.evals.bootstrap import Difference, Shares, paired_shares
from keystep.evals.judge import Family, Judge, Mode, Representation
from keystep.evals.modes import answer_slots, answers_later, marked_oracle, patterns_of
from keystep.evals.protocol import SEEDS_FOR_A_CLAIM, TOKENS_NOTE, Entrant, EvalConfig
from keystep.evals.published import PUBLISHED
from keystep.evals.streaming_protocol import score_at_the_moment, score_segments
from keystep.evals.suite_sources import Source, sources
from keystep.evals.trimmed import (
    CONTEXTS,
    PerFrame,
    classify_clips,
    judge_clips,
    parts_of,
    scores_of,
    write_submission,
)
from keystep.heads import (
    PRESETS,
    Head,
    HeadConfig,
    TrainingConfig,
    describe,
    frames_per_second,
    head_config,
    train_head,
)
from keystep.metrics import OVERLAPS, PROTOCOLS, Tally, tally_video
from keystep.pjepa import PJEPA
from keystep.progress import SILENT, Progress, Task

SUITES = ("paper",)
COMPARED = ("accuracy", "edit", "f1@50")
"""What gains are stated in."""
SUBMISSION = "submission.json"
"""Beside a causal head, where a benchmark keeps labels: what it says of their clips."""


class SuiteConfig(EvalConfig):
    """What ``keystep eval --suite paper`` trains."""

    data_set: str | None = None
    """As for ``keystep prepare``: whose published rows stand beside ours. By default what prepared the folder says."""
    heads: Annotated[tuple[str, ...], Field(min_length=1)] = ("linear", "mstcn", "context")
    """Presets of heads: linear, mstcn, context, attentive, mstcn-small, context-small."""
    head_settings: dict[str, dict[str, Any]] = Field(default={})
    """Changes of a preset, such as {mstcn: {maps: 32}}."""
    training: TrainingConfig = TrainingConfig(patience=10)
    seeds: int = Field(default=3, ge=1)
    """Seeds of the heads on representations that have no seed themselves; a model's seeds are its runs."""
    modes: Annotated[tuple[Mode, ...], Field(min_length=1)] = ("offline", "causal")
    by_segments: bool = False
    """Also score each true segment by one answer, as EgoProceL's streaming evaluation does (ORACLE)."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for what, names in (("heads", self.heads), ("modes", self.modes)):
            if len(set(names)) < len(names):
                raise ValueError(f"{what} {', '.join(names)}: each once; the same again is no other seed")
        unknown = sorted(set(self.heads) - set(PRESETS))
        if unknown:
            raise ValueError(f"unknown head {unknown[0]!r}; known: {', '.join(PRESETS)}")
        unknown = sorted(set(self.head_settings) - set(self.heads))
        if unknown:
            raise ValueError(f"head_settings of {unknown[0]}, which is none of the heads {', '.join(self.heads)}")
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"protocol {self.protocol!r} is none of {', '.join(PROTOCOLS)}")
        return self


@dataclass(frozen=True)
class HeadRun:
    """One trained head. scores, correct, predictions: on the test videos, as `judge.Run` has them."""

    seed: int
    scores: dict[str, float]
    at_the_moment: dict[str, float]
    """The same of what was said at each slot's own time, late answers counting against it; causal rows only."""
    by_segments: dict[str, dict[str, float]]
    clips: dict[str, float]
    """Top-1 of trimmed clips, with the causal context of their takes and each alone; empty where there are none."""
    correct: np.ndarray
    tallies: list[Tally]
    """Of each test video, for the bootstrap of edit and F1."""
    predictions: dict[str, np.ndarray]
    record: dict[str, Any]


@dataclass
class HeadRow:
    """One line of the table: a head on a representation, over seeds."""

    representation: str
    head: str
    family: Family
    mode: Mode
    delay: float | None
    detail: str
    parameters: int
    speed: float
    """Frames that the head scores in a second, on this machine."""
    runs: list[HeadRun] = field(default_factory=list)

    def mean(self, metric: str) -> float:
        """Mean of a test metric over seeds."""
        return float(np.mean([run.scores[metric] for run in self.runs]))

    def spread(self, metric: str) -> float | None:
        """Standard deviation over seeds; None for a single one."""
        return float(np.std([run.scores[metric] for run in self.runs], ddof=1)) if len(self.runs) > 1 else None

    def shares(self, metric: str, judge: Judge) -> Shares:
        """What a score is made of, seed by seed and video by video (or group by group), under protocol pooled."""
        tallies = [run.tallies for run in self.runs]
        if metric == "accuracy":
            parts = [[(t.frames[0, 0], t.frames[0, 1]) for t in row] for row in tallies]
        elif metric == "edit":
            parts = [[(t.edit[0] / 100, t.edit[1]) for t in row] for row in tallies]
        else:
            place = OVERLAPS.index(int(metric.removeprefix("f1@")) / 100)
            counts = [[t.matches[place] for t in row] for row in tallies]
            parts = [[(2 * tp, 2 * tp + fp + fn) for tp, fp, fn in row] for row in counts]
        both = np.array(parts, dtype=np.float64)  # (seeds, videos, 2)
        return Shares(judge.by_group(both[..., 0]), judge.by_group(both[..., 1]))


@dataclass(frozen=True)
class Gain:
    """What a learned representation adds under one head, against another one under the same, in points of a metric."""

    head: str
    mode: Mode
    first: str
    second: str
    metric: str
    difference: Difference
    later: bool
    """The first answers later than the second: no fair win."""
    stronger: str = ""
    """The simple control that scores higher than the second on the test videos, and that the first does not beat."""

    @property
    def holds(self) -> bool:
        """Better with an interval that excludes zero, over enough seeds of both sides, and not by waiting longer."""
        return self.wins and not self.stronger

    @property
    def wins(self) -> bool:
        """`holds` against the second alone, whatever other control is stronger."""
        return self.difference.low > 0 and min(self.difference.seeds) >= SEEDS_FOR_A_CLAIM and not self.later


@dataclass
class ClipRow:
    """Linear probes on a representation's clips, each fitted in the context that it is used in: top-1 of each seed."""

    representation: str
    clips: int
    top1: dict[str, list[float]]


@dataclass
class Suite:
    """What a suite found."""

    rows: list[HeadRow] = field(default_factory=list)
    clip_rows: list[ClipRow] = field(default_factory=list)


def run_suite(
    judge: Judge,
    entrants: Sequence[Entrant],
    config: SuiteConfig,
    folder: Path,
    progress: Progress = SILENT,
    weights: Mapping[tuple[str, int], str] | None = None,
) -> Suite:
    """Train and score every head on every representation; ``folder`` keeps what is done, so that a stopped run goes on.

    weights: (name, seed) of an entrant -> hash of its weights, which its heads remember.

    Raises:
        InputError: a head's settings, features that do not fit, or a folder that holds a run with other settings.
    """
    if judge.folder.tokens > 1:
        judge.folder.problems.notes.append(TOKENS_NOTE.format(judge.folder.tokens))
    with progress.task("training heads", total=count_heads(entrants, config), unit="heads") as task:
        return _run(judge, entrants, config, folder, task, weights or {})


def count_heads(entrants: Sequence[Entrant], config: SuiteConfig) -> int:
    """How many heads `run_suite` trains: on raw features, on the best control, and on every model that has the mode."""
    models = sum(mode in patterns_of(entrant.model) for mode in config.modes for entrant in entrants)
    return len(config.heads) * (2 * config.seeds * len(config.modes) + models)


def _run(
    judge: Judge,
    entrants: Sequence[Entrant],
    config: SuiteConfig,
    folder: Path,
    task: Task,
    weights: Mapping[tuple[str, int], str],
) -> Suite:
    suite, rows = Suite(), dict[tuple[str, str, Mode], HeadRow]()
    for mode in config.modes:
        for source in sources(judge, entrants, mode, config.seeds, task, weights):
            representation: Representation | None = None
            for preset in config.heads:
                settings = head_settings(config, preset, mode)
                place = folder / f"{preset}-{source.name}-{mode}-seed{source.seed}".replace("/", "_").replace(" ", "_")
                if representation is None:
                    representation = source.made()
                run, head = _trained(judge, representation, settings, config, source, place, task)
                row = rows.get((source.name, preset, mode))
                if row is None:
                    row = rows[source.name, preset, mode] = _row(judge, source, preset, head)
                    suite.rows.append(row)
                row.runs.append(run)
            if mode == "causal" and source.family != "control" and (judge.folder.root / CLIPS).exists():
                _probe_clips(judge, source, config, suite)
    return suite


def suite_config(suite: str, settings: Mapping[str, Any]) -> SuiteConfig:
    """What a suite is to do, with every setting checked, those of all heads included.

    Raises:
        InputError: an unknown suite, setting, head or data set, or a value that does not fit.
    """
    if suite not in SUITES:
        raise InputError(f"--suite {suite!r} is none of {', '.join(SUITES)}")
    config = build(SuiteConfig, settings)
    if config.data_set is not None and config.data_set not in PUBLISHED:
        raise InputError(f"data_set {config.data_set!r}: no printed rows; there are {', '.join(PUBLISHED)}")
    for mode in config.modes:
        for preset in config.heads:
            head_settings(config, preset, mode)
    return config


def check_clips(folder: FeatureFolder, groups: Sequence[tuple[str, list[PJEPA]]]) -> None:
    """Models that attend by segment cannot read trimmed clips, which have none."""
    if not (folder.root / CLIPS).exists():
        return
    for name, models in groups:
        if any(found.config.oracle for found in models):
            raise InputError(
                f"--model {name}: attends by segment, and {folder.root / CLIPS} holds clips, which have none"
            )


def head_settings(config: SuiteConfig, preset: str, mode: Mode) -> HeadConfig:
    """A preset with its changes; strictly causal in causal mode, where the kind has both."""
    changes = config.head_settings.get(preset, {})
    if "causal" in changes:
        raise InputError(f"head_settings of {preset}: causal follows from the mode; leave it out")
    try:
        settings = head_config(preset, changes)
        causal = {"causal": mode == "causal"} if "causal" in type(settings).model_fields else {}
        return head_config(preset, {**changes, **causal})
    except InputError as error:
        raise InputError(f"head {preset}: {str(error).lstrip(': ')}") from error


def _trained(
    judge: Judge,
    representation: Representation,
    settings: HeadConfig,
    config: SuiteConfig,
    source: Source,
    place: Path,
    task: Task,
) -> tuple[HeadRun, Head]:
    def part(names: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(representation[name], judge.labels[name]) for name in names]

    what = f"{settings.kind} on {source.name} ({source.mode}, seed {source.seed})"
    trained = train_head(
        settings,
        part(judge.split.train),
        part(judge.split.valid),
        classes=len(judge.folder.classes),
        training=config.training,
        seed=source.seed,
        background=judge.background,
        names=judge.folder.classes,
        origin={"representation": source.name, **source.origin},
        folder=place,
        progress=lambda epoch, epochs, measured: task.advance(0, f"{what}: epoch {epoch} of {epochs}"),
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
    task.advance(note=what)
    device = trained.head.standardise.mean.device
    predictions = {
        name: trained.head.predict(torch.from_numpy(representation[name])[None].to(device))[0].cpu().numpy()
        for name in judge.split.test
    }
    scores, correct = judge.score(predictions)
    moment = _at_the_moment(judge, predictions, source, trained.head)
    by_segments = _by_segments(judge, predictions) if config.by_segments else {}
    clips = _clips(judge, scores_of(source.frames, trained.head), place) if source.mode == "causal" else {}
    record = {"best_epoch": trained.record["best_epoch"], "valid_scores": trained.record["valid_scores"]}
    tallies = [
        tally_video(judge.at_frames(name, predictions[name]), judge.truths[name], judge.background, name=name)
        for name in judge.split.test
    ]
    run = HeadRun(source.seed, scores, moment, by_segments, clips, correct, tallies, predictions, record)
    return run, trained.head


def _at_the_moment(judge: Judge, predictions: Mapping[str, np.ndarray], source: Source, head: Head) -> dict[str, float]:
    """What a live system says at each slot's own time, at the slots' rate; nothing where that is not known."""
    if source.mode != "causal" or source.block is None or head.delay is None:
        return {}
    names = judge.split.test
    delays = [
        answer_slots(len(predictions[name]), source.block, head.delay + 1) - np.arange(len(predictions[name]))
        for name in names
    ]
    truths = [judge.folder.labels(name) for name in names]
    return score_at_the_moment(
        [predictions[name] for name in names],
        truths,
        delays=delays,
        background=judge.background,
        protocol=judge.protocol,
    ).scores


def _probe_clips(judge: Judge, source: Source, config: SuiteConfig, suite: Suite) -> None:
    """Another seed of a representation's clip row."""
    clips = read_clips(judge.folder.root / CLIPS, len(judge.folder.classes))
    found = judge_clips(judge.folder, clips, judge.split, source.frames, config=config.probe)
    row = next((row for row in suite.clip_rows if row.representation == source.name), None)
    if row is None:
        row = ClipRow(source.name, len(found["take"].clips), {context: [] for context in CONTEXTS})
        suite.clip_rows.append(row)
    for context, result in found.items():
        row.top1[context].append(result.top1)


def _clips(judge: Judge, score: PerFrame, place: Path) -> dict[str, float]:
    """Trimmed clips of the test takes, and predictions for those whose labels the benchmark keeps."""
    table = judge.folder.root / CLIPS
    if not table.exists():
        return {}
    clips = read_clips(table, len(judge.folder.classes))
    test = parts_of(clips, judge.split)[2]
    found = {context: classify_clips(judge.folder, test, score, context=context).top1 for context in CONTEXTS}
    hidden = [clip for clip in clips if clip.part == "hidden" and clip.name and clip.take in judge.folder.videos]
    if hidden:
        write_submission(place / SUBMISSION, classify_clips(judge.folder, hidden, score, context="take"))
    return {str(context): top1 for context, top1 in found.items()}


def _by_segments(judge: Judge, predictions: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """One answer for each true segment: what most of its frames say, or its last one (ORACLE)."""
    names = judge.split.test
    at_frames = [judge.at_frames(name, predictions[name]) for name in names]
    truths = [judge.truths[name] for name in names]
    lengths = [segment_lengths(truth) for truth in truths]
    return {
        choice: score_segments(
            at_frames, truths, lengths=lengths, choice=choice, background=judge.background, protocol=judge.protocol
        ).scores
        for choice in ("majority", "last")
    }


def _row(judge: Judge, source: Source, preset: str, head: Head) -> HeadRow:
    """The line of a head on a representation; the head's own wait comes on top of the representation's."""
    rate, chunk = float(judge.folder.timeline.rate), None if head.delay is None else head.delay + 1
    delay = None
    if chunk is not None and source.delay is not None:
        block, period = source.block or 1, (source.block or 1) * chunk
        waits = answer_slots(2 * period, block, chunk)[:period] - np.arange(period)
        delay = source.delay + float(waits.max()) / rate
    name = marked_oracle(source.name) if judge.folder.oracle else source.name
    parameters = describe(head).parameters
    speed = frames_per_second(head)
    return HeadRow(name, preset, source.family, source.mode, delay, source.detail, parameters, speed)


def gains(rows: Sequence[HeadRow], judge: Judge) -> list[Gain]:
    """Each learned row against raw features and against the best control, under the same head, paired by video (or by
    group, where the judge knows groups).

    Raw features are an average over one frame, so both are one kind of control: a line against the weaker of the two on
    the test videos holds only where that against the stronger does.
    """
    found = []
    simple = {row.representation for row in rows if row.family in ("raw", "control")}
    for row in rows if len(judge.by_group(judge.frames)) > 1 else ():  # one video has no interval
        if row.family not in ("learned", "oracle"):
            continue
        for other in rows:
            if (other.head, other.mode) == (row.head, row.mode) and other.family in (
                "raw",
                "control",
                "reconstruction",
            ):
                names, later = (row.representation, other.representation), answers_later(row, other)
                for metric in COMPARED:
                    difference = paired_shares(row.shares(metric, judge), other.shares(metric, judge))
                    found.append(Gain(row.head, row.mode, *names, metric, difference, later))
    return [replace(gain, stronger=_stronger(gain, found, simple)) for gain in found]


def _stronger(gain: Gain, found: Sequence[Gain], simple: Collection[str]) -> str:
    """Of the simple controls, the one that beats a gain's rival on the test videos and is not beaten itself."""
    same = [
        other
        for other in found
        if (other.head, other.mode, other.first, other.metric) == (gain.head, gain.mode, gain.first, gain.metric)
        and other.second in simple
    ]
    hardest = min(same, key=lambda other: other.difference.mean, default=gain)
    harder = gain.second in simple and hardest.difference.mean < gain.difference.mean and not hardest.wins
    return hardest.second if harder else ""
