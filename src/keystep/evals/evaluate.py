"""`keystep.evaluate`: judge models on a data set, against raw features, the controls and each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

from keystep.data.folder import FeatureFolder, open_dataset
from keystep.data.groups import Grouping
from keystep.data.layout import data_set_of
from keystep.errors import InputError
from keystep.evals import suite_results
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
from keystep.evals.judge import Judge, Mode
from keystep.evals.judging import judge_all
from keystep.evals.kept import FOLDER
from keystep.evals.protocol import EvalConfig
from keystep.evals.results import OURS, RESULT, Results, curves_of
from keystep.evals.suite import HeadRow, SuiteConfig, check_clips, gains, run_suite
from keystep.evals.suite_results import gain_records, row_records, save_suite
from keystep.files import check_new, check_ours
from keystep.heads import PRESETS
from keystep.progress import SILENT, Progress

HEADS = "suite_heads"
"""Folder of the trained heads within a suite's."""
TASKS = ("segmentation",)
PROBE = "linear"
"""The head that everything is judged by unless others are asked for."""


def evaluate(
    data: FeatureFolder | Path | str,
    models: Models | None = None,
    *,
    split: str = "1",
    heads: Sequence[str] = (PROBE,),
    modes: Sequence[Mode] = ("offline", "causal"),
    task: str = "segmentation",
    groups: Grouping | None = None,
    config: EvalConfig | None = None,
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
        heads: ``linear``, the probe of the table and the gate, and presets of temporal heads such as ``mstcn``, which
            are trained on raw features, the best control, and every model.
        modes: ``offline`` sees whole videos, ``causal`` only the past.
        task: ``segmentation``: one class for every frame.
        groups: video -> the person or site that it belongs to, or a pattern that finds it in the names; None: as the
            folder says. Where they are known, every bootstrap draws groups instead of videos, and a validation part
            that is cut from training holds whole groups.
        config: settings of probes and metrics; a `SuiteConfig` has those of temporal heads too.
        out: folder for the result, its pictures and its report. Finished probes are kept there, so that the same call
            goes on after an interruption.
        quick: a first look in a fraction of the time, of which nothing may be claimed.
        overwrite: replace the result in ``out``.
        progress: reports every probe, of how many.

    Raises:
        InputError: unusable data or models, a result that is there already, or an ``out`` that cannot be written to.
    """
    if task not in TASKS:
        raise InputError(f"unknown task {task!r}; expected {', '.join(TASKS)}")
    for head in heads:
        if head not in PRESETS:
            raise InputError(f"unknown head {head!r}; expected one of {', '.join(PRESETS)}")
    for mode in modes:
        if mode not in get_args(Mode):
            raise InputError(f"unknown mode {mode!r}; expected {' or '.join(get_args(Mode))}")
    if quick and set(heads) != {PROBE}:
        raise InputError("quick is for the linear probe alone; leave it out, or the other heads")
    if out is not None:
        check_output(Path(out), overwrite=overwrite)
    config = config or EvalConfig()
    given, folder = _opened(data, models, groups)
    with _own_notes(folder):
        results = _evaluated(given, folder, split, heads, modes, config, out, quick, progress)
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
    heads: Sequence[str],
    modes: Sequence[Mode],
    config: EvalConfig,
    out: Path | str | None,
    quick: bool,
    progress: Progress,
) -> Results:
    judge = _judge(given, folder, split, config, None if out is None else Path(out) / FOLDER)
    records, entrants = model_records(given), entrants_of(given)
    evaluation = judge_all(judge, entrants, progress, modes=modes, quick=quick)
    evaluation.leaks = leaks(given, judge.split.test)
    others = tuple(head for head in heads if head != PROBE)
    more: dict[str, Any] = {}
    if others:
        settings = config if isinstance(config, SuiteConfig) else SuiteConfig(**config.model_dump())
        settings = settings.model_copy(update={"heads": others, "modes": tuple(modes)})
        weights = {(record["name"], record["seed"]): record["weights"] for record in records}
        with TemporaryDirectory() as scratch:
            kept = Path(scratch) if out is None else Path(out) / FOLDER / "heads"
            suite = run_suite(judge, entrants, settings, kept, progress, weights)
        more = {"head_rows": row_records(suite.rows), "head_gains": gain_records(gains(suite.rows, judge))}
    runs = {f"{name}, seed {seed}": one.origin.run for name, seed, one in flat(given) if one.origin.run is not None}
    return Results.of(evaluation, curves_of(runs), records, more)


@dataclass(frozen=True)
class SuiteResults:
    """What `evaluate_suite` found; its rows, and the report that shows them."""

    rows: tuple[HeadRow, ...]
    report: Path

    def __repr__(self) -> str:
        return f"SuiteResults({len(self.rows)} rows, {str(self.report)!r})"


def evaluate_suite(
    data: FeatureFolder | Path | str,
    models: Models | None = None,
    *,
    out: Path | str,
    split: str = "1",
    groups: Grouping | None = None,
    config: SuiteConfig | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> SuiteResults:
    """Train temporal heads on raw features, the best control and every model; the paper's rows stand beside ours.

    Args:
        data, models, split, groups, overwrite, progress: see `evaluate`.
        out: folder for ``suite.json``, the report and the heads. Trained heads are found again after an interruption.
        config: heads, modes, their settings and training; ``data_set`` by default as the folder says.

    Raises:
        InputError: unusable data or models, a result that is there already, or an ``out`` that cannot be written to.
    """
    out, config = Path(out), config or SuiteConfig()
    pictures = {path.name for path in out.glob("ribbons_*.png")} if out.is_dir() else set()
    check_ours(out, {*suite_results.OURS, HEADS, FOLDER, *pictures})
    check_new(out / suite_results.RESULT, overwrite)
    given, folder = _opened(data, models, groups)
    if config.data_set is None:
        config = config.model_copy(update={"data_set": data_set_of(folder.root)})
    check_clips(folder, given)
    judge, records = _judge(given, folder, split, config, out / FOLDER), model_records(given)
    weights = {(record["name"], record["seed"]): record["weights"] for record in records}
    found = run_suite(judge, entrants_of(given), config, out / HEADS, progress, weights)
    return SuiteResults(tuple(found.rows), save_suite(out, judge, found, config, records))


def check_output(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder for results before any work is done for it.

    Raises:
        InputError: it holds a result already and ``overwrite`` is not given, it holds something else, or it cannot be
            written to.
    """
    check_ours(out, OURS)
    check_new(out / RESULT, overwrite)
