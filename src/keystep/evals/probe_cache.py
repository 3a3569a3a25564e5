"""Cache of fitted probes on disk, so that an interrupted evaluation can be resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keystep.evals.probe import LinearProbe
from keystep.files import replacing
from keystep.reading import read_npz

FOLDER = "probes"
"""Name of the cache within a result folder."""
MOST_BYTES = 4 << 30
VERSION = 6
"""Version of the probe and of its description. Entries of other versions are not found."""


@dataclass(frozen=True)
class ProbeCache:
    """Cache of probes and their predictions for the test videos, one file each; without a folder, nothing is cached.

    File names are hashes of a description (data, split, settings and representation).
    """

    folder: Path | None = None

    def path(self, description: Mapping[str, Any]) -> Path | None:
        """Path of the entry for a description; None without a folder."""
        if self.folder is None:
            return None
        text = json.dumps({"version": VERSION, **description}, sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"

    def find(self, description: Mapping[str, Any]) -> tuple[LinearProbe, dict[str, np.ndarray]] | None:
        """The cached probe and its predictions (video -> (T,) class ids), or None if missing or unreadable."""
        path = self.path(description)
        if path is None or not path.is_file():
            return None
        try:
            stored = read_npz(path, MOST_BYTES)
            probe = LinearProbe(
                stored["weight"],
                stored["bias"],
                float(stored["penalty"]),
                float(stored["valid_accuracy"]),
                dict(zip(map(str, stored["bands"]), stored["strengths"].tolist(), strict=True)),
                bool(stored["at_edge"]),
            )
            videos = [str(name) for name in stored["videos"]]
            return probe, {name: stored[f"said{i}"].astype(np.int32) for i, name in enumerate(videos)}
        except (ValueError, KeyError, TypeError):
            return None  # truncated, for example by a full disk: fitted again

    def keep(self, description: Mapping[str, Any], probe: LinearProbe, predictions: Mapping[str, np.ndarray]) -> None:
        """Write a fitted probe and its predictions."""
        path = self.path(description)
        if path is None:
            return
        arrays: dict[str, Any] = {
            "weight": probe.weight,
            "bias": probe.bias,
            "penalty": np.float64(probe.penalty),
            "valid_accuracy": np.float64(probe.valid_accuracy),
            "bands": np.array(list(probe.strengths), dtype=np.str_),
            "strengths": np.array(list(probe.strengths.values()), dtype=np.float64),
            "at_edge": np.bool_(probe.at_edge),
            "videos": np.array(list(predictions)),
        }
        arrays |= {f"said{i}": said.astype(np.int32) for i, said in enumerate(predictions.values())}
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)
