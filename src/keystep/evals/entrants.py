"""The models that are judged: their names and seeds, and whether they can be compared at all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keystep.config import seed_runs
from keystep.data.annotation import IGNORED, labelled_share
from keystep.data.folder import FeatureFolder
from keystep.data.groups import shared_groups
from keystep.errors import InputError
from keystep.evals.candidates import HISTORIES, TOGETHER
from keystep.evals.gate import SMOOTHING
from keystep.evals.judge import Judge
from keystep.evals.kept import KeptProbes
from keystep.evals.model_rows import HELD
from keystep.evals.protocol import Entrant, EvalConfig
from keystep.evals.simple_rows import OFFSETS
from keystep.loading import check_features, load
from keystep.pjepa import PJEPA
from keystep.target import feature_width
from keystep.types import parse_rate

Group = tuple[str, list[PJEPA]]
"""A name, and its models: one recipe over seeds."""
Models = Mapping[str, "PJEPA | Path | str | Sequence[PJEPA | Path | str]"]


def loaded_groups(models: Models) -> list[Group]:
    """Models by name, loaded where a path is given; a folder of seeds stands for all of them."""
    groups = []
    for name, given in models.items():
        several = [given] if isinstance(given, (PJEPA, Path, str)) else given
        groups.append((name, [found for one in several for found in _loaded(one)]))
    return groups


def _loaded(given: PJEPA | Path | str) -> list[PJEPA]:
    if isinstance(given, PJEPA):
        return [given]
    return [load(run) for run in seed_runs(Path(given))] or [load(given)]


def own_rate(groups: Sequence[Group]) -> str | None:
    """The rate that the models were trained at; None where none of them says.

    Raises:
        InputError: two of them were trained at different rates, so that no data fit both.
    """
    rates = {found.origin.rate: found.origin.source for _, models in groups for found in models if found.origin.rate}
    if len(rates) > 1:
        (first, one), (second, other) = list(rates.items())[:2]
        raise InputError(f"{one} was trained at {first} Hz and {other} at {second} Hz; judge them in two evaluations")
    return next(iter(rates), None)


def entrants_of(groups: Sequence[Group]) -> list[Entrant]:
    """The models of all groups with name and seed."""
    return [Entrant(name, seed, found, reconstruction=_reconstructs(found)) for name, seed, found in flat(groups)]


def open_judge(
    folder: FeatureFolder,
    split: str,
    config: EvalConfig,
    kept: Path | None = None,
) -> Judge:
    """Read every video of the split once, so that bad ones show (or are left out) before any work is done.

    Where the folder knows groups, labels are spread over them and the bootstrap draws them.
    """
    if not folder.classes:
        raise InputError(f"{folder.root}: no mapping.txt and groundTruth/; judging needs labels")
    unknown = sorted(set(config.background) - set(folder.classes))
    if unknown:
        raise InputError(f"background {unknown[0]!r} is no class of {folder.root / 'mapping.txt'}")
    listed = folder.split(split)
    for name in listed.train + listed.valid + listed.test:
        folder.problems.attempt(name, lambda name=name: _read(folder, name))  # type: ignore[misc]
    readable = folder.split(split)  # bad videos are left out of it now
    chosen = labelled_share(readable, config.label_share, config.label_seed, folder.groups)
    if config.label_share < 1:
        folder.problems.notes.append(
            f"labels of {config.label_share:.0%} of the videos: {len(chosen.train)}{_persons(folder, chosen.train)} to "
            f"train probes on, {len(chosen.valid)}{_persons(folder, chosen.valid)} to choose by"
        )
    background = tuple(folder.classes.index(name) for name in config.background)
    unlabelled = tuple(name for name in readable.train if name not in chosen.train)
    share = (config.label_share, unlabelled, config.label_seed)
    groups = _drawn(folder, readable.test)
    return Judge(
        folder, chosen, config.probe, background, config.protocol, *share, KeptProbes(kept), groups, config.tau
    )


def _persons(folder: FeatureFolder, videos: Sequence[str]) -> str:
    return f" (of {len({folder.groups[name] for name in videos})} groups)" if folder.groups is not None else ""


def _drawn(folder: FeatureFolder, test: Sequence[str]) -> dict[str, str] | None:
    """Test video -> the group that the bootstrap draws as one; None: it draws videos. A note says which, and why."""
    if folder.groups is None:
        return None
    groups = {video: folder.groups[video] for video in test}
    if len(set(groups.values())) > 1:
        line = f"intervals draw {len(set(groups.values()))} groups (persons or sites) of {len(test)} test videos"
        folder.problems.notes.append(line)
        return groups
    folder.problems.notes.append(
        f"all {len(test)} test videos are of one group, {groups[test[0]]!r}: intervals draw videos, and say nothing of "
        "other persons"
    )
    return None


def _read(folder: FeatureFolder, name: str) -> None:
    """Everything of one video that may be bad."""
    folder.features(name)
    if (folder.frame_labels(name) == IGNORED).all():
        raise InputError(f"{folder.root}: no frame of {name!r} has a label; leave it out of the split")


CONTROLS = ("raw", HELD, SMOOTHING, OFFSETS, TOGETHER, *HISTORIES, "best control", "untrained", "true segments")
"""Beginnings of names that stand for something else in a table."""


def reserved(name: str, beginnings: tuple[str, ...] = CONTROLS) -> bool:
    """Whether a name stands for something else in a table: a control's, or one that begins with its words."""
    words = any(re.match(rf"{re.escape(beginning)}(?![\w-])", name) for beginning in beginnings)
    return words or "++" in name or "ORACLE" in name


