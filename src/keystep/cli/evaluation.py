"""``keystep eval`` and ``keystep report``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from keystep.cli.data import list_problems, open_data
from keystep.cli.progress import counting
from keystep.config.base import assignments, build
from keystep.data.annotation import IGNORED, labelled_share
from keystep.data.folder import FeatureFolder
from keystep.errors import InputError
from keystep.evals.judge import Judge
from keystep.evals.protocol import Entrant, EvalConfig, Evaluation, evaluate
from keystep.evals.report import RIVALS, write_report
from keystep.evals.results import OURS, curves_of, load_result, save_evaluation
from keystep.evals.table import main_line, markdown_table, verdict
from keystep.files import check_ours
from keystep.loading import check_features, load
from keystep.pjepa import PJEPA
from keystep.target import feature_width

METRICS = ("accuracy", "edit", "f1@10", "f1@25", "f1@50")


def evaluate_folder(
    data: Path,
    models: list[str],
    out: Path,
    split: str,
    source_rate: str | None,
    rate: str | None,
    settings: list[str],
    on_error: str,
    console: Console,
) -> None:
    """Judge, save, draw, say."""
    check_ours(out, OURS)
    config = build(EvalConfig, assignments(settings))
    folder = open_data(data, source_rate, rate, on_error)
    groups = [parse_group(text) for text in models]
    check_models(groups, folder, split, console)
    evaluation = judge_models(folder, split, groups, config, console)
    runs = {
        f"{name}, seed {seed}": found.origin.run for name, seed, found in _flat(groups) if found.origin.run is not None
    }
    save_evaluation(out, evaluation, curves_of(runs), model_records(groups))
    list_problems(folder, console)
    show_report(out, console)


Group = tuple[str, list[PJEPA]]


def judge_models(
    folder: FeatureFolder, split: str, groups: list[Group], config: EvalConfig, console: Console
) -> Evaluation:
    """The table for groups of models, each group being one recipe over seeds."""
    judge = open_judge(folder, split, config)
    with counting(console, "judging", None) as tick:
        return evaluate(judge, entrants_of(groups), tick)


def entrants_of(groups: list[Group]) -> list[Entrant]:
    """The models of all groups with name and seed."""
    return [Entrant(name, seed, found, reconstruction=_reconstructs(found)) for name, seed, found in _flat(groups)]


def open_judge(folder: FeatureFolder, split: str, config: EvalConfig) -> Judge:
    """Read every video of the split once, so that bad ones show (or are left out) before any work is done."""
    if not folder.classes:
        raise InputError(f"{folder.root}: no mapping.txt and groundTruth/; judging needs labels")
    unknown = sorted(set(config.background) - set(folder.classes))
    if unknown:
        raise InputError(f"background {unknown[0]!r} is no class of {folder.root / 'mapping.txt'}")
    listed = folder.split(split)
    for name in listed.train + listed.valid + listed.test:
        folder.problems.attempt(name, lambda name=name: _read(folder, name))  # type: ignore[misc]
    readable = folder.split(split)  # bad videos are left out of it now
    chosen = labelled_share(readable, config.label_share, config.label_seed)
    if config.label_share < 1:
        folder.problems.notes.append(
            f"labels of {config.label_share:.0%} of the videos: {len(chosen.train)} to train probes on, "
            f"{len(chosen.valid)} to choose by"
        )
    background = tuple(folder.classes.index(name) for name in config.background)
    unlabelled = tuple(name for name in readable.train if name not in chosen.train)
    share = (config.label_share, unlabelled, config.label_seed)
    return Judge(folder, chosen, config.probe, background, config.protocol, *share)


def _read(folder: FeatureFolder, name: str) -> None:
    """Everything of one video that may be bad."""
    folder.features(name)
    if (folder.frame_labels(name) == IGNORED).all():
        raise InputError(f"{folder.root}: no frame of {name!r} has a label; leave it out of the split")


CONTROLS = ("raw", "moving average", "nine offsets", "best control", "untrained", "true segments")
"""Beginnings of names that stand for something else in a table."""


def check_groups(groups: list[Group], reserved: tuple[str, ...] = CONTROLS) -> None:
    """Refuse names that are used twice or stand for a control, and runs that are no seeds of one recipe."""
    names = [name for name, _ in groups]
    for name, models in groups:
        if names.count(name) > 1 or name.startswith(reserved) or "++" in name or "ORACLE" in name:
            raise InputError(f"--model {name}=...: this name is used twice or stands for a control; choose another")
        if len({found.fingerprint for found in models}) < len(models):
            raise InputError(f"--model {name}: the same weights are given twice; that is no second seed")
        if len({_recipe(found) for found in models}) > 1:
            raise InputError(f"--model {name}: its runs differ in more than the seed; give them different names")


def check_models(groups: list[Group], folder: FeatureFolder, split: str, console: Console) -> None:
    """Refuse what cannot be compared, and note models that have seen test videos or whose past is unknown."""
    check_groups(groups)
    test = set(folder.split(split).test)
    told = sorted(test & folder.labelled_videos)
    if told:
        raise InputError(
            f"{folder.root}: {folder.labels_used}; of the test videos of split {split}, {len(told)} are among them, "
            f"such as {told[0]!r}, so nothing can be judged on it; make features for this split"
        )
    for name, models in groups:
        for found in models:
            for line in check_features(found, folder):
                _warn(line, folder, console)
            seen = sorted(test & set(found.origin.videos))
            if seen:
                line = (
                    f"{name} ({found.origin.source}) was pretrained, without labels, on {len(seen)} of the test videos"
                )
            elif not found.origin.videos and not _trained_on(found, folder, split):
                line = f"nothing is known of the videos that {name} ({found.origin.source}) was trained on"
            else:
                continue
            _warn(line, folder, console)


def _warn(line: str, folder: FeatureFolder, console: Console) -> None:
    """Say it now, and in the result."""
    folder.problems.notes.append(line)
    console.print(f"warning: {line}", style="yellow", soft_wrap=True, markup=False)


def model_records(groups: list[Group]) -> list[dict[str, Any]]:
    """Which models were judged, for the result file: enough to tell them apart and to make them again."""
    return [
        {
            "name": name,
            "seed": seed,
            "source": found.origin.source,
            "weights": found.fingerprint,
            "settings": (found.origin.config or found.config).model_dump(mode="json"),
        }
        for name, seed, found in _flat(groups)
    ]


def _trained_on(found: PJEPA, folder: FeatureFolder, split: str) -> bool:
    """Whether the run's settings say that it saw this split's training videos only."""
    data = found.origin.config.data if found.origin.config else None
    return data is not None and data.split == split and data.root.resolve() == folder.root.resolve()


def _recipe(found: PJEPA) -> str:
    """All settings but the seed and the place of the data."""
    if found.origin.config is None:
        return str(found.config)
    train = found.origin.config.train.model_copy(update={"seed": 0})
    data = found.origin.config.data.model_copy(update={"root": Path()})
    return str(found.origin.config.model_copy(update={"train": train, "data": data}))


def show_report(result: Path, console: Console, markdown: bool = False) -> None:
    """Draw the report and print the table with its main line."""
    record, _, _ = load_result(result)
    page = write_report(result)
    console.print(_table(record))
    if markdown:
        print(markdown_table(record))
    for line in record["gate"]:
        console.print(
            f"{line['mode']}: {line['first']} {line['claim']} ({line['second']}): {line['mean']:+.1f} points, "
            f"95 % interval {line['low']:+.1f} to {line['high']:+.1f}: {verdict(line)}",
            soft_wrap=True,
            markup=False,
        )
    if record["gate"]:
        console.print(RIVALS, style="dim", soft_wrap=True, markup=False)
    console.print(main_line(record), style="bold", soft_wrap=True, markup=False)
    console.print(f"report: {page}", soft_wrap=True, markup=False)


def _table(record: dict[str, Any]) -> Table:
    table = Table(
        title=f"{record['data']['name']}, split {record['data']['split']}, frame-wise linear probe, test videos"
        + (", ORACLE" if record["data"]["oracle"] else "")
        + (", features made with LABELS" if record["data"].get("labels") else "")
    )
    table.add_column("representation")
    table.add_column("mode")
    for metric in METRICS:
        table.add_column(metric, justify="right")
    for row in sorted(record["rows"], key=lambda row: row["mode"], reverse=True):
        spreads = (row["spread"][metric] for metric in METRICS)
        cells = [
            f"{row['mean'][metric]:.1f}" + (f" ± {spread:.1f}" if spread is not None else "")
            for metric, spread in zip(METRICS, spreads, strict=True)
        ]
        table.add_row(row["name"], row["mode"], *cells)
    return table


def parse_group(text: str) -> Group:
    """``NAME=RUN,RUN`` as a name and its loaded models."""
    name, equals, paths = text.partition("=")
    if not equals or not name or not paths:
        raise InputError(f"--model {text!r} is not NAME=RUN[,RUN...], such as pjepa=runs/a,runs/b")
    return name, [load(path) for path in paths.split(",") if path]


def _flat(groups: list[Group]) -> list[tuple[str, int, PJEPA]]:
    """(name, seed, model); the seed of the run where it is known and new, else the place in the list."""
    flat: list[tuple[str, int, PJEPA]] = []
    for name, models in groups:
        seeds = [found.origin.config.train.seed if found.origin.config else index for index, found in enumerate(models)]
        if len(set(seeds)) < len(seeds):
            raise InputError(f"--model {name}: two of its runs have the same seed, {sorted(seeds)}")
        flat += [(name, seed, found) for seed, found in zip(seeds, models, strict=True)]
    return flat


def _reconstructs(found: PJEPA) -> bool:
    """Whether it was trained on each frame's own features alone: the control of masked reconstruction."""
    if found.origin.config is None or found.origin.config.target.kind != "features":
        return False
    config = found.config
    assert config.input_dim is not None
    return config.output_dim == feature_width(found.origin.config.target, config.input_dim)
