"""What the study consists of: variants, folds, seeds, what each is judged for, and what of it is done."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from options import DEFAULT
from records import CONTROLS, MAIN, UNTRAINED, Name, label_part, read_piece, settings_hash

from keystep.config import RunConfig
from keystep.config.base import assignments, build
from keystep.data.folder import FeatureFolder, open_dataset
from keystep.errors import InputError
from keystep.evals.protocol import PROBE, SEEDS_FOR_A_CLAIM
from keystep.heads import PRESETS
from keystep.types import parse_rate

ROBUSTNESS = "robustness"
HEADS = "heads"


def shown_name(variant: str) -> str:
    """What a variant's rows are called in tables."""
    return "keystep (default)" if variant == DEFAULT else variant


class Study:
    """The pieces that were asked for, and where they lie."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.variants: dict[str, dict[str, Any]] = yaml.safe_load(options.variants.read_text())
        self.common = assignments(options.settings)
        self.name: str = options.name or options.data.resolve().name
        self.results: Path = options.out / self.name / "screen" if options.screen else options.results / self.name
        self.chosen: list[str] = options.confirm or (list(self.variants) if options.screen else [DEFAULT])
        self.folds: list[str] = options.folds or self._all_folds()[: 1 if options.screen else None]
        self.command = _command(options)

    def _all_folds(self) -> list[str]:
        folds = list(self.folder().splits)
        if not folds:
            command = shlex.join(["keystep", "split", str(self.options.data)])
            raise InputError(f"{self.options.data}: no splits/*.bundle; make folds of the videos: {command}")
        return folds

    def question(self) -> str:
        """What is asked of how many trainings, and whether that can be a claim."""
        names, seeds = ", ".join(map(shown_name, self.chosen)), len(self.options.seeds)
        trained = sum(name.row != CONTROLS for name in self.names())
        videos = "validation videos, to choose by" if self.options.screen else "test videos"
        few = f"; nothing can be claimed: {SEEDS_FOR_A_CLAIM} seeds are needed" * (seeds < SEEDS_FOR_A_CLAIM)
        return (
            f"Does {names} beat raw features and the strongest control on the {videos}? "
            f"Folds: {len(self.folds)}, seeds: {seeds}, trainings: {trained}{few}"
        )

    def check(self) -> None:
        """Refuse what would fail after hours.

        Raises:
            InputError: an unknown variant, head or split, a share that is none, settings that do not fit, or a finished
                piece that was made with other settings.
        """
        options = self.options
        named = [*self.chosen, *options.untrained]
        unknown = [name for name in named if name not in self.variants]
        if unknown:
            raise InputError(f"{options.variants}: no variant {unknown[0]!r}; there are {', '.join(self.variants)}")
        wrong = [share for share in options.shares if not 0 < share < 1]
        if wrong:
            raise InputError(f"--shares {wrong[0]:g}: give shares between 0 and 1, such as 0.15")
        temporal = [head for head in PRESETS if head != PROBE]  # the probe has its rows anyway
        heads = [head for head in options.heads if head not in temporal]
        if heads:
            raise InputError(f"--heads {heads[0]}: no temporal head; there are {', '.join(temporal)}")
        folder = self.folder()
        for fold in self.folds:
            folder.split(fold)
        for name in self.names():
            self._check_made_alike(name)

    def folder(self) -> FeatureFolder:
        """The data at the rate that they are worked at."""
        options = self.options
        source = None if options.source_rate is None else parse_rate(options.source_rate)
        rate = None if options.rate is None else parse_rate(options.rate)
        return open_dataset(options.data, source_rate=source, rate=rate)

    def config(self, name: Name) -> RunConfig:
        """All settings of a trained piece."""
        options = self.options
        data = {"root": options.data, "source_rate": options.source_rate, "rate": options.rate, "split": name.fold}
        variant, seed = self.variants[name.row], {"train": {"seed": name.seed}}
        return build(RunConfig, {"data": data}, self.common, variant, seed)

    def settings(self, name: Name) -> dict[str, Any]:
        """The same without the place of the data, as pieces record them."""
        settings = self.config(name).model_dump(mode="json")
        settings["data"]["root"] = "DATA"
        return settings

    def run_folder(self, name: Name) -> Path:
        """Where a piece is trained."""
        return Path(self.options.out) / self.name / str(name)

    def kept_folder(self, fold: str) -> Path:
        """Where the finished probes of a fold are kept."""
        return Path(self.options.out) / self.name / f"{'screened' if self.options.screen else 'judged'}-fold{fold}"

    def names(self) -> list[Name]:
        """Every row, fold and seed: controls first, for all that follow find their probes; then whole folds."""
        controls = [Name(CONTROLS, fold) for fold in self.folds]
        seeds = self.options.seeds
        return controls + [Name(v, fold, seed) for seed in seeds for fold in self.folds for v in self._trained(seed)]

    def _trained(self, seed: int) -> Iterator[str]:
        """The variants that are trained with a seed; some only with the first."""
        first = seed == self.options.seeds[0]
        return (name for name in self.chosen if first or name not in self.options.once)

    def parts(self, name: Name) -> list[str]:
        """What a row is judged for."""
        options = self.options
        parts = [MAIN, *(label_part(share, draw) for share in options.shares for draw in range(options.draws))]
        if options.robustness:
            parts.append(ROBUSTNESS)
        return parts + ([HEADS] if options.heads and name.row not in options.no_heads else [])

    def labels_of(self, part: str) -> tuple[float, int]:
        """(share of the videos with labels, number of the draw) of a part that is judged by probes."""
        options = self.options
        shares = {label_part(share, draw): (share, draw) for share in options.shares for draw in range(options.draws)}
        return shares.get(part, (1.0, 0))

    def missing(self, name: Name) -> list[str]:
        """The parts of a row that have no file yet, those of its untrained twin included."""
        return [part for part in self.parts(name) if any(not path.exists() for path in self.files(name, part))]

    def files(self, name: Name, part: str) -> list[Path]:
        """What a part leaves: its own piece, and that of fresh weights where this row's seed stands for them."""
        files = [self.results / Name(name.row, name.fold, name.seed, part).file]
        if self.twin(name) and part not in (ROBUSTNESS, HEADS):
            files.append(self.results / self.twin_name(name, part).file)
        return files

    def twin(self, name: Name) -> bool:
        """Whether fresh weights of this row's architecture are judged beside it."""
        return name.row in self.options.untrained and name.seed == self.options.seeds[0]

    def twin_name(self, name: Name, part: str) -> Name:
        """The piece of fresh weights of a row's architecture."""
        return Name(f"{name.row}-{UNTRAINED}", name.fold, name.seed, part)

    def record(self, name: Name) -> dict[str, Any]:
        """How a piece is made, for its file."""
        if name.row == CONTROLS:
            return {"settings": None, "settings_hash": None}
        settings = self.settings(name)
        return {"settings": settings, "settings_hash": settings_hash(settings)}

    def _check_made_alike(self, name: Name) -> None:
        """Refuse finished pieces of other settings: a table of both would be of neither."""
        path = self.results / name.file
        if path.exists() and not self.options.keep_older:
            asked, found = self.record(name)["settings_hash"], read_piece(path)["settings_hash"]
            if asked != found:
                raise InputError(
                    f"{path}: made with other settings ({found}) than now ({asked}); remove it to have it made again, "
                    "or count it in with --keep-older"
                )


def _command(options: argparse.Namespace) -> str:
    """The command line without the places of this machine."""
    words = []
    places = {str(options.data): "DATA", str(options.variants): options.variants.name}
    hidden = iter([*sys.argv[1:]])
    for word in hidden:
        if word in ("--out", "--results", "--jobs", "--piece"):
            next(hidden, None)
        else:
            words.append(places.get(word, word))
    return shlex.join(["python", "benchmarks/quality", *words])
