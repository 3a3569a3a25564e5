"""What a child of the study does: train one model, judge it for every part that is missing, and write the pieces."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from book import BEST_CONTROL, MODES
from damage import KINDS, damaged
from plan import HEADS, ROBUSTNESS, Study, shown_name
from records import CONTROLS, JUDGING_CODE, TRAINING_CODE, Name, code_hash, deciding, write_piece

from keystep.config import RunConfig, run_config
from keystep.config.attention import AttentionPattern
from keystep.config.base import build, read_yaml, write_yaml
from keystep.errors import InputError
from keystep.evals.controls import Control
from keystep.evals.entrants import check_models, open_judge
from keystep.evals.head_rows import HeadStudy
from keystep.evals.judge import Judge
from keystep.evals.judging import judge_controls, judge_oracle
from keystep.evals.model_rows import ModelRows, count_models
from keystep.evals.modes import attention_patterns
from keystep.evals.probe import LinearProbe
from keystep.evals.protocol import Entrant, EvalConfig
from keystep.evals.results import provenance
from keystep.evals.rows import HeadRun, Row
from keystep.evals.simple_rows import count_simple
from keystep.evals.study import Study as Rows
from keystep.files import write_json
from keystep.loading import load
from keystep.metrics import Tally
from keystep.pjepa import PJEPA
from keystep.progress import Lines
from keystep.train.records import read_metrics
from keystep.train.run import pretrain

SIMPLE = ("raw", "control", "oracle")
"""Families of rows that stand in the pieces of the controls."""
UNTRAINED_FAMILY = "untrained"
SHOWN_SCORES = ("accuracy", "edit", "f1@50")


@dataclass(frozen=True)
class Tried:
    """What is tried on damaged videos: its trained probe, and what makes its representation of (T, D) features."""

    record: dict[str, Any]
    probe: LinearProbe
    represent: Callable[[np.ndarray], np.ndarray]


class Worker:
    """One row on one fold with one seed."""

    def __init__(self, study: Study, name: Name) -> None:
        self.study, self.name = study, name
        self.run = study.run_folder(name)
        self.each_probe, self.now_and_then = Lines(self._said, interval=1), Lines(self._said, interval=30)

    def _said(self, line: str) -> None:
        print(f"  {self.name}: {line}", flush=True)

    def work(self) -> None:
        """Train where a part is missing and the model is not there, then judge and write part by part.

        Raises:
            InputError: what `pretrain` and judging raise; a run with other settings is in the way.
        """
        missing = self.study.missing(self.name)
        entrants = []
        if missing and self.name.row != CONTROLS:
            entrants = [Entrant(shown_name(self.name.row), self.name.seed or 0, self._model())]
        for part in missing:
            started = time.process_time()
            if part == HEADS:
                found = self._heads(entrants)
            elif part == ROBUSTNESS:
                found = self._robustness(entrants)
            else:
                found = self._probes(part, entrants)
            for name, judge, rows in found:
                self._write(name, judge, rows, time.process_time() - started)

    def _model(self) -> PJEPA:
        """The trained model. What its training cost stands beside it, over all the times that it was taken up again."""
        wanted, asked = self.study.config(self.name), self.run.with_name(f"{self.name}.yaml")
        begun = (self.run / "config.yaml").exists()
        if begun and not (asked.exists() and _alike(build(RunConfig, read_yaml(asked)), wanted)):
            raise InputError(f"{self.run}: holds a run with other settings; remove it, or choose another --out")
        if not (self.run / "model" / "config.json").exists():
            write_yaml(asked, wanted)
            with self._counted():
                config = run_config(self.run) if begun else wanted
                pretrain(config, self.run, resume=begun, progress=self.now_and_then)
        return load(self.run)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Add the CPU time of the work within to what is on record."""
        before, started = self._training_seconds(), time.process_time()
        try:
            yield
        finally:
            write_json(self._cost, {"seconds": before + time.process_time() - started})

    @property
    def _cost(self) -> Path:
        return self.run.with_name(f"{self.name}.cpu.json")

    def _training_seconds(self) -> float:
        return float(json.loads(self._cost.read_text())["seconds"]) if self._cost.exists() else 0.0

    def _judge(self, entrants: Sequence[Entrant], config: EvalConfig) -> Judge:
        """What judges this fold; probes that another piece of it fitted are found."""
        folder, fold = self.study.folder(), self.name.fold
        check_models([(one.name, [one.model]) for one in entrants], folder, fold)
        judge = open_judge(folder, fold, config, self.study.kept_folder(fold))
        if not self.study.options.screen:
            return judge
        return replace(judge, split=replace(judge.split, test=judge.split.valid))

    def _rows(self, judge: Judge, entrants: Sequence[Entrant], *, twins: bool) -> tuple[Rows, ModelRows]:
        """The table's rows: of what learns nothing, and of the models with their untrained twins or without."""
        rows = Rows(judge)
        total = 2 + sum(count_simple(rows, mode) for mode in MODES) + count_models(rows, entrants, MODES)
        with self.each_probe.task("judging", total=total, unit="probes") as rows.task:
            judge_oracle(rows)
            models = judge_controls(rows, MODES)
            for entrant in entrants:
                models.judge(entrant, twin_too=twins)
        rows.task = None
        return rows, models

    def _probes(self, part: str, entrants: Sequence[Entrant]) -> Iterator[tuple[Name, Judge, list[dict[str, Any]]]]:
        """The table's rows with so many labels; those of fresh weights are a piece of their own."""
        share, draw = self.study.labels_of(part)
        judge = self._judge(entrants, EvalConfig(label_share=share, label_seed=draw))
        rows = self._rows(judge, entrants, twins=self.study.twin(self.name))[0].evaluation.rows
        simple = self.name.row == CONTROLS
        own = [row for row in rows if (row.family in SIMPLE) == simple and row.family != UNTRAINED_FAMILY]
        yield self._piece(part), judge, [record for row in own for record in _records(row)]
        if self.study.twin(self.name):
            twins = [record for row in rows if row.family == UNTRAINED_FAMILY for record in _records(row)]
            yield self.study.twin_name(self.name, part), judge, twins

    def _robustness(self, entrants: Sequence[Entrant]) -> Iterator[tuple[Name, Judge, list[dict[str, Any]]]]:
        """The probes of the table on damaged test videos: of the best control, or of the latents alone."""
        judge = self._judge(entrants, EvalConfig())
        judged, models = self._rows(judge, entrants, twins=False)
        deviation = np.concatenate([judge.folder.features(name) for name in judge.split.train]).std(axis=0)
        rows = []
        for tried in self._tried(judged, models, entrants):
            for kind in KINDS:
                seen = {
                    video: tried.represent(damaged(kind, video, judge.folder.features(video), deviation))
                    for video in judge.split.test
                }
                scores, correct = judge.score({video: tried.probe.predict(frames) for video, frames in seen.items()})
                rows.append({**tried.record, "damage": kind, "scores": _shown(scores), "correct": correct.tolist()})
            self._said(f"damaged test videos: {tried.record['name']} ({tried.record['mode']})")
        yield self._piece(ROBUSTNESS), judge, rows

    def _tried(self, judged: Rows, models: ModelRows, entrants: Sequence[Entrant]) -> Iterator[Tried]:
        """The model in each mode, or the best control where there is none."""
        for mode, chosen in {} if entrants else models.chosen.items():
            best = chosen.best
            run = judged.fit(judged.lazy_control(best), best.name, key=judged.key(best, mode))
            record = {"name": BEST_CONTROL, "family": "control", "mode": mode, "detail": best.name}
            yield Tried(record, run.probe, partial(_controlled, best, judged.judge.folder.tokens))
        for entrant in entrants:
            for mode, pattern in attention_patterns(entrant.model).items():
                row = judged.evaluation.find(entrant.name, mode)
                assert row is not None
                record = {"name": row.name, "family": row.family, "mode": mode, "detail": row.detail}
                yield Tried(record, row.runs[0].probe, partial(_latents, entrant.model, pattern))

    def _heads(self, entrants: Sequence[Entrant]) -> Iterator[tuple[Name, Judge, list[dict[str, Any]]]]:
        """Temporal heads on raw features and the best control with every seed, or on the latents."""
        options = self.study.options
        judge = self._judge(entrants, EvalConfig())
        config = EvalConfig(heads=tuple(options.heads), seeds=len(options.seeds))
        kept = self.study.kept_folder(self.name.fold) / "heads"
        controls = {} if entrants else self._rows(judge, (), twins=False)[0].evaluation.best_control
        study = HeadStudy(judge, config, kept, {mode: simple.control for mode, simple in controls.items()})
        study.run(entrants, self.now_and_then)
        rows = []
        for row in study.rows:
            for run in row.runs:
                record = {"name": row.name, "family": row.family, "mode": row.mode, "head": row.head}
                rows.append({**record, "detail": row.detail, "delay": row.delay, **_head_run(run, judge)})
        yield self._piece(HEADS), judge, rows

    def _piece(self, part: str) -> Name:
        return Name(self.name.row, self.name.fold, self.name.seed, part)

    def _write(self, name: Name, judge: Judge, rows: list[dict[str, Any]], seconds: float) -> None:
        trained = self.name.row != CONTROLS
        last = read_metrics(self.run / "metrics.jsonl")[-1] if trained else None
        groups = None if judge.groups is None else [judge.groups[video] for video in judge.split.test]
        content = {
            **provenance(),
            "command": self.study.command,
            **self.study.record(self.name),
            "code": {"training": code_hash(TRAINING_CODE), "judging": code_hash(JUDGING_CODE)},
            "data": {
                "name": self.study.name,
                "fingerprint": judge.folder.fingerprint(),
                "rate_hz": float(judge.folder.timeline.rate),
                "validation": judge.split.rule,
                "labels": {"share": judge.label_share, "draw": judge.label_seed, "videos": len(judge.split.train)},
            },
            "cpu_seconds": {"training": self._training_seconds() if trained else 0.0, "judging": seconds},
            "training": last,
            "test": {
                "videos": list(judge.split.test),
                "frames": [int(count) for count in judge.frames],
                "groups": groups,
            },
            "chosen_by": list(judge.split.valid),
            "screen": self.study.options.screen,
            "rows": rows,
        }
        write_piece(self.study.results, name, content)
        self._said(f"wrote {name.file}, {seconds:.0f} s of CPU time to judge")


