"""Temporal heads on raw features, on the best control, and on learned latents, as in the paper's evaluation.

Heads are trained on the training videos, the best epoch is selected on the validation videos, and the test videos are
used for scoring only. Offline rows may use the whole video; causal rows (representation and head) state their delay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from keystep.data.annotation import segment_lengths
from keystep.data.clips import FILE as CLIPS
from keystep.data.clips import read_clips
from keystep.data.folder import FeatureFolder
from keystep.errors import InputError
from keystep.evals.controls import Control
from keystep.evals.head_sources import HeadInput, count_sources, sources
from keystep.evals.judge import Judge
from keystep.evals.modes import answer_slots, mark_oracle
from keystep.evals.protocol import ClipRow, Entrant, EvalConfig
from keystep.evals.representation import Representation
from keystep.evals.results import head_name
from keystep.evals.rows import HeadRow, HeadRun, Mode, Row
from keystep.evals.streaming_protocol import Choice, score_at_the_moment, score_segments
from keystep.evals.trimmed import (
    CONTEXTS,
    PerFrame,
    classify_clips,
    head_scores,
    judge_clips,
    split_clips,
    submission,
)
from keystep.heads import Head, HeadConfig, build_head, describe, frames_per_second, train_head
from keystep.pjepa import PJEPA
from keystep.plugins import HEADS
from keystep.progress import SILENT, Progress, Task


class HeadStudy:
    """Trains every requested head on every representation.

    Args:
        judge: data, split and metrics.
        config: heads, modes and training settings.
        folder: for trained heads, so that an interrupted study can be resumed.
        best: mode -> the best control on the validation videos.

    Attributes:
        rows: one for each head, representation and mode.
        clip_rows: linear probes on trimmed clips, if the data have any.
    """

    def __init__(self, judge: Judge, config: EvalConfig, folder: Path, best: Mapping[Mode, Control]) -> None:
        self.judge, self.config, self.folder, self.best = judge, config, folder, best
        self.rows: list[HeadRow] = []
        self.clip_rows: list[ClipRow] = []

    def run(self, entrants: Sequence[Entrant], progress: Progress = SILENT) -> None:
        """Train all heads that are not in the folder yet, and score them.

        Raises:
            InputError: invalid settings or features, or heads with other settings in the folder.
        """
        with progress.task("training heads", total=self._count(entrants), unit="heads", even=False) as task:
            for mode in self.config.modes:
                for source in sources(self.judge, entrants, mode, self.config.seeds, self.best.get(mode)):
                    self._judge(source, task)

    def train(self, entrants: Sequence[Entrant], mode: Mode, place: int, preset: str) -> None:
        """Train a head on the n-th representation of a mode, and leave it in the folder."""
        given = sources(self.judge, entrants, mode, self.config.seeds, self.best.get(mode))
        source = next(islice(given, place, None))
        with SILENT.task(preset) as task:
            self._train(source.made(), preset, source, task)

    def _count(self, entrants: Sequence[Entrant]) -> int:
        modes = [mode for mode in self.config.modes if mode in self.best]
        places = sum(count_sources(entrants, mode, self.config.seeds) for mode in modes)
        return len(self.config.temporal_heads) * places

    def _judge(self, source: HeadInput, task: Task) -> None:
        """Train and score every head on one representation."""
        representation: Representation = source.made()
        for preset in self.config.temporal_heads:
            run = self._train(representation, preset, source, task)
            key = (self._marked(source.name), preset, source.mode)
            row = next((row for row in self.rows if (row.name, row.head, row.mode) == key), None)
            if row is None:
                row = self._row(source, preset, run.head)
                self.rows.append(row)
            row.runs.append(run)
        if source.mode == "causal" and source.family != "control" and (self.judge.folder.root / CLIPS).exists():
            self._probe_clips(source)

    def _train(self, representation: Representation, preset: str, source: HeadInput, task: Task) -> HeadRun:
        judge, settings = self.judge, self.config.head(preset, source.mode)
        if source.mode == "causal" and settings.kind not in HEADS.own:
            _check_causal(settings, representation[judge.split.train[0]].shape[1], len(judge.folder.classes))

        what = f"{preset} on {source.name} ({source.mode}, seed {source.seed})"
        trained = train_head(
            settings,
            _Labelled(representation, judge.labels, judge.split.train),
            _Labelled(representation, judge.labels, judge.split.valid),
            classes=len(judge.folder.classes),
            training=self.config.training,
            seed=source.seed,
            background=judge.background,
            names=judge.folder.classes,
            origin={"representation": source.name, **source.origin},
            folder=self.folder / head_name(source.name, source.mode, source.seed, preset),
            progress=lambda epoch, epochs, measured: task.advance(0, f"{what}: epoch {epoch} of {epochs}"),
            device="cuda" if torch.cuda.is_available() else "cpu",
        )
        task.advance(note=what)
        record = {"best_epoch": trained.record["best_epoch"], "valid_scores": trained.record["valid_scores"]}
        return self._score(representation, source, trained.head, record)

    def _score(
        self, representation: Representation, source: HeadInput, head: Head, record: Mapping[str, Any]
    ) -> HeadRun:
        judge, device = self.judge, head.standardise.mean.device
        predictions = {
            name: head.predict(torch.from_numpy(representation[name])[None].to(device))[0].cpu().numpy()
            for name in judge.split.test
        }
        scores, correct = judge.score(predictions)
        moment = _at_the_moment(judge, predictions, source, head)
        clips: tuple[Mapping[str, float], Mapping[str, Any] | None] = ({}, None)
        if source.mode == "causal" and (judge.folder.root / CLIPS).exists():
            clips = _clips(judge, head_scores(source.frames, head))
        valid = record["valid_scores"]["accuracy"]
        return HeadRun(source.seed, scores, valid, correct, predictions, head, record, moment, *clips)

    def _row(self, source: HeadInput, preset: str, head: Head) -> HeadRow:
        """An empty row. Its delay is that of the representation plus that of the head."""
        rate, chunk = float(self.judge.folder.timeline.rate), None if head.delay is None else head.delay + 1
        delay = None
        if chunk is not None and source.delay is not None:
            block, period = source.block or 1, (source.block or 1) * chunk
            waits = answer_slots(2 * period, block, chunk)[:period] - np.arange(period)
            delay = source.delay + float(waits.max()) / rate
        return HeadRow(
            self._marked(source.name),
            source.family,
            source.mode,
            delay=delay,
            detail=source.detail,
            head=preset,
            parameters=describe(head).parameters,
            speed=frames_per_second(head),
        )

    def _marked(self, name: str) -> str:
        return mark_oracle(name) if self.judge.folder.oracle else name

    def _probe_clips(self, source: HeadInput) -> None:
        """Add a seed to the clip row of a representation."""
        judge, name = self.judge, self._marked(source.name)
        clips = read_clips(judge.folder.root / CLIPS, len(judge.folder.classes))
        found = judge_clips(judge.folder, clips, judge.split, source.frames, config=judge.probe)
        row = next((row for row in self.clip_rows if row.name == name), None)
        if row is None:
            row = ClipRow(name, len(found["take"].clips), {context: [] for context in CONTEXTS})
            self.clip_rows.append(row)
        for context, result in found.items():
            row.top1[context].append(result.top1)


@dataclass(frozen=True, eq=False)
class _Labelled:
    """Some videos with their labels, read on access (`keystep.heads.videos.Videos`)."""

    representation: Representation
    labels: Mapping[str, np.ndarray]
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, np.ndarray]:
        return self.representation[self.names[index]], self.labels[self.names[index]]


def _check_causal(settings: HeadConfig, width: int, classes: int) -> None:
    """Refuse a head from outside that sees the whole video where only the past may be seen."""
    if build_head(settings, width, classes, seed=0).delay is None:
        raise InputError(
            f"head {settings.kind}: sees the whole video (its delay is None); judge it with modes=[offline]"
        )


def check_clips(folder: FeatureFolder, groups: Sequence[tuple[str, list[PJEPA]]]) -> None:
    """Reject models with segment attention if the data have trimmed clips, because clips have no segments.

    Raises:
        InputError: with the name of the model.
    """
    if not (folder.root / CLIPS).exists():
        return
    for name, models in groups:
        if any(found.config.oracle for found in models):
            raise InputError(
                f"--model {name} uses segment attention, which does not support the trimmed clips of "
                f"{folder.root / CLIPS}"
            )


def _at_the_moment(
    judge: Judge, predictions: Mapping[str, np.ndarray], source: HeadInput, head: Head
) -> dict[str, float]:
    """Metrics of the answers that are available at each slot's own time; empty if the delay is unknown."""
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
    )


