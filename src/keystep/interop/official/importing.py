"""Import of the authors' archives and manifests into a feature folder, video by video, so that it can be resumed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import numpy as np

from keystep.data.annotation import PARTS, UNLABELLED
from keystep.data.problems import Problems
from keystep.data.slots import note_lost_segments
from keystep.data.store import NAMES, FeatureStore
from keystep.data.timeline import Timeline
from keystep.errors import InputError, quoted
from keystep.files import sample_bytes, write_lines
from keystep.interop.official.archives import Archive, open_archive
from keystep.interop.official.manifests import Manifest, read_manifests
from keystep.interop.official.planning import ImportPlan, Item, Sequences, Slicing, plan_archive, plan_manifest
from keystep.interop.official.slicing import Boundaries, slot_seconds
from keystep.locking import owning
from keystep.progress import SILENT, Progress

BACKGROUND_LIMIT = 1024
"""Number of slots at the start of a background segment that the authors' EgoProceL sequences keep."""
REGULAR_SECONDS = 1e-3
"""Times that deviate more than this from a regular timeline are stored explicitly."""
ORACLE = "the sequences are labelled segments end to end, as the authors train: true boundaries shaped them"


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What to import, and how."""

    archive: Path
    out: Path
    manifests: tuple[Path, ...] = ()
    sequence: Sequences = "whole"
    boundaries: Boundaries = "exact"
    every: int = 1
    background_limit: int | None = None
    """None: as in the authors' code."""
    source_rate: Fraction | None = None
    """Slots per second in the archive, if it has no or a wrong rate."""
    half: bool = False
    """Store float16 instead of float32."""
    verify: bool = False
    """Compare the archive with its checksums first."""


@dataclass(frozen=True)
class Imported:
    """A feature folder written by `import_archive`."""

    root: Path
    archive: Archive
    plan: ImportPlan
    timeline: Timeline
    done: dict[str, Item]
    """Name -> sequence that was imported."""
    splits: dict[str, dict[str, int]]
    """Split -> part -> number of videos."""
    notes: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """Name of each skipped video -> reason."""
    oracle: bool = False
    """Whether the sequences depend on true boundaries."""

    @property
    def hours(self) -> float:
        """Total duration in hours at the timeline's rate."""
        return float(sum(item.length for item in self.done.values()) / self.timeline.rate / 3600)


def import_archive(options: ImportOptions, problems: Problems | None = None, progress: Progress = SILENT) -> Imported:
    """Import the videos that are not in the folder yet.

    Archive, manifests and options are validated before anything is written.

    Args:
        options: what to import, and how.
        problems: what to do about invalid videos.
        progress: receives one update for each video.

    Raises:
        InputError: an invalid option, archive or manifest; an invalid video, unless ``problems`` skips it; or a folder
            written with other options.
    """
    with owning(options.out):
        return write_archive(options, problems or Problems(), progress)


def write_archive(options: ImportOptions, problems: Problems, progress: Progress = SILENT) -> Imported:
    """What `import_archive` does, for callers that have the folder to themselves."""
    _check_values(options)
    archive = open_archive(options.archive, verify=options.verify)
    manifest = read_manifests(options.manifests) if options.manifests else None
    limit = _background_limit(options, archive, manifest)
    slicing = Slicing(options.sequence, options.boundaries, options.every, limit)
    plan = _plan(archive, manifest, slicing, problems)
    timeline = Timeline(rate=(options.source_rate or archive.rate or _estimated_rate(archive)) / options.every)
    store = FeatureStore(
        options.out, timeline, "native", _provenance(options, archive, manifest, plan, slicing)
    ).create()
    if plan.classes:
        write_lines(options.out / "mapping.txt", (f"{label} {name}" for label, name in enumerate(plan.classes)))
    todo = [item for item in plan.items if not _path(options.out, item).exists()]
    with progress.task("importing", total=len(todo), unit="videos") as task:
        for item in todo:
            notes = problems.attempt(item.name, lambda item=item: _write(store, archive, plan, item, options))  # type: ignore[misc]
            plan.notes.extend(notes or [])
            task.advance(note=item.name)
    done = {item.name: item for item in plan.items if _path(options.out, item).exists()}
    if not done:
        raise _no_usable_video(archive, problems)
    oracle = options.sequence == "segments"
    imported = Imported(options.out, archive, plan, timeline, done, {}, plan.notes, problems.skipped, oracle)
    _write_splits(options.out, imported)
    store.finish()
    return imported


def _plan(archive: Archive, manifest: Manifest | None, slicing: Slicing, problems: Problems) -> ImportPlan:
    lacking = archive.missing()
    if lacking and problems.on_error == "raise":
        raise InputError(f"{lacking[0]}: no such shard ({len(lacking)} are missing); download all, or skip bad videos")
    if manifest is None:
        plan = plan_archive(archive, slicing.every)
    else:
        plan = plan_manifest(archive, manifest, slicing, problems)
    if not plan.items:
        raise _no_usable_video(archive, problems)
    return plan


def _no_usable_video(archive: Archive, problems: Problems) -> InputError:
    first = next(iter(problems.skipped.values()), "it has no slots")
    return InputError(f"{archive.path}: none of the {len(archive.names)} videos can be used; the first: {first}")


