"""Finished probes on disk, found again by what went into them, so that a stopped evaluation goes on where it was."""

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
"""Folder of the kept probes within that of a result."""
MOST_BYTES = 4 << 30
VERSION = 6
"""Of how a probe is fitted and described: another version finds none of the older ones."""


@dataclass(frozen=True)
class KeptProbes:
    """Probes and what they said of the test videos, one file each in ``folder``; without a folder nothing is kept.

    Files are named by a hash of a description: the data, the split, the settings and the representation.
    """

    folder: Path | None = None

    def path(self, description: Mapping[str, Any]) -> Path | None:
        """Where the probe of a description is kept."""
        if self.folder is None:
            return None
        text = json.dumps({"version": VERSION, **description}, sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"

    def find(self, description: Mapping[str, Any]) -> tuple[LinearProbe, dict[str, np.ndarray]] | None:
        """The probe and its predictions, video -> (T,) class ids; None where it was not kept, or cannot be read."""
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
            return probe, {name: stored[f"said{i}"].astype(np.int64) for i, name in enumerate(videos)}
        except (ValueError, KeyError, TypeError):
            return None  # cut off by a full disk or a lost machine: fitted again

    def keep(self, description: Mapping[str, Any], probe: LinearProbe, predictions: Mapping[str, np.ndarray]) -> None:
        """Write a finished probe."""
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
