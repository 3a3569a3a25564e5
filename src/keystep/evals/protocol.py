"""The honest table: raw features, the controls, and learned representations, judged alike.

Every row is a linear probe on frozen representations (`keystep.evals.judge`). Widths and probe settings are chosen on
the validation videos; the test videos only score. A learned row has to beat smoothing *with the position information
that it could have itself*, and beside smoothing it has to beat what an untrained encoder and masked reconstruction
add there (RECIPE's gate). What the gate compares with is the one exception to the rule: the strongest control of its
kind on the test videos themselves, so that no unlucky choice on validation makes a learned row look good. That errs
against the learned row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from threading import Lock

import numpy as np
import torch
from pydantic import Field

from keystep.config import Config, ModelConfig
from keystep.config.attention import AttentionPattern
from keystep.encoding import encode_videos
from keystep.evals import controls
from keystep.evals.bootstrap import Difference, paired_bootstrap
from keystep.evals.controls import Control, Position
from keystep.evals.geometry import Geometry, median_geometry
from keystep.evals.judge import Beside, Family, Judge, Mode, Representation, Row, Run
from keystep.evals.modes import answers_later, marked_oracle, modes_of, pattern_delay, patterns_of, slot_delay
from keystep.evals.probe import ProbeConfig
from keystep.pjepa import PJEPA
from keystep.progress import SILENT, Progress, Task

SEEDS_FOR_A_CLAIM = 3
SELECTION = (
    "widths and penalties on the validation videos; test videos only score, and name the rival of each line "
    "of the gate: the strongest control of its kind on them, which errs against the learned row"
)
"""What is chosen by what, for the result file."""
PAIR = "against "
"""Beginning of claims about given models against raw features and each other, which are no part of the gate proper."""
QUICK_NOTE = "a quick look (--quick): fewer widths and rows, probes on fewer frames; nothing may be claimed of it"
BEST_ON_TEST = ", best on test"
"""End of the name of a control's row whose width the test videos chose: a rival for the gate."""
TOKENS_NOTE = "{} tokens a slot: raw features, and the controls made of them, are their mean"
ONE_AT_A_TIME = Lock()
"""Torch's generator belongs to the process: evaluations in two threads would draw each other's numbers."""


class EvalConfig(Config):
    """How to judge."""

    probe: ProbeConfig = ProbeConfig()
    background: tuple[str, ...] = ()
    """Classes left out of edit, F1 and the foreground accuracy."""
    protocol: str = "pooled"
    """Convention of the metrics: pooled, video-mean, fact or official."""
    label_share: float = Field(default=1.0, gt=0, le=1)
    """Share of the training and validation videos whose labels the probes may use; fewer are a part of more."""
    label_seed: int = Field(default=0, ge=0)
    """Another number draws other videos for the share."""


@dataclass(frozen=True)
class Entrant:
    """A trained model to judge; models of one name are the seeds of one row."""

    name: str
    seed: int
    model: PJEPA
    reconstruction: bool = False
    """Trained to reconstruct its input: a control, not a claim."""


@dataclass(frozen=True)
class Comparison:
    """One line of the gate: a beats b, or does not."""

    claim: str
    mode: Mode
    first: str
    second: str
    difference: Difference
    later: bool = False
    """The first answers later than the second, so it has seen more of the future: no fair win."""
    quick: bool = False
    """Of a quick look, which claims nothing."""

    @property
    def holds(self) -> bool:
        """Better with an interval that excludes zero, over enough seeds, not by waiting longer, in no quick look."""
        enough = self.difference.seeds[0] >= SEEDS_FOR_A_CLAIM
        return self.difference.low > 0 and enough and not self.later and not self.quick


