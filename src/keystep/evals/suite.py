"""Temporal heads on raw features, on the best control, and on learned latents: the paper's evaluation, honestly.

Every head is trained on the training videos, its epoch is chosen on the validation videos, and the test videos only
score. Offline rows may see the whole video; causal rows, representation and head together, answer with a stated delay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from keystep.data.annotation import segment_lengths
from keystep.evals import controls
from keystep.evals.bootstrap import Difference, paired_bootstrap
from keystep.evals.clips import FILE as CLIPS
from keystep.evals.clips import read_clips
from keystep.evals.encoding import encode_videos
from keystep.evals.judge import Family, Judge, Mode, Representation
from keystep.evals.modes import marked_oracle, pattern_delay, patterns_of, slot_delay
from keystep.evals.protocol import Entrant, EvalConfig
from keystep.evals.results import head_origin
from keystep.evals.streaming_protocol import score_segments
from keystep.evals.trimmed import (
    CONTEXTS,
    PerFrame,
    classify_clips,
    model_frames,
    parts_of,
    raw_frames,
    scores_of,
    write_submission,
)
from keystep.temporal import TrainingConfig, describe, frames_per_second, head_config, train_head
from keystep.temporal.config import HeadConfig
from keystep.temporal.head import TemporalHead

BEST_CONTROL = "best control"
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


@dataclass(frozen=True, eq=False)
class Source:
    """One representation in one mode. delay: seconds until it is final; None: when the video is over."""

    name: str
    family: Family
    mode: Mode
    seed: int
    delay: float | None
    detail: str
    origin: Mapping[str, str]
    """What a head on it has to be used with; for `keystep stream`."""
    made: Callable[[], Representation]
    """(T, D) of each video of the split."""
    frames: PerFrame
    """The same of any stretch of features, for clips."""


@dataclass(frozen=True)
class HeadRun:
    """One trained head. scores, correct, predictions: on the test videos, as `judge.Run` has them."""

    seed: int
    scores: dict[str, float]
    by_segments: dict[str, dict[str, float]]
    clips: dict[str, float]
    """Top-1 of trimmed clips, with the causal context of their takes and each alone; empty where there are none."""
    correct: np.ndarray
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

    @property
    def correct(self) -> np.ndarray:
        """(seeds, videos) right frames of the test videos."""
        return np.stack([run.correct for run in self.runs])


@dataclass(frozen=True)
class Gain:
    """What a learned representation adds under one head, against another one under the same."""

    head: str
    mode: Mode
    first: str
    second: str
    difference: Difference


def run_suite(
    judge: Judge,
    entrants: Sequence[Entrant],
    config: SuiteConfig,
    folder: Path,
    progress: Callable[[str], None] = lambda line: None,
    weights: Mapping[tuple[str, int], str] | None = None,
) -> list[HeadRow]:
    """Train and score every head on every representation; ``folder`` keeps what is done, so that a stopped run goes on.

    weights: (name, seed) of an entrant -> hash of its weights, which its heads remember.

    Raises:
        InputError: a head's settings, features that do not fit, or a folder that holds a run with other settings.
    """
    rows: dict[tuple[str, str, Mode], HeadRow] = {}
    for mode in config.modes:
        for source in sources(judge, entrants, mode, config.seeds, progress, weights or {}):
            representation: Representation | None = None
            for preset in config.heads:
                settings = head_settings(config, preset, mode)
                place = folder / f"{preset}-{source.name}-{mode}-seed{source.seed}".replace("/", "_").replace(" ", "_")
                if representation is None:
                    representation = source.made()
                run, head = _trained(judge, representation, settings, config, source, place, progress)
                row = rows.get((source.name, preset, mode))
                if row is None:
                    row = rows[source.name, preset, mode] = _row(judge, source, preset, head)
                row.runs.append(run)
    return list(rows.values())


def head_settings(config: SuiteConfig, preset: str, mode: Mode) -> HeadConfig:
    """A preset with its changes; strictly causal in causal mode, where the kind has both."""
    settings = head_config(preset, config.head_settings.get(preset))
    causal = {"causal": mode == "causal"} if "causal" in type(settings).model_fields else {}
    return head_config(preset, {**config.head_settings.get(preset, {}), **causal})


def sources(
    judge: Judge,
    entrants: Sequence[Entrant],
    mode: Mode,
    seeds: int,
    progress: Callable[[str], None],
    weights: Mapping[tuple[str, int], str],
) -> Iterator[Source]:
    """Raw features, the control that is best on validation, and every model's latents, in one mode."""
    raw = {name: judge.folder.vectors(name) for name in judge.videos}
    own_delay = slot_delay(judge.folder)
    for seed in range(seeds):
        yield Source("raw features", "raw", mode, seed, own_delay, "", {}, lambda: raw, raw_frames)
    best, transformed = _best_control(judge, raw, mode, progress)
    for seed in range(seeds):
        delay = own_delay if best.causal else None
        yield Source(BEST_CONTROL, "control", mode, seed, delay, best.name, {}, lambda: transformed, best.transform)
    for entrant in entrants:
        pattern = patterns_of(entrant.model).get(mode)
        if pattern is None:
            continue
        wait = pattern_delay(pattern, float(judge.folder.timeline.rate))
        family: Family = "oracle" if entrant.model.config.oracle else "learned"
        family = "reconstruction" if entrant.reconstruction else family
        yield Source(
            marked_oracle(entrant.name) if entrant.model.config.oracle else entrant.name,
            family,
            mode,
            entrant.seed,
            None if wait is None else wait + own_delay,
            entrant.model.config.describe(pattern),
            head_origin(judge.folder, weights.get((entrant.name, entrant.seed), ""), mode, family == "oracle"),
            lambda entrant=entrant, pattern=pattern: dict(  # type: ignore[misc]
                encode_videos(entrant.model, judge.folder, judge.videos, pattern)
            ),
            lambda features, model=entrant.model, pattern=pattern: model_frames(model, pattern)(features),  # type: ignore[misc]
        )


