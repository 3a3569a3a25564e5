"""Fit the probes and heads of an evaluation with an engine, so that the evaluation itself finds them in its folder.

Workers run parts of the very evaluation, whose results stay in the folder of probes. So the results are those of one
process, and an interrupted evaluation is resumed by either way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

from keystep.config import ModelConfig
from keystep.engines import Engine, Report, check_shared, device_of
from keystep.evals.head_rows import HeadStudy
from keystep.evals.head_sources import count_sources
from keystep.evals.judge import Judge
from keystep.evals.judging import judge_controls, judge_oracle, judge_raw, judged_modes
from keystep.evals.model_rows import encoder_part
from keystep.evals.modes import attention_patterns
from keystep.evals.protocol import Entrant, EvalConfig, Evaluation
from keystep.evals.rows import Mode
from keystep.evals.simple_rows import fit_candidate, list_candidates
from keystep.evals.study import Study
from keystep.progress import Progress

Part = tuple[object, ...]
"""Name of a method of `_Parts` and its arguments."""


def fit_ahead(
    judge: Judge,
    entrants: Sequence[Entrant],
    config: EvalConfig,
    heads: Path,
    engine: Engine,
    progress: Progress,
    *,
    quick: bool = False,
) -> None:
    """Fit what an evaluation needs, in stages: what selects the controls, the controls, the models, temporal heads.

    Args:
        judge: data, split, probe and metrics; its cache receives the probes.
        entrants: the models.
        config: modes, temporal heads and their training.
        heads: folder for trained heads.
        engine: runs the work.
        progress: receives one update for each part.
        quick: as in `judge_all`.

    Raises:
        InputError: as in the evaluation, or as in `Engine.run`.
    """
    study, modes = Study(judge, quick=quick), judged_modes(entrants, config.modes)
    stages: list[list[Part]] = [
        _simple_parts(study, modes, config.modes),
        [("controls", mode) for mode in modes],
        _model_parts(entrants, modes, quick),
        _head_parts(entrants, modes, config),
    ]
    assert judge.kept.folder is not None
    heads.mkdir(parents=True, exist_ok=True)
    sent = [replace(entrant, model=deepcopy(entrant.model).cpu()) for entrant in entrants]
    work = _Fitting(judge, sent, config, heads, quick, engine.kind())
    with progress.task("fitting probes", total=sum(map(len, stages)), unit="parts") as task:
        for parts in stages:
            jobs = {" ".join(map(str, part)): part for part in parts}
            with closing(engine.run(work, jobs, lambda amount, count: None, work.device)) as finished:
                for name, result in finished:
                    result()
                    task.advance(note=name)


def _simple_parts(study: Study, modes: Sequence[Mode], asked: Sequence[Mode]) -> list[Part]:
    """Probes that depend on no other, the models' aside."""
    places: list[Part] = [
        ("candidate", mode, place) for mode in modes for place in range(len(list_candidates(study, mode)))
    ]
    return [("raw",), *([("oracle",)] if "offline" in asked else []), *places]


def _model_parts(entrants: Sequence[Entrant], modes: Sequence[Mode], quick: bool) -> list[Part]:
    """Each model in each mode. What models of an architecture share is left to the first of them."""
    parts: list[Part] = []
    twins, held = set[tuple[ModelConfig, Mode, int]](), set[tuple[ModelConfig, Mode]]()
    for place, entrant in enumerate(entrants):
        for mode in attention_patterns(entrant.model):
            if mode in modes:
                architecture = encoder_part(entrant.model.config)
                twin, bands = (architecture, mode, 0 if quick else entrant.seed), (architecture, mode)
                parts.append(("model", mode, place, twin not in twins, bands not in held))
                twins.add(twin)
                held.add(bands)
    return parts


def _head_parts(entrants: Sequence[Entrant], modes: Sequence[Mode], config: EvalConfig) -> list[Part]:
    return [
        ("head", mode, place, preset)
        for mode in modes
        for place in range(count_sources(entrants, mode, config.seeds))
        for preset in config.temporal_heads
    ]


@dataclass(frozen=True)
class _Fitting:
    """What a worker does; pickled for workers.

    Attributes:
        judge, entrants, config, heads, quick: as in `fit_ahead`.
        device: kind of device to move the models to.
    """

    judge: Judge
    entrants: Sequence[Entrant]
    config: EvalConfig
    heads: Path
    quick: bool
    device: str

    def __call__(self, worker: int, report: Report) -> Callable[..., None]:
        """Read the data, and move the models to the device of a worker."""
        check_shared(self.judge.folder.root)
        check_shared(self.heads)
        for entrant in self.entrants:
            entrant.model.to(device_of(worker, self.device))
        return _Parts(self)


class _Parts:
    """Parts of an evaluation, of which only what they leave in the folder matters."""

    def __init__(self, fitting: _Fitting) -> None:
        self.fitting = fitting
        self.study = Study(fitting.judge, quick=fitting.quick)

    def __call__(self, method: str, *arguments: object) -> None:
        """Run a part on a study without rows."""
        self.study.evaluation = Evaluation(self.fitting.judge, quick=self.fitting.quick)
        getattr(self, f"fit_{method}")(*arguments)

    def fit_raw(self) -> None:
        """Raw features."""
        judge_raw(self.study)

    def fit_oracle(self) -> None:
        """The means of true segments."""
        judge_oracle(self.study)

    def fit_candidate(self, mode: Mode, place: int) -> None:
        """One of the controls among which validation selects."""
        fit_candidate(self.study, list_candidates(self.study, mode)[place], mode)

    def fit_controls(self, mode: Mode) -> None:
        """All controls of a mode."""
        judge_controls(self.study, (mode,))

    def fit_model(self, mode: Mode, place: int, twin_too: bool, held_too: bool) -> None:
        """A model in one mode, alone and beside the controls."""
        models = judge_controls(self.study, (mode,))
        models.judge(self.fitting.entrants[place], twin_too=twin_too, held_too=held_too)

    def fit_head(self, mode: Mode, place: int, preset: str) -> None:
        """A temporal head on one representation."""
        judge_controls(self.study, (mode,))
        best = {mode: self.study.evaluation.best_control[mode].control}
        fitting = self.fitting
        HeadStudy(fitting.judge, fitting.config, fitting.heads, best).train(fitting.entrants, mode, place, preset)