@dataclass
class Evaluation:
    """The table, the gate, the geometry, and the representations that pictures need."""

    judge: Judge
    rows: list[Row] = field(default_factory=list)
    pairs: list[tuple[str, Row, Row]] = field(default_factory=list)
    """(claim, row, the row to beat, the strongest of its kind on the test videos): what the gate compares."""
    gate: list[Comparison] = field(default_factory=list)
    """Each pair's difference; empty where there are too few test videos for an interval."""
    geometry: dict[str, Geometry] = field(default_factory=dict)
    shown: dict[str, Representation] = field(default_factory=dict)
    """Name -> representation of the test videos, for the pictures: raw features and the first learned latents."""
    quick: bool = False
    fits: int = 0
    """Probes fitted, each over its penalties: how much choosing went on (on validation videos)."""

    def find(self, name: str, mode: Mode) -> Row | None:
        """The row of that name and mode."""
        return next((row for row in self.rows if row.name == name and row.mode == mode), None)


def judge_all(
    judge: Judge,
    entrants: Sequence[Entrant],
    progress: Progress = SILENT,
    *,
    modes: Sequence[Mode] = ("offline", "causal"),
    quick: bool = False,
) -> Evaluation:
    """Judge the controls, then every entrant alone, beside smoothing and beside the clock, offline and causal.

    Args:
        modes: which of the modes that the entrants have.
        quick: four widths of the average, every entrant alone, one untrained encoder, and probes on fewer frames: a
            first look, of which nothing may be claimed.
    """
    study = _Study(judge, quick=quick)
    chosen = tuple(mode for mode in modes_of([entrant.model for entrant in entrants]) if mode in modes)
    with progress.task(
        "judging", total=("offline" in modes) + study.count(entrants, chosen), unit="probes"
    ) as study.task:
        study.add("raw features", "raw", "causal", study.raw, key="raw", delay=study.slot_delay)
        if "offline" in modes:
            name = "true segments' means (ORACLE)"
            study.add(name, "oracle", "offline", study.segment_means, key="true segments' means")
        for mode in chosen:
            study.smoothing(mode)
            study.offsets(mode)
        for entrant in entrants:
            study.entrant(entrant, chosen)
        study.compare(list(dict.fromkeys(entrant.name for entrant in entrants)))
    return study.evaluation


