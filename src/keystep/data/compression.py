"""Write a feature folder again with smaller numbers: float16, or int8 with a scale for each channel of each video."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from keystep.data.folder import FeatureFolder
from keystep.data.layout import read_store
from keystep.data.store import FeatureStore, Kind
from keystep.errors import InputError
from keystep.locking import owning
from keystep.progress import SILENT, Progress
from keystep.reading import located, open_npy, read_json, stored


@dataclass(frozen=True)
class Compressed:
    """A folder written by `compress`.

    Attributes:
        root: the folder.
        videos: names of its videos.
        skipped: name of each skipped video -> reason.
        size_before, size: bytes of the arrays of these videos.
    """

    root: Path
    videos: tuple[str, ...]
    skipped: dict[str, str]
    size_before: int
    size: int


def compress(folder: FeatureFolder, out: Path | str, kind: str = "float16", progress: Progress = SILENT) -> Compressed:
    """Copy a feature folder, at its rate on disk and with its annotation, in another type of numbers.

    Args:
        folder: the features, not pooled.
        out: the folder to write; finished videos in it are skipped.
        kind: ``float32``, ``float16``, or ``int8``: 256 levels between the least and the greatest value of each channel
            in each video.
        progress: reports the videos.

    Raises:
        InputError: an unknown kind, an invalid video (unless the folder skips it), or ``out`` was written with other
            settings.
    """
    if kind not in get_args(Kind):
        raise InputError(f"unknown --type {kind!r}; expected one of {', '.join(get_args(Kind))}")
    out, known = Path(out), read_store(folder.root / "store.json").get("provenance")
    provenance = {**(known if isinstance(known, dict) else {}), "type": kind, "compressed": folder.fingerprint()}
    with owning(out):
        store = FeatureStore(out, folder.source, provenance=provenance, kind=kind).create()  # type: ignore[arg-type]
        store.copy_annotation(folder)
        names = [name for name in folder.videos if not store.has(name)]
        with progress.task("compressing", total=len(names), unit="videos") as task:
            for name in names:
                folder.problems.attempt(name, lambda name=name: _copy(folder, store, name))  # type: ignore[misc]
                task.advance(note=name)
        store.finish()
    videos = tuple(name for name in folder.videos if name not in folder.problems.skipped)
    before_after = (folder.root / "features", out / "features")
    sizes = (sum(_size(place / f"{name}.npy") for name in videos) for place in before_after)
    return Compressed(out, videos, dict(folder.problems.skipped), *sizes)


def _size(path: Path) -> int:
    """Bytes of a file of a feature folder, in a tar file or by itself."""
    place = located(path)
    return path.stat().st_size if place is None else place.size


def _copy(folder: FeatureFolder, store: FeatureStore, name: str) -> None:
    """Write a video with its record and its source frames."""
    record, seen = folder.root / "features" / f"{name}.json", folder.root / "seen" / f"{name}.npy"
    features = folder.features(name)
    store.add(
        name,
        features,
        read_json(record) if stored(record) else None,
        seen=np.array(open_npy(seen)[: len(features)]) if stored(seen) else None,
    )
