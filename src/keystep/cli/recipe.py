"""A complete run on one data set: prepare, pretrain, judge. The files in ``recipes/`` say what is special to each.

::

    out/recipe.json          the settings of what was done here; other settings are refused
    out/data/                the prepared features, where the download cannot be read as it is
    out/<row>-seed<N>/       a pretraining run
    out/results/             table, pictures, report
    out/suite/               the same for temporal heads, with --suite paper

A run that was stopped goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from keystep.cli import guarded
from keystep.cli.evaluation import evaluate_folder
from keystep.cli.preparation import print_survey
from keystep.cli.progress import progress_on
from keystep.cli.suite import evaluate_suite
from keystep.config import RunConfig, run_config
from keystep.config.base import assignments, build
from keystep.config.presets import preset_settings
from keystep.datasets import Prepared, examine, prepare
from keystep.errors import InputError
from keystep.evals.protocol import EvalConfig
from keystep.evals.suite import suite_config
from keystep.files import read_json, write_json
from keystep.persistence import CONFIG
from keystep.train.run import pretrain

RECORD = "recipe.json"


@dataclass(frozen=True)
class Row:
    """A model of the table. preset: where its settings start. settings: as for ``keystep pretrain --set``."""

    preset: str
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """What a run on a data set needs to know; everything else is a default.

    data_set: as for ``keystep prepare``. options: its ``--set``. copy: write a feature folder even where the download
    can be read as it is. rate: slots a second to work at; None: the folder's. split: the one that trains and tests.
    rows: name -> model. evaluation: as for ``keystep eval --set``. suite: what ``--suite`` is set to beyond that.
    """

    data_set: str
    rows: Mapping[str, Row]
    options: tuple[str, ...] = ()
    copy: bool = True
    rate: str | None = None
    split: str = "1"
    evaluation: tuple[str, ...] = field(default=())
    suite: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Wanted:
    """What the command line asks of a recipe.

    steps: of each model, instead of the recipe's. rows: only these. seeds: how many, from 0 on. preparation, settings,
    evaluation, suite_settings: on top of the recipe's. suite: temporal heads, too, as ``keystep eval --suite``.
    """

    root: Path
    out: Path
    steps: int | None = None
    rows: tuple[str, ...] = ()
    seeds: int = 1
    split: str | None = None
    preparation: Sequence[str] = ()
    settings: Sequence[str] = ()
    evaluation: Sequence[str] = ()
    suite: str | None = None
    suite_settings: Sequence[str] = ()
    on_error: str = "raise"


def run_recipe(recipe: Recipe, wanted: Wanted, console: Console) -> Path:
    """Do what was not done yet, and return the folder of the result.

    Raises:
        InputError: something needed is missing, unusable data or settings, or other settings than before in ``out``.
        Interrupted: Ctrl-C or SIGTERM, after saving.
    """
    rows = _rows(recipe, wanted)
    split = wanted.split or recipe.split
    changes = [_settings(row, wanted) for row in rows.values()]
    evaluation = [*recipe.evaluation, *wanted.evaluation]
    suite = [*evaluation, *recipe.suite, *wanted.suite_settings]
    _check_settings(rows, changes, evaluation, wanted, suite)
    record = _record(wanted.out, recipe, wanted, dict(zip(rows, changes, strict=True)))
    prepared = _prepare(recipe, wanted, console)
    write_json(wanted.out / RECORD, record)
    rate = None if prepared.source_rate is None else str(prepared.source_rate)
    source = {"root": prepared.folder, "source_rate": rate, "rate": recipe.rate, "split": split}
    models = []
    for (name, row), change in zip(rows.items(), changes, strict=True):
        runs = []
        for seed in range(wanted.seeds):
            data = {"data": source | {"on_error": wanted.on_error}, "train": {"seed": seed}}
            config = build(RunConfig, preset_settings(row.preset), data, change)
            runs.append(_train(config, wanted.out / f"{name}-seed{seed}", console))
        models.append(f"{name}={','.join(map(str, runs))}")
    result = wanted.out / "results"
    evaluate_folder(
        *(prepared.folder, models, result, split, rate, recipe.rate, evaluation, wanted.on_error),
        console=console,
        overwrite=True,
    )
    if wanted.suite is not None:
        evaluate_suite(
            wanted.suite,
            prepared.folder,
            models,
            wanted.out / "suite",
            split,
            rate,
            recipe.rate,
            suite,
            wanted.on_error,
            console=console,
            overwrite=True,
        )
    return result


def main(recipe: Recipe, arguments: Sequence[str] | None = None) -> None:
    """Run a recipe as the command line asks for it."""
    guarded(lambda: run_recipe(recipe, _wanted(recipe, arguments), Console(highlight=False)))


def _wanted(recipe: Recipe, arguments: Sequence[str] | None) -> Wanted:
    parser = argparse.ArgumentParser(
        description=f"Prepare {recipe.data_set}, pretrain {', '.join(recipe.rows)}, judge."
    )
    parser.add_argument("--root", type=Path, required=True, help=f"the folder that {recipe.data_set} was downloaded to")
    parser.add_argument("--out", type=Path, required=True, help="folder for data, runs and results")
    parser.add_argument("--steps", type=int, help="optimiser steps of each model, instead of the recipe's")
    parser.add_argument("--rows", default="", help=f"only these, such as {','.join(recipe.rows)}")
    parser.add_argument("--seeds", type=int, default=1, help="how many; a claim needs 3")
    parser.add_argument("--split", help=f"instead of {recipe.split}")
    parser.add_argument(
        "--prepare-set", dest="preparation", action="append", default=[], help="as for keystep prepare --set"
    )
    parser.add_argument("--set", dest="settings", action="append", default=[], help="as for keystep pretrain")
    parser.add_argument("--eval-set", dest="evaluation", action="append", default=[], help="as for keystep eval --set")
    parser.add_argument("--suite", help="'paper': temporal heads, too, beside the paper's printed rows")
    parser.add_argument(
        "--suite-set", dest="suite_settings", action="append", default=[], help="as for keystep eval --suite --set"
    )
    parser.add_argument("--on-error", default="raise", help="'skip' leaves bad videos out and lists them")
    given: dict[str, Any] = vars(parser.parse_args(arguments))
    rows = tuple(name for name in given["rows"].split(",") if name)
    return Wanted(**(given | {"rows": rows}))


def _rows(recipe: Recipe, wanted: Wanted) -> dict[str, Row]:
    """The rows to train."""
    unknown = sorted(set(wanted.rows) - set(recipe.rows))
    if unknown:
        raise InputError(f"--rows: no row {unknown[0]!r}; there are {', '.join(recipe.rows)}")
    if wanted.seeds < 1:
        raise InputError(f"--seeds {wanted.seeds}: no model to train; give 1 or more")
    if wanted.suite_settings and wanted.suite is None:
        raise InputError(f"--suite-set {wanted.suite_settings[0]!r} without --suite; add --suite paper")
    return {name: row for name, row in recipe.rows.items() if not wanted.rows or name in wanted.rows}


def _check_settings(
    rows: Mapping[str, Row],
    changes: Sequence[Mapping[str, Any]],
    evaluation: list[str],
    wanted: Wanted,
    suite: list[str],
) -> None:
    """Refuse wrong settings of what comes after hours of preparing and training."""
    for row, change in zip(rows.values(), changes, strict=True):
        build(RunConfig, preset_settings(row.preset), {"data": {"root": wanted.root, "split": "1"}}, change)
    build(EvalConfig, assignments(evaluation))
    if wanted.suite is not None:
        suite_config(wanted.suite, suite)


def _settings(row: Row, wanted: Wanted) -> dict[str, Any]:
    """A row's settings with those of the command line on top."""
    steps = () if wanted.steps is None else (f"train.steps={wanted.steps}", "train.epochs=null")
    return assignments([*row.settings, *steps, *wanted.settings])