class _Study:
    """Builds an `Evaluation` row by row."""

    def __init__(self, judge: Judge, *, quick: bool = False) -> None:
        self.judge, self.quick = judge, quick
        self.task: Task | None = None
        self.evaluation = Evaluation(judge, quick=quick)
        self.raw: Representation = {name: judge.folder.vectors(name) for name in judge.videos}
        if judge.folder.tokens > 1:
            line = TOKENS_NOTE.format(judge.folder.tokens)
            judge.folder.problems.notes.append(line)
        self.rate = float(judge.folder.timeline.rate)
        self.slot_delay = slot_delay(judge.folder)
        self.best_smoothing: dict[Mode, Control] = {}
        self.architectures: list[ModelConfig] = []
        test = judge.split.test
        self.evaluation.shown[self.marked("features")] = {name: self.raw[name] for name in test}
        self.evaluation.geometry[self.marked("raw features")] = median_geometry([self.raw[name] for name in test])

    def count(self, entrants: Sequence[Entrant], modes: Sequence[Mode]) -> int:
        """How many probes `judge_all` reports, that of true segments aside."""
        total, twins = 1, set[tuple[ModelConfig, Mode, int]]()
        for mode in modes:
            positions = len(self._positions(mode))
            total += len(self._widths(mode)) + positions + 1
            total += len(controls.offset_counts(self.judge.folder.width)) + 2
            for entrant in entrants:
                if mode in patterns_of(entrant.model):
                    beside = 0 if self.quick else 1 if entrant.reconstruction else 2
                    total += 1 + beside
                    seed = 0 if self.quick else entrant.seed
                    twins.add((_encoder_part(entrant.model.config), mode, seed))
        return total + len(twins) * (1 if self.quick else 2)

    def done(self, name: str) -> None:
        """Report one more probe."""
        if self.task is not None:
            self.task.advance(note=name)

    def add(
        self,
        name: str,
        family: Family,
        mode: Mode,
        representation: Representation | Callable[[], Representation],
        *,
        key: str,
        seed: int = 0,
        position: Position = "none",
        delay: float | None = None,
        detail: str = "",
        beside: Beside = "",
    ) -> Row:
        """Judge a representation; another seed of a known row joins it.

        Whatever was made of a folder that true boundaries shaped is ORACLE itself. key: as for `Judge.run`.
        """
        name = self.marked(name)
        run = self.judge.run(representation, seed, refine=not self.quick, key=key)
        self.evaluation.fits += 1
        self.done(f"{name} ({mode}, seed {seed})" if seed else f"{name} ({mode})")
        row = self.evaluation.find(name, mode)
        if row is None:
            width = len(run.probe.weight)
            row = Row(name, family, mode, position, delay, detail, width, beside)
            self.evaluation.rows.append(row)
        row.runs.append(run)
        return row

    def marked(self, name: str) -> str:
        """The name of a row, with ORACLE in it wherever that is so."""
        return marked_oracle(name) if self.judge.folder.oracle else name

    def smoothing(self, mode: Mode) -> None:
        """Moving averages: the width that is best on validation, then the same with the clock beside it."""
        candidates = self._widths(mode)
        best, runs = self._choose(candidates, mode)
        self.best_smoothing[mode] = candidates[best]
        for position in self._positions(mode):
            control = self._widths(mode, position)[best]
            name = "moving average" if position == "none" else f"moving average + {position}"
            self._add_control(name, mode, control, f"{control.name}, best of {len(candidates)} on validation")
        self._add_best_on_test("moving average", mode, candidates, runs, best)

    def _widths(self, mode: Mode, position: Position = "none") -> tuple[Control, ...]:
        """Averages to choose from; in a quick look one frame and every third width."""
        found = controls.smoothing_controls(self.rate, causal=mode == "causal", position=position)
        return found[::3] if self.quick else found

    def _positions(self, mode: Mode) -> tuple[Position, ...]:
        """What an average can have beside it."""
        return ("none", "elapsed") if mode == "causal" else ("none", "elapsed", "progress")

    def offsets(self, mode: Mode) -> None:
        """Nine moments around (or before) each frame side by side."""
        train = [self._read(name) for name in self.judge.pretraining]
        candidates = controls.offset_controls(train, self.rate, causal=mode == "causal")
        best, runs = self._choose(candidates, mode)
        detail = f"{candidates[best].name}, best of {len(candidates)} on validation"
        self._add_control("nine offsets", mode, candidates[best], detail)
        self._add_best_on_test("nine offsets", mode, candidates, runs, best)

    def _read(self, name: str) -> np.ndarray:
        """A video's features; those without labels are not kept."""
        return self.raw[name] if name in self.raw else self.judge.folder.vectors(name)

    def _choose(self, candidates: Sequence[Control], mode: Mode) -> tuple[int, list[Run]]:
        """The candidate whose probe is best on validation, and the probes of all."""
        runs = []
        for control in candidates:
            made = partial(self._transformed, control)
            runs.append(self.judge.run(made, refine=False, key=f"control {mode}: {control.name}"))
            self.evaluation.fits += 1
            self.done(f"{control.name} ({mode})")
        return int(np.argmax([run.valid_accuracy for run in runs])), runs

    def _add_best_on_test(
        self, name: str, mode: Mode, candidates: Sequence[Control], runs: Sequence[Run], chosen: int
    ) -> None:
        """A row for the candidate that is best on the test videos, where validation chose another: the gate's rival."""
        best = int(np.argmax([run.correct.sum() for run in runs]))
        control = candidates[best]
        if best == chosen or control.name.endswith(controls.ONE_FRAME):  # raw features have a row of their own
            self.done(f"{name}, the best on test ({mode})")
            return
        detail = f"{control.name}, best of {len(candidates)} on the test videos: a rival for the gate, no fair row"
        self._add_control(name + BEST_ON_TEST, mode, control, detail)

    def _add_control(self, name: str, mode: Mode, control: Control, detail: str) -> None:
        self.add(
            name,
            "control",
            mode,
            partial(self._transformed, control),
            key=f"control {mode}: {control.name}",
            position=control.position,
            delay=self.slot_delay if control.causal else None,  # centring needs the whole video
            detail=detail,
        )

    def segment_means(self) -> Representation:
        """Centred features averaged over the true segments: what boundaries alone are worth."""
        labels = self.judge.folder.labels
        return {name: controls.segment_means(controls.centre(raw), labels(name)) for name, raw in self.raw.items()}

    def entrant(self, entrant: Entrant, modes: Sequence[Mode]) -> None:
        """A model and its untrained twin, in every mode that it has; one twin serves all models of its architecture."""
        architecture = _encoder_part(entrant.model.config)
        if architecture not in self.architectures:
            self.architectures.append(architecture)
        number = self.architectures.index(architecture)
        twin = "untrained encoder" + (f" {number + 1}" if number else "")
        name = entrant.name
        if entrant.model.config.oracle:
            name, twin = marked_oracle(name), marked_oracle(twin)
        family: Family = "reconstruction" if entrant.reconstruction else "learned"
        for mode, pattern in patterns_of(entrant.model).items():
            if mode not in modes:
                continue
            self.model(name, family, mode, entrant.model, pattern, entrant.seed)
            row = self.evaluation.find(self.marked(twin), mode)
            if row is None or (not self.quick and entrant.seed not in {run.seed for run in row.runs}):
                self.model(twin, "untrained", mode, _untrained(entrant), pattern, entrant.seed)

    def model(
        self,
        name: str,
        family: Family,
        mode: Mode,
        model: PJEPA,
        pattern: AttentionPattern,
        seed: int,
    ) -> None:
        """A model's latents alone, beside the best smoothing of the same mode, and a learned one's beside the clock."""
        name = self.marked(name)
        wait = pattern_delay(pattern, self.rate)
        delay = None if wait is None else wait + self.slot_delay
        latents = cache(lambda: dict(encode_videos(model, self.judge.folder, self.judge.videos, pattern)))
        settings = model.config.model_dump_json()  # heads, rotations and the like leave no trace in the weights
        key = f"latents {mode}: {model.fingerprint} {settings} {pattern!r}"
        position: Position = "elapsed" if mode == "causal" else "progress"
        self.add(
            name,
            family,
            mode,
            latents,
            key=key,
            seed=seed,
            position=position,
            delay=delay,
            detail=str(pattern),
        )
        smooth = self.best_smoothing[mode]
        waits = delay if mode == "causal" else None
        beside: list[tuple[Beside, str, str, Callable[[], Representation], float | None]] = [
            ("smoothing", f"{name} ++ moving average", smooth.name, partial(self._transformed, smooth), waits)
        ]
        if family == "learned":
            beside.append(("position", f"{name} + {position}", position, partial(self._clock, position), delay))
        for what, row_name, other_key, other, row_delay in () if self.quick else beside:

            def both(other: Callable[[], Representation] = other) -> Representation:
                second = other()
                return {video: np.concatenate([x, second[video]], axis=1) for video, x in latents().items()}

            self.add(
                row_name,
                family,
                mode,
                both,
                key=f"{key} ++ {other_key}",
                seed=seed,
                position=position,
                delay=row_delay,
                beside=what,
            )
        if family == "learned" and f"{name}, {mode}" not in self.evaluation.geometry:
            test = {video: latents()[video] for video in self.judge.split.test}
            self.evaluation.geometry[f"{name}, {mode}"] = median_geometry(list(test.values()))
            self.evaluation.shown.setdefault(f"latents of {name}, {mode}", test)

    def _clock(self, position: Position) -> Representation:
        """What a moving average has beside it when it knows the position."""
        if position == "progress":
            return {name: controls.progress(len(raw)) for name, raw in self.raw.items()}
        return {name: controls.elapsed(len(raw), self.rate) for name, raw in self.raw.items()}

    def compare(self, given: Sequence[str] = ()) -> None:
        """RECIPE's gate for each learned row; the row to beat is the strongest of its kind on the test videos.

        Then what decides nothing and is always asked: every given model against raw features, and every two of them.
        """
        rows = self.evaluation.rows
        learned = any(row.family == "learned" for row in rows)
        if learned and not any(row.family == "reconstruction" for row in rows):
            self.judge.folder.problems.notes.append(
                "no masked reconstruction was judged beside the learned rows: the gate lacks that comparison"
            )
        if self.quick:
            self.judge.folder.problems.notes.append(QUICK_NOTE)
        if len(self.judge.by_group(self.judge.frames)) < 2:
            self.judge.folder.problems.notes.append("one test video: nothing can be compared, intervals need two")
        for mode in self.best_smoothing:
            here = [row for row in rows if row.mode == mode]
            raw = [row for row in rows if row.family == "raw"]  # sees one frame, so it stands in every mode
            simple = [row for row in here if row.family == "control"] + raw
            smooth = [row for row in simple if row.name.startswith("moving average")] + raw
            rivals = [
                row for row in here if row.family in ("untrained", "reconstruction") and row.beside == "smoothing"
            ]
            for row in here:
                if row.family != "learned":
                    continue
                if row.beside == "":
                    self._compare("alone, against the best smoothing", row, _strongest(smooth))
                    self._compare("alone, against the best control", row, _strongest(simple))
                elif row.beside == "position":
                    self._compare("beside the clock, against the best smoothing", row, _strongest(smooth))
                else:
                    for rival in rivals:
                        self._compare(f"beside smoothing, against {rival.name.partition(' ++')[0]} there", row, rival)
            alone = [
                row
                for name in given
                for row in here
                if row.beside == "" and row.name in (self.marked(name), marked_oracle(name))
            ]
            for place, row in enumerate(alone):
                for rival in [*raw, *alone[place + 1 :]]:
                    self._compare(f"{PAIR}{rival.name}, both alone", row, rival)

    def _compare(self, claim: str, row: Row, rival: Row) -> None:
        self.evaluation.pairs.append((claim, row, rival))
        if len(self.judge.by_group(self.judge.frames)) > 1:
            by_group = self.judge.by_group
            difference = paired_bootstrap(by_group(row.correct), by_group(rival.correct), by_group(self.judge.frames))
            later = answers_later(row, rival)
            line = Comparison(claim, row.mode, row.name, rival.name, difference, later, self.quick)
            self.evaluation.gate.append(line)

    def _transformed(self, control: Control) -> Representation:
        return {name: control.transform(features) for name, features in self.raw.items()}


def _encoder_part(config: ModelConfig) -> ModelConfig:
    """The config with nothing in it that the encoder does not read."""
    plain = ModelConfig(dim=config.dim, heads=config.heads)
    names = ("output_dim", "predictor_depth", "predictor_heads", "predictor_attention", "visible_predictions")
    return config.model_copy(update={name: getattr(plain, name) for name in names})


def _strongest(rows: Sequence[Row]) -> Row:
    """The row with the most right frames on the test videos, which is what the gate compares."""
    return max(rows, key=lambda row: float(row.correct.sum(axis=1).mean()))


def _untrained(entrant: Entrant) -> PJEPA:
    """The same architecture with the same input statistics and fresh weights."""
    with ONE_AT_A_TIME, torch.random.fork_rng(devices=[]):
        torch.manual_seed(entrant.seed)
        fresh = PJEPA(entrant.model.config)
    fresh.load_state_dict({**fresh.state_dict(), **dict(entrant.model.named_buffers())})
    return fresh.to(entrant.model.mask_token.device).eval()