def check_groups(groups: Sequence[Group], beginnings: tuple[str, ...] = CONTROLS) -> None:
    """Refuse names that are used twice or stand for a control, and runs that are no seeds of one recipe."""
    names = [name for name, _ in groups]
    for name, models in groups:
        if names.count(name) > 1 or reserved(name, beginnings):
            raise InputError(f"--model {name}=...: this name is used twice or stands for a control; choose another")
        if len({found.fingerprint for found in models}) < len(models):
            raise InputError(f"--model {name}: the same weights are given twice; that is no second seed")
        if len({_recipe(found) for found in models}) > 1:
            raise InputError(f"--model {name}: its runs differ in more than the seed; give them different names")


def check_models(groups: Sequence[Group], folder: FeatureFolder, split: str) -> list[str]:
    """Refuse what cannot be compared.

    Returns:
        Warnings: persons on both sides of the split, models that have seen test videos, or whose past is unknown.

    Raises:
        InputError: names that mean something else, runs that are no seeds of one recipe, features that a model cannot
            read or that come at another rate, or data made with the labels of test videos.
    """
    check_groups(groups)
    listed = folder.split(split)
    warnings = [] if folder.groups is None else shared_groups(listed, folder.groups)
    test = set(listed.test)
    told = sorted(test & folder.labelled_videos)
    if told:
        raise InputError(
            f"{folder.root}: {folder.labels_used}; of the test videos of split {split}, {len(told)} are among them, "
            f"such as {told[0]!r}, so nothing can be judged on it; make features for this split"
        )
    for name, models in groups:
        for found in models:
            check_features(found, folder)
            rate = found.origin.rate
            if rate is not None and parse_rate(rate) != folder.timeline.rate:
                raise InputError(
                    f"{name} ({found.origin.source}) was trained at {rate} Hz, and the data are read at "
                    f"{folder.timeline.rate} Hz; leave --rate out or give --rate {rate}"
                )
            if not found.origin.videos and not _trained_on(found, folder, split):
                warnings.append(f"nothing is known of the videos that {name} ({found.origin.source}) was trained on")
    return [*leaks(groups, listed.test), *warnings]


def leaks(groups: Sequence[Group], test: Sequence[str]) -> list[str]:
    """A line for each model that was pretrained on some of the test videos."""
    seen = [(name, found, set(test) & set(found.origin.videos)) for name, models in groups for found in models]
    return [
        f"{name} ({found.origin.source}) was pretrained, without labels, on {len(videos)} of the test videos"
        for name, found, videos in seen
        if videos
    ]


def model_records(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Which models were judged, for the result file: enough to tell them apart and to make them again."""
    return [
        {
            "name": name,
            "seed": seed,
            "source": found.origin.source,
            "weights": found.fingerprint,
            "settings": (found.origin.config or found.config).model_dump(mode="json"),
        }
        for name, seed, found in flat(groups)
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


def flat(groups: Sequence[Group]) -> list[tuple[str, int, PJEPA]]:
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