def _record(out: Path, recipe: Recipe, wanted: Wanted, rows: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The settings of this call and those before it. A folder with others is refused: a model trained for 100 steps
    must not pass for the recipe's."""
    record: dict[str, Any] = {
        "data": {
            "data_set": recipe.data_set,
            "options": _options(recipe, wanted),
            "rate": recipe.rate,
            "split": wanted.split or recipe.split,
        },
        "rows": {name: {"preset": recipe.rows[name].preset, "settings": change} for name, change in rows.items()},
    }
    path = out / RECORD
    before = read_json(path) if path.exists() else {"data": record["data"], "rows": {}}
    both = [name for name in rows if name in before["rows"] and before["rows"][name] != record["rows"][name]]
    if before["data"] != record["data"] or both:
        what = f"row {both[0]}" if both else "data"
        raise InputError(f"{path}: was made with other settings ({what}); give the same again, or another --out")
    return record | {"rows": before["rows"] | record["rows"]}


def _options(recipe: Recipe, wanted: Wanted) -> list[str]:
    """Options of the data set, those of the command line last, as they count."""
    return [*recipe.options, *wanted.preparation]


def _prepare(recipe: Recipe, wanted: Wanted, console: Console) -> Prepared:
    out = wanted.out / "data" if recipe.copy or wanted.preparation else None  # options are those of a copy
    name, root, settings = recipe.data_set, wanted.root, assignments(_options(recipe, wanted))
    survey = examine(name, root, settings)
    print_survey(survey, console)
    return prepare(
        name,
        root,
        out,
        settings=settings,
        on_error=wanted.on_error,
        survey=survey,
        progress=progress_on(console),
    )


def _train(config: RunConfig, run: Path, console: Console) -> Path:
    """Train a model, or go on with it, or leave it as it is."""
    if (run / "model" / CONFIG).exists():
        console.print(f"{run}: is there already", soft_wrap=True, markup=False)
        return run
    resume = (run / "config.yaml").exists()
    pretrain(run_config(run) if resume else config, run, resume=resume, progress=progress_on(console))
    return run
