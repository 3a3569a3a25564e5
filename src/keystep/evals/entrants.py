"""The models to evaluate: names, seeds, and checks that they can be compared."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keystep.config import seed_runs
from keystep.data.annotation import IGNORED, limit_labels
from keystep.data.folder import FeatureFolder
from keystep.data.groups import shared_groups
from keystep.data.splitting import over_all_folds
from keystep.errors import InputError
from keystep.evals.candidates import ALL_CONTROLS, HISTORIES
from keystep.evals.gate import SMOOTHING
from keystep.evals.judge import Judge
from keystep.evals.model_rows import HELD
from keystep.evals.probe_cache import ProbeCache
from keystep.evals.protocol import Entrant, EvalConfig
from keystep.evals.simple_rows import OFFSETS
from keystep.loading import check_features, load
from keystep.pjepa import PJEPA
from keystep.target import feature_width
from keystep.types import parse_rate

Group = tuple[str, list[PJEPA]]
"""A name and its models, which are the seeds of one recipe."""
Models = Mapping[str, "PJEPA | Path | str | Sequence[PJEPA | Path | str]"]


def load_groups(models: Models) -> list[Group]:
    """Load models given by path. A folder of seeds gives all of its runs.

    Raises:
        InputError: a path without a model.
    """
    groups = []
    for name, given in models.items():
        several = [given] if isinstance(given, (PJEPA, Path, str)) else given
        groups.append((name, [found for one in several for found in _load_all(one)]))
    return groups


def _load_all(given: PJEPA | Path | str) -> list[PJEPA]:
    if isinstance(given, PJEPA):
        return [given]
    return [load(run) for run in seed_runs(Path(given))] or [load(given)]


def training_rate(groups: Sequence[Group]) -> str | None:
    """The rate that the models were trained at; None if unknown.

    Raises:
        InputError: models trained at different rates.
    """
    rates = {found.origin.rate: found.origin.source for _, models in groups for found in models if found.origin.rate}
    if len(rates) > 1:
        (first, one), (second, other) = list(rates.items())[:2]
        raise InputError(f"{one} was trained at {first} Hz and {other} at {second} Hz; evaluate them separately")
    return next(iter(rates), None)


def make_entrants(groups: Sequence[Group]) -> list[Entrant]:
    """The models of all groups with name and seed."""
    return [
        Entrant(name, seed, found, reconstruction=_reconstructs(found)) for name, seed, found in seeded_models(groups)
    ]


def open_judge(
    folder: FeatureFolder,
    split: str,
    config: EvalConfig,
    kept: Path | None = None,
) -> Judge:
    """Read every video of the split, so that invalid ones raise an error (or are skipped) at the start.

    If the folder has groups, the share of labels is stratified by group and the bootstrap resamples groups.

    Raises:
        InputError: no labels, an unknown background class, or an invalid video.
    """
    if not folder.classes:
        raise InputError(f"{folder.root}: no mapping.txt and groundTruth/; evaluation needs labels")
    unknown = sorted(set(config.background) - set(folder.classes))
    if unknown:
        raise InputError(f"background {unknown[0]!r} is not a class in {folder.root / 'mapping.txt'}")
    listed = folder.split(split)
    for name in listed.train + listed.valid + listed.test:
        folder.problems.attempt(name, lambda name=name: _read(folder, name))  # type: ignore[misc]
    readable = folder.split(split)  # without the videos skipped above
    chosen = limit_labels(readable, config.label_share, config.label_seed, folder.groups)
    if config.label_share < 1:
        folder.problems.notes.append(
            f"labels of {config.label_share:.0%} of the videos: "
            f"{len(chosen.train)}{_group_count(folder, chosen.train)} for training probes, "
            f"{len(chosen.valid)}{_group_count(folder, chosen.valid)} for validation"
        )
    background = tuple(folder.classes.index(name) for name in config.background)
    unlabelled = tuple(name for name in readable.train if name not in chosen.train)
    share = (config.label_share, unlabelled, config.label_seed)
    groups = _bootstrap_groups(folder, readable.test)
    return Judge(
        folder, chosen, config.probe, background, config.protocol, *share, ProbeCache(kept), groups, config.tau
    )


def _group_count(folder: FeatureFolder, videos: Sequence[str]) -> str:
    return f" (of {len({folder.groups[name] for name in videos})} groups)" if folder.groups is not None else ""


def _bootstrap_groups(folder: FeatureFolder, test: Sequence[str]) -> dict[str, str] | None:
    """Test video -> group, or None if the bootstrap resamples videos. Adds a note on which it is."""
    if folder.groups is None:
        return None
    groups = {video: folder.groups[video] for video in test}
    if len(set(groups.values())) > 1:
        line = f"intervals resample {len(set(groups.values()))} groups (persons or sites) of {len(test)} test videos"
        folder.problems.notes.append(line)
        return groups
    folder.problems.notes.append(
        f"all {len(test)} test videos belong to one group, {groups[test[0]]!r}: intervals resample videos and do not "
        "generalise to other groups"
    )
    return None


def _read(folder: FeatureFolder, name: str) -> None:
    """Read everything of a video that may be invalid."""
    folder.features(name)
    if (folder.frame_labels(name) == IGNORED).all():
        raise InputError(f"{folder.root}: no frame of {name!r} has a label; remove it from the split")


CONTROLS = ("raw", HELD, SMOOTHING, OFFSETS, ALL_CONTROLS, *HISTORIES, "best control", "untrained", "true segments")
"""Prefixes of reserved row names."""


def reserved(name: str, beginnings: tuple[str, ...] = CONTROLS) -> bool:
    """Whether a model name would collide with the name of another row."""
    words = any(re.match(rf"{re.escape(beginning)}(?![\w-])", name) for beginning in beginnings)
    return words or "++" in name or "ORACLE" in name


def check_groups(groups: Sequence[Group], beginnings: tuple[str, ...] = CONTROLS) -> None:
    """Reject model names that are repeated or reserved, and runs that are not seeds of one recipe.

    Raises:
        InputError: with the name.
    """
    names = [name for name, _ in groups]
    for name, models in groups:
        if names.count(name) > 1 or reserved(name, beginnings):
            raise InputError(f"--model {name}=...: this name is used twice or stands for a control; choose another")
        if len({found.fingerprint for found in models}) < len(models):
            raise InputError(f"--model {name}: the same weights are given twice; seeds must be different runs")
        if len({_recipe(found) for found in models}) > 1:
            raise InputError(f"--model {name}: its runs differ in more than the seed; give them different names")


def check_models(groups: Sequence[Group], folder: FeatureFolder, split: str) -> list[str]:
    """Reject models that cannot be compared on these data.

    Args:
        groups: names and models.
        folder: the data.
        split: name of the split.

    Returns:
        Warnings about persons in several parts of the split, and about models whose training videos include test videos
        or are unknown.

    Raises:
        InputError: invalid names, runs that are not seeds of one recipe, incompatible features or rates, data made
            with the labels of test videos, or ``all`` for the split.
    """
    check_groups(groups)
    if split == "all" and "all" not in folder.splits:
        raise InputError(
            f"{folder.root}: a model is judged on the fold that it was trained for, since it has seen the test videos "
            f"of the others; give --split K, or pool all folds: {over_all_folds(folder.root)}"
        )
    listed = folder.split(split)
    warnings = [] if folder.groups is None else shared_groups(listed, folder.groups)
    test = set(listed.test)
    leaked = sorted(test & folder.labelled_videos)
    if leaked:
        raise InputError(
            f"{folder.root}: {folder.labels_used}; these include {len(leaked)} test videos of split {split}, such as "
            f"{leaked[0]!r}, so they cannot be used for evaluation; create features for this split"
        )
    for name, models in groups:
        for found in models:
            check_features(found, folder)
            rate = found.origin.rate
            if rate is not None and parse_rate(rate) != folder.timeline.rate:
                raise InputError(
                    f"{name} ({found.origin.source}) was trained at {rate} Hz, but the data are read at "
                    f"{folder.timeline.rate} Hz; omit --rate or set --rate {rate}"
                )
            if not found.origin.videos and not _trained_on_split(found, folder, split):
                warnings.append(f"nothing is known of the videos that {name} ({found.origin.source}) was trained on")
    return [*leaks(groups, listed.test), *warnings]


def leaks(groups: Sequence[Group], test: Sequence[str]) -> list[str]:
    """One line for each model that was pretrained on test videos."""
    seen = [(name, found, set(test) & set(found.origin.videos)) for name, models in groups for found in models]
    return [
        f"{name} ({found.origin.source}) was pretrained, without labels, on {len(videos)} of the test videos"
        for name, found, videos in seen
        if videos
    ]


def model_records(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Records of the models for the result file, sufficient to identify and retrain them."""
    return [
        {
            "name": name,
            "seed": seed,
            "source": found.origin.source,
            "weights": found.fingerprint,
            "settings": (found.origin.config or found.config).model_dump(mode="json"),
        }
        for name, seed, found in seeded_models(groups)
    ]