def _clips(judge: Judge, score: PerFrame) -> tuple[dict[str, float], dict[str, Any] | None]:
    """Top-1 on the test takes' clips by context, and the predictions for clips with hidden labels."""
    clips = read_clips(judge.folder.root / CLIPS, len(judge.folder.classes))
    test = split_clips(clips, judge.split)[2]
    found = {str(context): classify_clips(judge.folder, test, score, context=context).top1 for context in CONTEXTS}
    hidden = [clip for clip in clips if clip.part == "hidden" and clip.name and clip.take in judge.folder.videos]
    return found, submission(classify_clips(judge.folder, hidden, score, context="take")) if hidden else None


def segment_scores(judge: Judge, rows: Sequence[Row | HeadRow]) -> list[dict[str, Any]]:
    """Score one prediction for each true segment (ORACLE): the majority of its frames, or its last frame.

    Returns:
        A record for each row and choice: name, head, mode, answer, and the mean over seeds of every score of
        `score_segments`.
    """
    names = judge.split.test
    truths = [judge.truths[name] for name in names]
    lengths = [segment_lengths(truth) for truth in truths]

    def score(predictions: Mapping[str, np.ndarray], choice: Choice) -> dict[str, float]:
        at_frames = [judge.at_frames(name, predictions[name]) for name in names]
        background, protocol = judge.background, judge.protocol
        return score_segments(
            at_frames, truths, lengths=lengths, choice=choice, background=background, protocol=protocol
        )

    choices: tuple[Choice, ...] = ("majority", "last")
    found = []
    for row in rows:
        for choice in choices:
            scores = [score(run.predictions, choice) for run in row.runs]
            mean = {metric: float(np.mean([one[metric] for one in scores])) for metric in scores[0]}
            found.append({"name": row.name, "head": row.head, "mode": row.mode, "answer": choice, "mean": mean})
    return found
