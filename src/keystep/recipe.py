"""A recipe: a complete run on one data set, in one YAML file. Prepare, pretrain, judge.

::

    out/recipe.json          the settings of what was done here; other settings are refused
    out/data/                the prepared features, where the download cannot be read as it is
    out/<model>-seed<N>/     a pretraining run
    out/results/             table, pictures, report

A run that was stopped goes on when it is planned and run again with the same settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from keystep.config import Config, RunConfig, build
from keystep.config.base import assignments, merged, read_yaml
from keystep.config.presets import preset_settings
from keystep.errors import InputError
from keystep.files import write_json
from keystep.locking import owning
from keystep.plugins import DATA_SETS, TARGETS
from keystep.progress import SILENT, Progress
from keystep.reading import read_json
from keystep.types import OnError, Rate

if TYPE_CHECKING:
    from keystep.datasets import Prepared
    from keystep.datasets.survey import Survey

RECORD = "recipe.json"

Split = Annotated[str | None, BeforeValidator(lambda value: None if value is None else str(value))]


class RecipeModel(Config):
    """A model of the table."""

    preset: str = "tiny"
    """Where its settings start; see `keystep config`."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """What differs from the preset, as in a file for ``keystep pretrain --config``."""

    @model_validator(mode="after")
    def _settings_are_known(self) -> Self:
        self.config({"data": {"root": "DATA", "split": "1"}})
        return self

    def config(self, data: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> RunConfig:
        """All settings of one run on some data."""
        return build(RunConfig, preset_settings(self.preset), data, self.settings, changes or {})


class Recipe(Config):
    """What a run on a data set needs to know; everything else is a default."""

    data_set: str | None = None
    """As for ``keystep prepare``; None: ``root`` is a feature folder already."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the data set, as for ``keystep prepare --set``."""
    convert: bool = True
    """Write a feature folder even where the download can be read as it is."""
    source_rate: Rate | None = None
    """Features a second on disk, where the feature folder does not say."""
    rate: Rate | None = None
    """Slots a second to work at; None: the folder's."""
    split: Split = "1"
    """Train on this split's training videos, test on its test videos; None: train on all, judge nothing."""
    models: Annotated[dict[str, RecipeModel], Field(min_length=1)]
    """The models of the table by name."""
    evaluation: dict[str, Any] = Field(default_factory=dict)
    """As for ``keystep eval --set``."""
    suite: dict[str, Any] = Field(default_factory=dict)
    """What differs from that with ``--suite``."""

    @model_validator(mode="after")
    def _one_source_of_the_rate(self) -> Self:
        if self.data_set is not None and self.source_rate is not None:
            raise ValueError(f"source_rate with data_set {self.data_set}: preparing it tells the rate; leave it out")
        return self


@dataclass(frozen=True)
class RecipeResult:
    """What a recipe made.

    Attributes:
        data: the feature folder that was trained on.
        runs: the runs of each model, over seeds.
        results: folder of table, pictures and report; None without a split.
        warnings: lines about what deserves a look.
    """

    data: Path
    runs: dict[str, tuple[Path, ...]]
    results: Path | None
    warnings: tuple[str, ...]


def read_recipe(path: Path | str) -> Recipe:
    """Read a recipe.

    Raises:
        InputError: no such file, or unknown names or bad values in it.
    """
    path = Path(path)
    try:
        return build(Recipe, read_yaml(path))
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(str(path)) else f"{path}: {text}") from error