def _check_values(options: ImportOptions) -> None:
    for name, value, known in (
        ("--sequence", options.sequence, get_args(Sequences)),
        ("--boundaries", options.boundaries, get_args(Boundaries)),
    ):
        if value not in known:
            raise InputError(f"unknown {name} {value!r}; expected one of {', '.join(known)}")
    if options.every < 1:
        raise InputError(f"--every must be at least 1, not {options.every}")
    if options.sequence == "segments" and not options.manifests:
        raise InputError("--sequence segments needs --manifest")
    if options.boundaries != "exact" and not options.manifests:
        raise InputError(f"--boundaries {options.boundaries} needs --manifest")
    if options.background_limit is not None and (options.background_limit < 0 or options.sequence == "whole"):
        raise InputError(
            f"--background-limit {options.background_limit}: must be at least 0, and needs --sequence segments"
        )


def _background_limit(options: ImportOptions, archive: Archive, manifest: Manifest | None) -> int:
    if manifest is not None and archive.kind != "packed":
        own = "has its own labels" if archive.kind == "surgical" else "has no labels"
        raise InputError(f"{archive.path}: a {archive.kind} archive {own}; remove --manifest")
    if options.background_limit is None:
        cut = options.sequence == "segments" and manifest is not None and manifest.kind == "egoprocel"
        return BACKGROUND_LIMIT if cut else 0
    if manifest is not None and manifest.kind == "assembly101":
        raise InputError(f"--background-limit {options.background_limit}: Assembly101 has no background class")
    return options.background_limit


def _estimated_rate(archive: Archive) -> Fraction:
    """Slots per second: median over videos of the duration of four slots, as a simple fraction."""
    rates, bad = [], []
    for video in archive.order():
        try:
            seconds = slot_seconds(archive.video(video).times)
        except InputError as error:  # reported when the video is imported, unless all videos fail
            bad.append(error)
            continue
        if seconds > 0:
            rates.append(1 / seconds)
    if bad and not rates:
        raise bad[0]
    rate = Fraction(float(np.median(rates))).limit_denominator(12) if rates else Fraction(0)
    if rate <= 0:
        raise InputError(
            f"{archive.path}: cannot estimate the rate from the times; set it, for example --source-rate 4"
        )
    return rate


def _provenance(
    options: ImportOptions, archive: Archive, manifest: Manifest | None, plan: ImportPlan, slicing: Slicing
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "importer": "keystep import official",
        "archive": {
            "kind": archive.kind,
            "sha256_of_samples": hashlib.sha256(sample_bytes(archive.path)).hexdigest(),
            "metadata": archive.metadata,
        },
        "every": options.every,
        "type": "float16" if options.half else "float32",
        "counts": plan.counts,
        NAMES: [archive.path.name, *(path.name for path in options.manifests)],
    }
    if manifest is not None:
        record |= {
            "manifests": list(manifest.hashes.values()),
            "sequence": slicing.sequence,
            "boundaries": slicing.boundaries,
            "background_limit": slicing.background_limit,
        }
    if options.sequence == "segments":
        record["oracle"] = ORACLE
    return record


def _path(out: Path, item: Item) -> Path:
    return out / "features" / f"{item.name}.npy"


def _write(store: FeatureStore, archive: Archive, plan: ImportPlan, item: Item, options: ImportOptions) -> list[str]:
    """Read one sequence from the archive and write it with what belongs to it; notes on it."""
    video = archive.video(item.video)
    notes: list[str] = []
    features, times, labels = video.features[:: options.every], video.times[:: options.every], item.labels
    if labels is None and plan.classes and video.labels is not None:
        labels = video.labels[:: options.every]
        notes = note_lost_segments(item.name, video.labels, np.arange(0, len(video.labels), options.every), labels)
    if item.slots is not None:
        features, times = features[item.slots], times[item.slots]
    with np.errstate(over="ignore"):  # reported below
        features = features.astype(np.float16 if options.half else np.float32)
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        why = "NaN or infinite values" + (" (or above 65,504, too large for --half)" if options.half else "")
        raise InputError(
            f"{archive.path}: {quoted(video.name)} has {why} in slot {int(finite.argmin())} of {item.name!r}"
        )
    regular = np.arange(len(times)) / float(store.timeline.rate)
    explicit = item.slots is not None or float(np.abs(times - regular).max()) > REGULAR_SECONDS
    store.add(
        item.name,
        features,
        {"source": video.name},
        labels=None if labels is None else [plan.classes[label] if label >= 0 else UNLABELLED for label in labels],
        segments=item.lengths,
        times=times if explicit else None,
    )
    return notes


def _write_splits(out: Path, imported: Imported) -> None:
    """Write bundles of the imported videos. Splits without training or test videos are noted instead."""
    for split, parts in imported.plan.splits.items():
        usable = {part: [name for name in parts[part] if name in imported.done] for part in PARTS}
        lacking = [part for part in ("train", "test") if not usable[part]]
        if lacking:
            imported.notes.append(f"split {split} is not written: no {lacking[0]} videos")
            continue
        for part, names in usable.items():
            if names:
                write_lines(out / "splits" / f"{part}.split{split}.bundle", names)
        imported.splits[split] = {part: len(names) for part, names in usable.items()}
