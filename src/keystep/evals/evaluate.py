"""`keystep.evaluate`: evaluate models on a data set against raw features, the controls and each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from keystep.config.base import build
from keystep.data.folder import FeatureFolder, open_dataset
from keystep.data.groups import Grouping
from keystep.data.layout import read_data_set_name
from keystep.engines import Engine, Local
from keystep.errors import InputError
from keystep.evals.ahead import fit_ahead
from keystep.evals.entrants import (
    Group,
    Models,
    check_models,
    leaks,
    load_groups,
    make_entrants,
    model_records,
    open_judge,
    seeded_models,
    training_rate,
)
from keystep.evals.gate import head_gains
from keystep.evals.head_rows import HeadStudy, check_clips, segment_scores
from keystep.evals.judge import Judge
from keystep.evals.judging import judge_all
from keystep.evals.probe_cache import FOLDER
from keystep.evals.protocol import Entrant, EvalConfig, Evaluation
from keystep.evals.results import OURS, RESULT, Results, read_curves
from keystep.evals.rows import Mode
from keystep.evals.task import SEGMENTATION, EvaluationTask, TableTask, find_task, judge_task, judged_modes
from keystep.files import check_new, check_replaceable
from keystep.locking import owning
from keystep.plugins import allow, specs_in
from keystep.progress import SILENT, Progress

HEADS = "heads"
"""Name of the folder of trained heads within that of fitted probes."""


def evaluate(
    data: FeatureFolder | Path | str,
    models: Models | None = None,
    *,
    split: str = "1",
    heads: Sequence[str] | None = None,
    modes: Sequence[Mode] | None = None,
    task: str = SEGMENTATION,
    groups: Grouping | None = None,
    config: EvalConfig | Mapping[str, Any] | None = None,
    out: Path | str | None = None,
    quick: bool = False,
    overwrite: bool = False,
    engine: Engine | None = None,
    progress: Progress = SILENT,
) -> Results:
    """Evaluate frozen representations with heads on the test videos of a split.

    Args:
        data: a dataset from `keystep.open_dataset`, or a folder, which is then read at the rate of the models.
        models: name -> a model, or a list of models that are seeds of one recipe. Each is a `PJEPA`, a run folder, or
            anything else that `keystep.load` accepts. None: only raw features and the controls are evaluated.
        split: name of the split.
        heads: ``linear`` is the probe used by the gate and is always included. Presets of temporal heads, such as
            ``mstcn``, are trained on raw features, the best control and every model. None: as in ``config``, by default
            only ``linear``.
        modes: ``offline`` uses the whole video, ``causal`` only the past. None: as in ``config``, by default both.
        task: ``segmentation``: one class for every frame. ``anticipate`` (later steps) and ``remaining`` (the time
            left) add a table (``docs/anticipation.md``), ``mistakes`` adds two (``docs/mistakes.md``), and a task of
            your own adds one (``docs/add_task.md``).
        groups: video -> the person or site that it belongs to, or a pattern that extracts it from the video name. None:
            as stored in the folder. If groups are known, bootstraps resample groups instead of videos, and a validation
            part that is split from the training part consists of whole groups.
        config: settings of probes, metrics and temporal heads, as an `EvalConfig` or a dict such as
            ``{"background": ["none"], "training": {"epochs": 20}}``.
        out: folder for the result, its pictures and its report. Fitted probes are cached there, so the same call
            resumes an interrupted evaluation.
        quick: a quick look that takes a fraction of the time and supports no claims.
        overwrite: replace an existing result in ``out``.
        engine: where to fit probes and heads, see `keystep.extract`; needs ``out``. None: this process.
        progress: receives one update for each probe.

    Returns:
        The results, which are also written to ``out`` if it is given.

    Raises:
        InputError: invalid data, models or settings, an existing result, or an ``out`` that is not writable.
    """
    allow(*specs_in(heads), *specs_in(task))
    asked = find_task(task)
    config = config if isinstance(config, EvalConfig) else build(EvalConfig, config or {})
    config = config.checked(heads, modes)
    config.check_quick(quick)
    if asked is not None:
        judged_modes(task, asked, config.modes)
    engine = engine or Local()
    if out is None and not engine.alone:
        raise InputError("an engine with workers needs out, where they leave what they have fitted")
    with owning(out):
        if out is not None:
            check_output(Path(out), overwrite=overwrite)
        given, folder = _open(data, models, groups)
        if config.temporal_heads:
            check_clips(folder, given)
        if config.data_set is None:
            config = config.model_copy(update={"data_set": read_data_set_name(folder.root)})
        with _restore_notes(folder):
            results = _evaluate(
                given, folder, split, config, out, quick, engine, progress, None if asked is None else (task, asked)
            )
        if out is not None:
            results.report(out)
    return results


def _open(
    data: FeatureFolder | Path | str, models: Models | None, groups: Grouping | None
) -> tuple[list[Group], FeatureFolder]:
    """Load the models, and open the data at their rate."""
    given = load_groups(models or {})
    folder = data if isinstance(data, FeatureFolder) else open_dataset(data, rate=training_rate(given))
    return given, folder.grouped(groups)


@contextmanager
def _restore_notes(folder: FeatureFolder) -> Iterator[None]:
    """Restore the notes of the data afterwards, so that they are not carried over to the next evaluation."""
    before = list(folder.problems.notes)
    try:
        yield
    finally:
        folder.problems.notes[:] = before


def _judge(
    given: Sequence[Group],
    folder: FeatureFolder,
    split: str,
    config: EvalConfig,
    kept: Path | None,
) -> Judge:
    """Check that the models can be evaluated on the data, and read the data."""
    for line in check_models(given, folder, split):
        if line not in folder.problems.notes:  # the caller may have added it already
            folder.problems.notes.append(line)
    return open_judge(folder, split, config, kept)


def _evaluate(
    given: Sequence[Group],
    folder: FeatureFolder,
    split: str,
    config: EvalConfig,
    out: Path | str | None,
    quick: bool,
    engine: Engine,
    progress: Progress,
    asked: tuple[str, EvaluationTask] | None = None,
) -> Results:
    judge = _judge(given, folder, split, config, None if out is None else Path(out) / FOLDER)
    records, entrants = model_records(given), make_entrants(given)
    if out is not None and not engine.alone:
        fit_ahead(judge, entrants, config, Path(out) / FOLDER / HEADS, engine, progress, quick=quick)
    evaluation = judge_all(judge, entrants, progress, modes=config.modes, quick=quick)
    evaluation.leaks = leaks(given, judge.split.test)
    if config.temporal_heads:
        with TemporaryDirectory() as scratch:
            kept = Path(scratch) if out is None else Path(out) / FOLDER / HEADS
            _judge_heads(evaluation, entrants, config, kept, progress)
    if asked is not None:
        name, task = asked
        evaluation.task_tables += (
            task.tables(name, evaluation, entrants, progress)
            if isinstance(task, TableTask)
            else [judge_task(name, task, evaluation, entrants, config.modes, progress)]
        )
    if config.by_segments:
        alone = [
            row for row in evaluation.rows if row.family in ("raw", "learned", "reconstruction") and not row.beside
        ]
        best = [simple.row for simple in evaluation.best_control.values() if simple.row not in alone]
        evaluation.segment_scores = segment_scores(judge, [*alone, *best, *evaluation.head_rows])
    runs = {
        f"{name}, seed {seed}": one.origin.run for name, seed, one in seeded_models(given) if one.origin.run is not None
    }
    return Results.of(evaluation, read_curves(runs), records, config)


def _judge_heads(
    evaluation: Evaluation, entrants: Sequence[Entrant], config: EvalConfig, kept: Path, progress: Progress
) -> None:
    """Train temporal heads and compare them."""
    best = {mode: simple.control for mode, simple in evaluation.best_control.items()}
    study = HeadStudy(evaluation.judge, config, kept, best)
    study.run(entrants, progress)
    evaluation.head_rows, evaluation.clip_rows = study.rows, study.clip_rows
    evaluation.head_gains = head_gains(study.rows, evaluation.judge)


def check_output(out: Path, *, overwrite: bool) -> None:
    """Check early that results can be written to a folder.

    Raises:
        InputError: it holds other files, it holds a result and ``overwrite`` is False, or it is not writable.
    """
    check_replaceable(out, OURS)
    check_new(out / RESULT, overwrite)