@dataclass(frozen=True)
class Plan:
    """A recipe whose settings were all checked; nothing is written yet. Made by `plan`."""

    recipe: Recipe
    root: Path
    out: Path
    models: Mapping[str, RecipeModel]
    changes: Mapping[str, Any]
    options: Mapping[str, Any]
    convert: bool
    seeds: int
    split: str | None
    evaluation: Mapping[str, Any]
    suite: str | None
    on_error: OnError
    survey: Survey | None
    """What is there of the download, beside what was published; None for a feature folder."""
    record: Mapping[str, Any]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why nothing will be claimed however the models do, known before they are trained."""
        from keystep.evals.protocol import SEEDS_FOR_A_CLAIM

        if self.split is None:
            return ("no split: models train on all videos, and nothing is judged; make folds with keystep split",)
        if self.seeds < SEEDS_FOR_A_CLAIM:
            seeds = "1 seed" if self.seeds == 1 else f"{self.seeds} seeds"
            return (f"{seeds}: nothing can be claimed of the result; a claim needs --seeds {SEEDS_FOR_A_CLAIM}",)
        return ()

    def run(self, progress: Progress = SILENT) -> RecipeResult:
        """Do what was not done yet.

        Raises:
            InputError: something needed is missing, or unusable data.
            Interrupted: Ctrl-C or SIGTERM, after saving.
        """
        with owning(self.out):
            return self._run(progress)

    def _run(self, progress: Progress) -> RecipeResult:
        prepared = self._prepared(progress)
        data = _source(self.root, self.recipe, prepared)
        write_json(self.out / RECORD, dict(self.record))
        runs = self._train(data, progress)
        warnings = () if prepared is None else prepared.warnings
        if self.split is None:
            return RecipeResult(data["root"], runs, None, warnings)
        return RecipeResult(data["root"], runs, self._judge(data, runs, progress), warnings)

    def _prepared(self, progress: Progress) -> Prepared | None:
        if self.recipe.data_set is None:
            return None
        from keystep.datasets import prepare

        return prepare(
            self.recipe.data_set,
            self.root,
            self.out / "data" if self.convert else None,
            settings=self.options,
            on_error=self.on_error,
            survey=self.survey,
            progress=progress,
        )

    def _train(self, data: Mapping[str, Any], progress: Progress) -> dict[str, tuple[Path, ...]]:
        """The runs of each model: trained, gone on with, or left as they are."""
        from keystep.train.several import pretrain_several

        given = {"data": {**data, "split": self.split, "on_error": self.on_error}}
        runs: dict[str, tuple[Path, ...]] = {}
        settings: dict[Path, RunConfig] = {}
        for name, model in self.models.items():
            runs[name] = tuple(self.out / f"{name}-seed{seed}" for seed in range(self.seeds))
            for seed, run in enumerate(runs[name]):
                settings[run] = model.config({**given, "train": {"seed": seed}}, self.changes)
        pretrain_several(settings, progress=progress)
        return runs

    def _judge(self, source: Mapping[str, Any], runs: Mapping[str, Sequence[Path]], progress: Progress) -> Path:
        from keystep.data.folder import open_dataset
        from keystep.evals.evaluate import evaluate
        from keystep.evals.protocol import eval_config

        assert self.split is not None
        results, config = self.out / "results", eval_config(self.evaluation, self.suite)
        data = open_dataset(**source, problems=self.on_error)
        evaluate(data, dict(runs), split=self.split, config=config, out=results, overwrite=True, progress=progress)
        return results


def plan(
    recipe: Recipe,
    root: Path | str,
    out: Path | str,
    *,
    steps: int | None = None,
    models: Sequence[str] = (),
    seeds: int = 1,
    split: str | None = None,
    options: Sequence[str] = (),
    settings: Sequence[str] = (),
    evaluation: Sequence[str] = (),
    suite: str | None = None,
    suite_settings: Sequence[str] = (),
    on_error: OnError = "raise",
) -> Plan:
    """Check everything that a recipe is going to need, so that nothing fails after hours of training.

    Args:
        root: the folder that the data set was downloaded to, or the feature folder.
        out: folder for data, runs and results.
        steps: optimiser steps of each model, instead of the recipe's.
        models: only these; by default all.
        seeds: how many runs of each model; a claim needs 3.
        split: instead of the recipe's.
        options, settings, evaluation, suite_settings: NAME=VALUE, on top of the recipe's options of the data set, of
            its models, of the evaluation, and of what is added to that with ``suite``.
        suite: ``paper`` trains temporal heads, too, beside the paper's printed rows.

    Raises:
        InputError: unknown names, bad values, no such folder, or other settings than those of before in ``out``.
    """
    root, out = Path(root), Path(out)
    unknown = sorted(set(models) - set(recipe.models))
    if unknown:
        raise InputError(f"--models: no model {unknown[0]!r}; there are {', '.join(recipe.models)}")
    if seeds < 1:
        raise InputError(f"--seeds {seeds}: no model to train; give 1 or more")
    if suite_settings and suite is None:
        raise InputError(f"--suite-set {suite_settings[0]!r} without --suite; add --suite paper")
    if recipe.data_set is None and options:
        raise InputError(f"--prepare-set {options[0]!r}: this recipe prepares nothing; leave it out")
    chosen = {name: model for name, model in recipe.models.items() if not models or name in models}
    fewer = () if steps is None else (f"train.steps={steps}", "train.epochs=null")
    changes = assignments([*fewer, *settings])
    if recipe.data_set is not None:
        DATA_SETS.check(recipe.data_set)
    for model in chosen.values():
        TARGETS.check(model.config({"data": {"root": root, "split": "1"}}, changes).target.kind)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the one that the data were downloaded to")
    judging = merged(recipe.evaluation, assignments(list(evaluation)))
    if suite is not None:
        judging = merged(judging, recipe.suite, assignments(list(suite_settings)))
    wanted_split = split or recipe.split
    if wanted_split is not None:
        _check_judging(chosen, judging, suite)
    prepared = merged(recipe.options, assignments(list(options)))
    record = _record(recipe, out, chosen, changes, prepared, wanted_split)
    return Plan(
        *(recipe, root, out, chosen, changes, prepared, recipe.convert or bool(options), seeds, wanted_split),
        *(judging, suite, on_error),
        survey=_survey(recipe, root, prepared),
        record=record,
    )


def _check_judging(models: Iterable[str], evaluation: Mapping[str, Any], suite: str | None) -> None:
    from keystep.evals.entrants import reserved
    from keystep.evals.protocol import eval_config

    for name in models:
        if reserved(name):
            raise InputError(f"models.{name}: this name stands for a control; choose another")
    try:
        eval_config(evaluation, suite)
    except InputError as error:
        raise InputError(f"evaluation: {error}") from error


def _survey(recipe: Recipe, root: Path, options: Mapping[str, Any]) -> Survey | None:
    if recipe.data_set is None:
        return None
    from keystep.datasets import examine

    return examine(recipe.data_set, root, options)


def _source(root: Path, recipe: Recipe, prepared: Prepared | None) -> dict[str, Any]:
    """The folder and how to read it: names and values of `open_dataset`'s arguments and of the settings of ``data``."""
    if prepared is None:
        return {"root": root, "source_rate": recipe.source_rate, "rate": recipe.rate}
    read = {"root": prepared.folder, "source_rate": prepared.source_rate, "rate": recipe.rate}
    return read | {"groups": prepared.groups}


def _record(
    recipe: Recipe,
    out: Path,
    models: Mapping[str, RecipeModel],
    changes: Mapping[str, Any],
    options: Mapping[str, Any],
    split: str | None,
) -> dict[str, Any]:
    """The settings of this run and those before it. A folder with others is refused: a model trained for 100 steps must
    not pass for the recipe's."""
    rate = None if recipe.rate is None else str(recipe.rate)
    data = {"data_set": recipe.data_set, "options": dict(options), "rate": rate, "split": split}
    rows = {
        name: {"preset": model.preset, "settings": model.settings, "changes": dict(changes)}
        for name, model in models.items()
    }
    path = out / RECORD
    before = read_json(path) if path.exists() else {"data": data, "models": {}}
    if not isinstance(before.get("models"), dict):
        raise InputError(f"{path}: an earlier version of keystep made this folder; give another --out")
    both = [name for name in rows if name in before["models"] and before["models"][name] != rows[name]]
    if before.get("data") != data or both:
        what = f"model {both[0]}" if both else "data"
        raise InputError(f"{path}: was made with other settings ({what}); give the same again, or another --out")
    return {"data": data, "models": before["models"] | rows}