def _best_control(
    judge: Judge, raw: Representation, mode: Mode, progress: Callable[[str], None]
) -> tuple[controls.Control, Representation]:
    """Of moving averages and nine offsets, the one whose linear probe is best on validation."""
    rate, causal = float(judge.folder.timeline.rate), mode == "causal"
    train = [judge.folder.vectors(name) for name in judge.pretraining]
    candidates = [
        *controls.smoothing_controls(rate, causal=causal),
        *controls.offset_controls(train, rate, causal=causal),
    ]
    best, found = -1.0, None
    for control in candidates:
        progress(f"choosing the control: {control.name} ({mode})")
        made = {name: control.transform(features) for name, features in raw.items()}
        accuracy = judge.run(made).valid_accuracy
        if accuracy > best:
            best, found = accuracy, (control, made)
    assert found is not None
    return found


def _trained(
    judge: Judge,
    representation: Representation,
    settings: HeadConfig,
    config: SuiteConfig,
    source: Source,
    place: Path,
    progress: Callable[[str], None],
) -> tuple[HeadRun, TemporalHead]:
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
        progress=lambda epoch, epochs, measured: progress(f"{what}: epoch {epoch} of {epochs}"),
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
    device = trained.head.standardise.mean.device
    predictions = {
        name: trained.head.predict(torch.from_numpy(representation[name])[None].to(device))[0].cpu().numpy()
        for name in judge.split.test
    }
    scores, correct = judge.score(predictions)
    by_segments = _by_segments(judge, predictions) if config.by_segments else {}
    clips = _clips(judge, scores_of(source.frames, trained.head), place) if source.mode == "causal" else {}
    record = {"best_epoch": trained.record["best_epoch"], "valid_scores": trained.record["valid_scores"]}
    return HeadRun(source.seed, scores, by_segments, clips, correct, predictions, record), trained.head


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


def _row(judge: Judge, source: Source, preset: str, head: TemporalHead) -> HeadRow:
    """The line of a head on a representation; the head's own wait comes on top of the representation's."""
    wait = None if head.delay is None else head.delay / float(judge.folder.timeline.rate)
    delay = None if wait is None or source.delay is None else wait + source.delay
    name = marked_oracle(source.name) if judge.folder.oracle else source.name
    parameters = describe(head).parameters
    speed = frames_per_second(head)
    return HeadRow(name, preset, source.family, source.mode, delay, source.detail, parameters, speed)


def gains(rows: Sequence[HeadRow], frames: np.ndarray) -> list[Gain]:
    """Each learned row against raw features and against the best control, under the same head, paired by video."""
    found = []
    for row in rows if len(frames) > 1 else ():
        if row.family not in ("learned", "oracle"):
            continue
        for other in rows:
            if (other.head, other.mode) == (row.head, row.mode) and other.family in (
                "raw",
                "control",
                "reconstruction",
            ):
                difference = paired_bootstrap(row.correct, other.correct, frames)
                found.append(Gain(row.head, row.mode, row.representation, other.representation, difference))
    return found