def _trained_on_split(found: PJEPA, folder: FeatureFolder, split: str) -> bool:
    """Whether the run's config says that it was trained on the training videos of this split."""
    data = found.origin.config.data if found.origin.config else None
    return data is not None and data.split == split and data.root.resolve() == folder.root.resolve()


def _recipe(found: PJEPA) -> str:
    """The config without the seed and the data path."""
    if found.origin.config is None:
        return str(found.config)
    train = found.origin.config.train.model_copy(update={"seed": 0})
    data = found.origin.config.data.model_copy(update={"root": Path()})
    return str(found.origin.config.model_copy(update={"train": train, "data": data}))


def seeded_models(groups: Sequence[Group]) -> list[tuple[str, int, PJEPA]]:
    """(name, seed, model) for all models. The seed is that of the run, or the index in the list if unknown.

    Raises:
        InputError: two runs of a model with the same seed.
    """
    flat: list[tuple[str, int, PJEPA]] = []
    for name, models in groups:
        seeds = [found.origin.config.train.seed if found.origin.config else index for index, found in enumerate(models)]
        if len(set(seeds)) < len(seeds):
            raise InputError(f"--model {name}: two runs have the same seed ({sorted(seeds)})")
        flat += [(name, seed, found) for seed, found in zip(seeds, models, strict=True)]
    return flat


def _reconstructs(found: PJEPA) -> bool:
    """Whether the model was trained to reconstruct the features of hidden frames: the masked-reconstruction control."""
    if found.origin.config is None or found.origin.config.target.kind != "features":
        return False
    config = found.config
    assert config.input_dim is not None
    return config.output_dim == feature_width(found.origin.config.target, config.input_dim)