def _alike(first: RunConfig, second: RunConfig) -> bool:
    """Whether two runs end with the same weights."""
    one, two = (deciding(config.model_dump(mode="json")) for config in (first, second))
    return one == two


def _controlled(control: Control, tokens: int, features: np.ndarray) -> np.ndarray:
    """(T, tokens x D) features of a video as a control shows them."""
    return control.transform(features.reshape(len(features), tokens, -1).mean(axis=1))


def _latents(model: PJEPA, pattern: AttentionPattern, features: np.ndarray) -> np.ndarray:
    """(T, D_in) features of a video -> (T, D) latents."""
    return model.encode(torch.from_numpy(features), pattern=pattern).cpu().numpy()


def _records(row: Row) -> list[dict[str, Any]]:
    """One record for each seed of a row."""
    whole = row.to_json()
    shared = {key: whole[key] for key in ("name", "family", "mode", "beside", "position", "delay", "detail", "width")}
    return [{**shared, **run, "scores": _shown(run["scores"])} for run in whole["runs"]]


def _shown(scores: dict[str, float]) -> dict[str, float]:
    return {name: round(scores[name], 4) for name in SHOWN_SCORES}


def _head_run(run: HeadRun, judge: Judge) -> dict[str, Any]:
    """A head's run with what the bootstrap of edit and F1 needs of each test video."""
    tallies = judge.tallies(run.predictions)
    return {
        "seed": run.seed,
        "scores": _shown(run.scores),
        "correct": [int(count) for count in run.correct],
        "edit": [float(tally.edit[0]) for tally in tallies],
        "f1@50": [_matches(tally) for tally in tallies],
        **run.record,
    }


def _matches(tally: Tally) -> list[int]:
    """True positives, false positives and false negatives at an overlap of one half."""
    return [int(count) for count in tally.matches[-1]]
