"""What is served: a feature folder, the videos beside it, and a work folder that can be deleted at any time."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from keystep.config.attention import AttentionPattern
from keystep.data.folder import FeatureFolder
from keystep.data.slots import open_array
from keystep.errors import InputError
from keystep.files import is_writable
from keystep.pjepa import PJEPA
from keystep.serve.batches import live_model
from keystep.serve.kept import kept
from keystep.serve.latents import Latents

WORK = ".serve"
"""Name of the work folder in the data."""


class Workspace:
    """A feature folder at its own rate, and what belongs to it. Videos are numbered in the order of their names.

    Args:
        folder: opened at the rate on disk.
        videos: name -> file of the recordings that there are.
        work: folder for what can be computed again; by default ``.serve`` in the data.
        model: whose latents represent the videos.
        live_window: frames of the past that live streams attend to, see `keystep.serve.batches.live_model`.

    Attributes:
        read_only: the data cannot be written to; the work folder is then a temporary one.
        latents: of the model, which then represent the videos; None: the features do.
        live_model: the model as live streams run it.

    Raises:
        InputError: features that are not at their own rate, a model that does not fit, or an impossible window.
    """

    def __init__(
        self,
        folder: FeatureFolder,
        *,
        videos: Mapping[str, Path] | None = None,
        work: Path | None = None,
        model: PJEPA | None = None,
        live_window: int | None = None,
    ) -> None:
        if folder.pool != 1:
            raise InputError(f"{folder.root}: annotations count slots on disk; open it at its own rate")
        self.folder = folder
        self.names: tuple[str, ...] = tuple(sorted(folder.videos))
        self._numbers = {name: number for number, name in enumerate(self.names)}
        self.read_only = not is_writable(folder.root)
        if (folder.root / WORK).is_symlink():
            raise InputError(f"{folder.root / WORK}: a link; remove it, as what lies there is made again")
        self.work = work or (Path(tempfile.mkdtemp(prefix="keystep-")) if self.read_only else folder.root / WORK)
        self.latents = (
            None if model is None else Latents(folder, model, self.work / "latents" / self._latents_of(model))
        )
        if model is None and live_window is not None:
            raise InputError(f"--live-window {live_window}: limits a model's attention; give the model with --model")
        self.live_model = None if model is None else live_model(model, live_window)
        self._files = dict(videos or {})

    def number(self, name: str) -> int:
        """A video's place in the order of names."""
        return self._numbers[name]

    @property
    def root(self) -> Path:
        """The feature folder."""
        return self.folder.root

    @cached_property
    def rate(self) -> float:
        """Slots a second."""
        return float(self.folder.timeline.rate)

    @cached_property
    def start(self) -> float:
        """The second that slot 0 stands for."""
        return float(self.folder.timeline.start)

    @property
    def represented_by(self) -> str:
        """Tells representations apart: a file name that changes with the features or the model."""
        if self.latents is not None:
            return f"latents-{self._latents_of(self.latents.model)}"
        return f"features-{self.fingerprint[:16]}"

    @property
    def live_as(self) -> str:
        """Tells what live streams run on apart, as `represented_by` does for videos."""
        model = self.live_model
        if model is None or model.config.stream_attention is None:
            return self.represented_by
        return f"latents-{self._latents_of(model, model.config.stream_attention)}"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over sizes and times of the files of features; labels do not count."""
        digest = hashlib.sha256(json.dumps([self.folder.source.to_json(), self.folder.tokens]).encode())
        for name in self.names:
            digest.update(f"{name}/{stamp(self.folder.video(name).features)}\n".encode())
        return digest.hexdigest()

    def _latents_of(self, model: PJEPA, pattern: AttentionPattern | None = None) -> str:
        how = f"{model.fingerprint} {pattern or model.config.attention} {self.fingerprint}"
        return hashlib.sha256(how.encode()).hexdigest()[:16]

    @cached_property
    def slots(self) -> Mapping[str, int]:
        """Slots of each video."""
        return {name: self.folder.length(name) for name in self.names}

    def seconds(self, name: str, slot: int) -> Fraction:
        """The moment of the recording that a slot stands for."""
        if not self.folder.has_times(name):
            return self.folder.timeline.seconds(slot)
        return Fraction(float(self.folder.times(name, slot, slot + 1)[0]))

    def recording(self, name: str) -> Path | None:
        """The file of a video, where there is one."""
        return self._files.get(name)

    def represented(self, name: str) -> bool:
        """Whether a video's representation is there; if not, it is the next to be computed."""
        return self.latents is None or self.latents.ready(name)

    def representation(self, name: str) -> np.ndarray:
        """(T, D) float32, memory-mapped: one vector a slot, the features or the latents of the model.

        Waits until the video is encoded, see `represented`.

        Raises:
            InputError: an array that has become unreadable, or a video that cannot be encoded.
        """
        if self.latents is not None:
            return self.latents.of(name)
        video = self.folder.video(name)
        stored = open_array(video.features, quantised=video.scale is not None)
        if stored.dtype == np.float32 and self.folder.tokens == 1:
            rows = stored if video.time_axis == 0 else stored.T
            return rows[: video.frames]
        path = self.work / self.represented_by / f"{name}.npy"
        shape = (self.slots[name], self.folder.width)
        return kept(path, lambda: self.folder.vectors(name), shape, np.float32)

    @property
    def bands(self) -> Mapping[str, int] | None:
        """Band -> its columns of the latents; None where the features represent the videos."""
        return None if self.latents is None else self.latents.model.bands(None)

    @property
    def origin(self) -> Mapping[str, str]:
        """What a head that is learned from the representation says of it."""
        if self.latents is None:
            return {"representation": "features"}
        return self.latents.origin

    def describe(self) -> dict[str, Any]:
        """What the page shows above everything else."""
        return {
            "name": self.root.resolve().name,
            "rate": self.rate,
            "start": self.start,
            "videos": len(self.names),
            "model": None if self.latents is None else self.latents.model.origin.source,
            "read_only": self.read_only,
        }


def stamp(path: Path) -> str:
    """A few digits that change with a file's size or time, so that nothing made of an older one is taken for it."""
    found = path.stat()
    return hashlib.sha256(f"{found.st_size}/{found.st_mtime_ns}".encode()).hexdigest()[:12]
