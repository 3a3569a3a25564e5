"""The ``next:`` line of a command: the command to run next, which works as printed, or nothing."""

from __future__ import annotations

from pathlib import Path

from keystep.cli.base import print_next
from keystep.config import RunConfig, seed_runs
from keystep.data.annotation import split_names
from keystep.data.inspection import Inspection
from keystep.data.splitting import Folds


def after_inspection(found: Inspection, options: dict[str, str | None]) -> None:
    """Suggest ``split`` if there are labels but no splits, or else ``pretrain`` if the rate is known."""
    if found.problems:
        return
    root = found.folder.root
    if found.labelled and not found.splits:
        print_next("split", root, *_words({**options, "--rate": None}))
    elif found.rate is not None:
        split = found.splits[0].name if found.splits else None
        print_next("pretrain", root, *_words({**options, "--split": split}), "--out", _free(Path("runs/pjepa")))


def after_split(folds: Folds, options: dict[str, str | None]) -> None:
    """Suggest ``pretrain`` on the first fold, if the rate is known."""
    if options["--source-rate"] is not None or (folds.root / "store.json").exists():
        print_next("pretrain", folds.root, *_words({**options, "--split": "1"}), "--out", _free(Path("runs/pjepa")))


def after_training(config: RunConfig, run: Path) -> None:
    """Suggest ``eval`` if there are splits, ``split`` if there are only labels, or else ``encode``."""
    data = config.data
    rates = {"--source-rate": data.source_rate, "--rate": data.rate}
    options = {name: None if value is None else str(value) for name, value in rates.items()}
    splits = split_names(data.root)
    if splits:
        split = data.split or splits[0]
        words = _words({**options, "--split": split, "--groups": data.groups})
        print_next("eval", data.root, *words, "--model", f"pjepa={run}", "--out", _free(Path("results") / run.name))
    elif (data.root / "groundTruth").is_dir() and (data.root / "mapping.txt").exists():
        print_next("split", data.root, *_words({"--source-rate": options["--source-rate"], "--groups": data.groups}))
    else:
        model = next(iter(seed_runs(run)), run)
        print_next("encode", model, data.root, *_words(options), "--out", _free(Path("latents") / run.name))


def _words(options: dict[str, str | None]) -> list[str]:
    return [word for name, value in options.items() if value is not None for word in (name, value)]


def _free(path: Path) -> Path:
    """Return the path, with a number appended to its name if it already exists."""
    tried, number = path, 1
    while tried.exists():
        number += 1
        tried = path.with_name(f"{path.name}-{number}")
    return tried
