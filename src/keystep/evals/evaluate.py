"""`keystep.evaluate`: judge models on a data set, against raw features, the controls and each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from keystep.config.base import build
from keystep.data.folder import FeatureFolder, open_dataset
from keystep.data.groups import Grouping
from keystep.data.layout import data_set_of
from keystep.errors import InputError
from keystep.evals.entrants import (
    Group,
    Models,
    check_models,
    entrants_of,
    flat,
    leaks,
    loaded_groups,
    model_records,
    open_judge,
    own_rate,
)
from keystep.evals.gate import head_gains
from keystep.evals.head_rows import HeadStudy, check_clips, segment_scores
from keystep.evals.judge import Judge
from keystep.evals.judging import judge_all
from keystep.evals.kept import FOLDER
from keystep.evals.protocol import Entrant, EvalConfig, Evaluation
from keystep.evals.results import OURS, RESULT, Results, curves_of
from keystep.evals.rows import Mode
from keystep.evals.task import SEGMENTATION, EvaluationTask, find_task, judge_task
from keystep.files import check_new, check_ours
from keystep.plugins import allow, specs_in
from keystep.progress import SILENT, Progress


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
    progress: Progress = SILENT,
) -> Results:
    """Judge representations by heads on top of them, on the test videos of a split.

    Args:
        data: what `keystep.open_dataset` returned, or the folder, which is then read at the models' own rate.
        models: name -> a model, or the models of one recipe over seeds; each a `PJEPA`, a run folder, or what else
            `keystep.load` accepts. Without any, raw features and the controls are judged alone.
        heads: ``linear``, the probe of the table and the gate, which is always there, and presets of temporal heads
            such as ``mstcn``, which are trained on raw features, the best control, and every model. None: as ``config``
            says, ``linear`` alone by default.
        modes: ``offline`` sees whole videos, ``causal`` only the past. None: as ``config`` says, by default both.
        task: ``segmentation``: one class for every frame. Or a task of your own, whose table stands beside that one
            (see ``docs/add_task.md``).
        groups: video -> the person or site that it belongs to, or a pattern that finds it in the names; None: as the
            folder says. Where they are known, every bootstrap draws groups instead of videos, and a validation part
            that is cut from training holds whole groups.
        config: settings of probes, metrics and temporal heads, as an `EvalConfig` or such as
            ``{"background": ["none"], "training": {"epochs": 20}}``.
        out: folder for the result, its pictures and its report. Finished probes are kept there, so that the same call
            goes on after an interruption.
        quick: a first look in a fraction of the time, of which nothing may be claimed.
        overwrite: replace the result in ``out``.
        progress: reports every probe, of how many.

    Raises:
        InputError: unusable data or models, a result that is there already, or an ``out`` that cannot be written to.
    """
    allow(*specs_in(heads), *specs_in(task))
    asked = find_task(task)
    config = config if isinstance(config, EvalConfig) else build(EvalConfig, config or {})
    config = config.checked(heads, modes)
    if quick and config.temporal_heads:
        raise InputError("quick is for the linear probe alone; leave it out, or the other heads")
    if out is not None:
        check_output(Path(out), overwrite=overwrite)
    given, folder = _opened(data, models, groups)
    if config.temporal_heads:
        check_clips(folder, given)
    if config.data_set is None:
        config = config.model_copy(update={"data_set": data_set_of(folder.root)})
    with _own_notes(folder):
        results = _evaluated(
            given, folder, split, config, out, quick, progress, None if asked is None else (task, asked)
        )
    if out is not None:
        results.report(out)
    return results


def _opened(
    data: FeatureFolder | Path | str, models: Models | None, groups: Grouping | None
) -> tuple[list[Group], FeatureFolder]:
    """The models, and the data at their rate."""
    given = loaded_groups(models or {})
    folder = data if isinstance(data, FeatureFolder) else open_dataset(data, rate=own_rate(given))
    return given, folder.grouped(groups)


@contextmanager
def _own_notes(folder: FeatureFolder) -> Iterator[None]:
    """Notes of one evaluation are in its results; the data, which the next one may read, keep their own only."""
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
    """Check that the models can be judged on the data, and read them."""
    for line in check_models(given, folder, split):
        if line not in folder.problems.notes:  # the caller may have shown it already
            folder.problems.notes.append(line)
    return open_judge(folder, split, config, kept)


def _evaluated(
    given: Sequence[Group],
    folder: FeatureFolder,
    split: str,
    config: EvalConfig,
    out: Path | str | None,
    quick: bool,
    progress: Progress,
    asked: tuple[str, EvaluationTask] | None = None,
) -> Results:
    judge = _judge(given, folder, split, config, None if out is None else Path(out) / FOLDER)
    records, entrants = model_records(given), entrants_of(given)
    evaluation = judge_all(judge, entrants, progress, modes=config.modes, quick=quick)
    evaluation.leaks = leaks(given, judge.split.test)
    if config.temporal_heads:
        with TemporaryDirectory() as scratch:
            kept = Path(scratch) if out is None else Path(out) / FOLDER / "heads"
            _judge_heads(evaluation, entrants, config, kept, progress)
    if asked is not None:
        evaluation.task_tables.append(judge_task(*asked, evaluation, entrants, config.modes, progress))
    if config.by_segments:
        alone = [
            row for row in evaluation.rows if row.family in ("raw", "learned", "reconstruction") and not row.beside
        ]
        best = [simple.row for simple in evaluation.best_control.values() if simple.row not in alone]
        evaluation.segment_scores = segment_scores(judge, [*alone, *best, *evaluation.head_rows])
    runs = {f"{name}, seed {seed}": one.origin.run for name, seed, one in flat(given) if one.origin.run is not None}
    return Results.of(evaluation, curves_of(runs), records, config)


def _judge_heads(
    evaluation: Evaluation, entrants: Sequence[Entrant], config: EvalConfig, kept: Path, progress: Progress
) -> None:
    """The rows of temporal heads, and what they gain."""
    best = {mode: simple.control for mode, simple in evaluation.best_control.items()}
    study = HeadStudy(evaluation.judge, config, kept, best)
    study.run(entrants, progress)
    evaluation.head_rows, evaluation.clip_rows = study.rows, study.clip_rows
    evaluation.head_gains = head_gains(study.rows, evaluation.judge)


def check_output(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder for results before any work is done for it.

    Raises:
        InputError: it holds a result already and ``overwrite`` is not given, it holds something else, or it cannot be
            written to.
    """
    check_ours(out, OURS)
    check_new(out / RESULT, overwrite)
