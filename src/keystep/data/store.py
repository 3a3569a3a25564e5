"""Writing feature folders: keystep's own layout, and the (D, T) one that segmentation code reads."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from keystep.data.folder import FeatureFolder
from keystep.data.timeline import Timeline
from keystep.errors import InputError
from keystep.files import replacing, write_array, write_json

Layout = Literal["native", "mstcn"]
FORMAT_VERSION = 1


@dataclass(frozen=True)
class FeatureStore:
    """A feature folder being written, one finished file at a time, so that a killed run can go on.

    ``native`` holds (T, D) arrays and a small ``<video>.json`` beside each; ``mstcn`` holds (D, T) arrays.
    """

    root: Path
    timeline: Timeline
    layout: Layout = "native"
    provenance: dict[str, Any] | None = None
    """What made the features: model, weights hash, command."""

    def create(self) -> FeatureStore:
        """Write ``store.json``; a folder written with other settings is refused rather than mixed."""
        record = {
            "format": "keystep-features",
            "version": FORMAT_VERSION,
            "time_axis": 0 if self.layout == "native" else 1,
            "timeline": self.timeline.to_json(),
            "provenance": self.provenance or {},
        }
        if (self.root / "features").exists() and not (self.root / "store.json").exists():
            raise InputError(f"{self.root}: has features that keystep did not write; choose another folder")
        write_json(self.root / "store.json", record)
        return self

    def add(self, video: str, features: np.ndarray, details: dict[str, Any] | None = None) -> None:
        """Write one video's (T, D) features."""
        if features.ndim != 2 or not np.isfinite(features).all():
            raise InputError(f"features of {video!r} with shape {features.shape} are not finite (T, D) numbers")
        stored = features if self.layout == "native" else features.T
        write_array(self.root / "features" / f"{video}.npy", np.ascontiguousarray(stored))
        if self.layout == "native":
            record = {"slots": len(features), "width": features.shape[1], "timeline": self.timeline.to_json()}
            write_json(self.root / "features" / f"{video}.json", record | (details or {}))

    def copy_annotation(self, source: FeatureFolder) -> None:
        """Labels, classes and splits of the folder that the features came from, unchanged."""
        for name in ("groundTruth", "splits", "mapping.txt"):
            if (source.root / name).is_dir():
                with replacing(self.root / name) as temporary:
                    shutil.copytree(source.root / name, temporary)
            elif (source.root / name).exists():
                with replacing(self.root / name) as temporary:
                    shutil.copyfile(source.root / name, temporary)
