"""``keystep segment``: boundaries without labels, for every video of a folder."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from keystep.boundaries import Segmenter, SegmenterConfig
from keystep.boundaries.agreement import Agreement, agreement, equally_spaced
from keystep.boundaries.fitting import fit, to_record
from keystep.cli.data import list_problems, open_data, show_warnings
from keystep.cli.progress import counting
from keystep.config.base import assignments, build
from keystep.data.discovered import check_free, write_boundaries
from keystep.data.folder import FeatureFolder
from keystep.errors import InputError
from keystep.loading import check_features, load
from keystep.pjepa import PJEPA


def segment_folder(
    data: Path,
    out: Path,
    model_path: str | None,
    source: str | None,
    source_rate: str | None,
    rate: str | None,
    split: str | None,
    settings: list[str],
    tolerance: float,
    on_error: str,
    console: Console,
) -> None:
    """Fit on training videos, segment all, write everything or nothing, and say how it compares with the labels."""
    given = assignments(settings)
    if "source" in given:
        raise InputError(f"--set source={given['source']}: give --source {given['source']} instead")
    if not isfinite(tolerance):
        raise InputError(f"--tolerance {tolerance}: give a number of seconds")
    chosen = {"source": source or ("features" if model_path is None else "latents")}
    config = build(SegmenterConfig, given, chosen)
    if (config.source == "features") != (model_path is None):
        needs = "needs --model RUN" if model_path is None else "uses no model; leave out --model"
        raise InputError(f"--source {config.source} {needs}")
    folder = open_data(data, source_rate, rate, on_error, labels_needed=False)
    check_free(out, list(folder.videos))
    if split is not None:
        folder.split(split)  # a bad one shows now, not when every video was read
    found = None if model_path is None else load(model_path)
    if found is not None:
        show_warnings(check_features(found, folder), folder, console)
        if config.source == "surprise":
            _check_answers(found)
    readable = _readable(folder, console)
    fitted_on = readable if split is None else folder.split(split).train
    segmenter = _fit(folder, fitted_on, config, found, console)
    found_lengths = {}
    with counting(console, "segmenting", len(readable)) as tick:
        for name in readable:
            found_lengths[name] = segmenter.segment(folder.features(name))
            tick(name)
    record = to_record(segmenter) | _origin(folder, fitted_on, found)
    write_boundaries(out, found_lengths, record, list(folder.videos))
    list_problems(folder, console)
    for line in _report(folder, split, found_lengths, segmenter, tolerance):
        console.print(line, soft_wrap=True, markup=False)
    ahead = f"look-ahead {record['look_ahead_seconds']:g} s"
    console.print(f"{out}: {_summary(found_lengths, float(segmenter.rate))}, {ahead}", soft_wrap=True, markup=False)


def _check_answers(found: PJEPA) -> None:
    """Refuse surprise where what the model says of visible frames is known to have been learned from nothing."""
    if found.origin.config is None or found.origin.config.objective.visible_weight > 0:
        return
    if found.config.visible_predictions == "encoder":
        raise InputError(
            f"{found.origin.source}: trained with objective.visible_weight=0, so it never learned what to say of a "
            "frame it sees, and surprise means nothing; use --source latents, or pretrain with a weight above 0"
        )


def _readable(folder: FeatureFolder, console: Console) -> tuple[str, ...]:
    """Every video is read once, so that bad ones show, or are left out, before any work is done."""
    with counting(console, "reading", len(folder.videos)) as tick:
        for name in folder.videos:
            folder.problems.attempt(name, lambda name=name: folder.features(name))  # type: ignore[misc]
            tick(name)
    readable = tuple(name for name in folder.videos if name not in folder.problems.skipped)
    if not readable:
        raise InputError(f"{folder.root}: none of its {len(folder.videos)} videos can be read")
    return readable


def _fit(
    folder: FeatureFolder, videos: Sequence[str], config: SegmenterConfig, found: PJEPA | None, console: Console
) -> Segmenter:
    model = None if found is None else found
    target = found.origin.config.target if found is not None and found.origin.config is not None else None
    clusters = target.clusters if target is not None and target.kind == "clusters" else None
    with counting(console, f"fitting on {config.source}", 2 * len(videos)) as tick:
        return fit(folder, videos, config, model, clusters=clusters, progress=tick)


def _origin(folder: FeatureFolder, videos: Sequence[str], found: PJEPA | None) -> dict[str, Any]:
    """What the segmenter, and the model that it reads, were fitted on."""
    return {
        "data": {"name": folder.root.resolve().name, "fingerprint": folder.fingerprint()},
        "fitted_on": list(videos),
        "model": None
        if found is None
        else {"source": found.origin.source, "weights": found.fingerprint, "videos": list(found.origin.videos)},
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _summary(found: dict[str, list[int]], rate: float) -> str:
    lengths = np.concatenate([np.array(lengths) for lengths in found.values()]) / rate
    return (
        f"{len(found)} videos, {60 * len(lengths) / lengths.sum():.3g} segments a minute "
        f"(median {np.median(lengths):.3g} s, longest {lengths.max():.3g} s)"
    )


def _report(
    folder: FeatureFolder,
    split: str | None,
    found: dict[str, list[int]],
    segmenter: Segmenter,
    tolerance: float,
) -> list[str]:
    """How the boundaries compare with the annotated ones, where there are any; one line a part of the split."""
    parts: dict[str, Sequence[str]] = {"all videos": list(found)}
    if split is not None:
        chosen = folder.split(split)
        parts = {"validation videos": chosen.valid, "test videos": chosen.test}
    slots = round(tolerance * float(segmenter.rate))
    lines = []
    for part, names in parts.items():
        labelled = [name for name in names if folder.classes and folder.video(name).labels is not None]
        if not labelled:
            continue
        true = {name: folder.segment_lengths(name) for name in labelled}
        ours = sum((agreement(found[name], true[name], slots) for name in labelled), Agreement())
        control = sum(
            (agreement(equally_spaced(sum(true[name]), len(found[name])), true[name], slots) for name in labelled),
            Agreement(),
        )
        lines.append(
            f"boundaries within {slots / float(segmenter.rate):g} s of true ones, {len(labelled)} {part}: "
            f"F1 {ours.f1:.1f} (precision {ours.precision:.1f}, recall {ours.recall:.1f}); as many, equally spaced: "
            f"F1 {control.f1:.1f}"
        )
    return lines
