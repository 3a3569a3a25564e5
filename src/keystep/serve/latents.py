"""Latents of all videos, computed in the background and kept; a server that was stopped goes on with the rest."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np

from keystep.data.folder import FeatureFolder
from keystep.encoding import Mode, encode, mode_pattern
from keystep.errors import InputError, one_line
from keystep.files import write_array
from keystep.loading import check_features
from keystep.pjepa import PJEPA
from keystep.serve.kept import kept

log = logging.getLogger(__name__)


class Latents:
    """Latents of a folder's videos at the rate on disk: where the model's is lower, each is repeated.

    Args:
        folder: opened at the rate on disk.
        out: one array a video is written there, and those that are there are taken as they are.
        mode: as of `keystep.encode`.

    Attributes:
        folder: the same videos at the model's rate.
        warnings: lines about what deserves a look.

    Raises:
        InputError: the model cannot read these features, or needs true boundaries.
    """

    def __init__(self, folder: FeatureFolder, model: PJEPA, out: Path, mode: Mode = "offline") -> None:
        if model.config.oracle:
            raise InputError(f"{model.origin.source}: attends by true segments (ORACLE), which no new video has")
        self.folder, self.model, self.out, self._mode = at_models_rate(folder, model), model, out, mode
        self.warnings = check_features(model, self.folder)
        self._slots = {name: folder.length(name) for name in sorted(folder.videos)}
        self._done = {name for name in self._slots if self._path(name).exists()}
        self._failed: dict[str, str] = {}
        self._first: list[str] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._publish: Callable[[int, int], None] = lambda done, total: None

    @property
    def done(self) -> int:
        """Videos that are encoded, or cannot be."""
        return len(self._done) + len(self._failed)

    @property
    def total(self) -> int:
        """Videos that there are."""
        return len(self._slots)

    def begin(self, publish: Callable[[int, int], None]) -> None:
        """Encode what is missing in the background; tell (done, total) after each video."""
        with self._changed:
            self._publish = publish
            if self._thread is None and self.done < self.total:
                self._thread = threading.Thread(target=self._work, name="encoding", daemon=True)
                self._thread.start()

    def ready(self, name: str) -> bool:
        """Whether a video is encoded; one that is not is the next to be."""
        with self._changed:
            if name not in self._done and name not in self._failed and name not in self._first:
                self._first.append(name)
            return name in self._done

    def of(self, name: str) -> np.ndarray:
        """(T, D) float32, memory-mapped; waits until the video is encoded.

        Raises:
            InputError: it cannot be, or the server ends.
        """
        if not self.ready(name):
            self.begin(self._publish)
        with self._changed:
            while name not in self._done:
                if name in self._failed:
                    raise InputError(self._failed[name])
                if self._closed:
                    raise InputError(f"{name}: not encoded, because the server ends")
                self._changed.wait(1.0)
        return self.made(name)

    def made(self, name: str) -> np.ndarray:
        """(T, D) float32, memory-mapped; a video that is not encoded is encoded here and now, in no background.

        Raises:
            InputError: it cannot be.
        """
        shape = (self._slots[name], self.model.latent_dim(mode_pattern(self.model, self._mode)))
        return kept(self._path(name), lambda: self._encoded(name), shape, np.float32)

    @property
    def origin(self) -> dict[str, str]:
        """What a head that is learned from these latents says of them."""
        live = self._mode == "causal" or self.model.config.attention == self.model.config.stream_attention
        rate = str(self.folder.timeline.rate)
        return {"weights": self.model.fingerprint, "mode": "causal" if live else "offline", "rate": rate}

    def close(self) -> None:
        """Stop behind the video that is being encoded."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _work(self) -> None:
        while (name := self._next()) is not None:
            try:
                write_array(self._path(name), self._encoded(name))
            except Exception as error:  # a background thread has nobody above it who could tell
                log.warning("%s: not encoded: %s", name, error)
                failure = str(error) if isinstance(error, InputError) else f"{name}: {one_line(error)}"
                with self._changed:
                    self._failed[name] = failure
            else:
                with self._changed:
                    self._done.add(name)
            with self._changed:
                self._changed.notify_all()
            self._publish(self.done, self.total)

    def _next(self) -> str | None:
        with self._changed:
            left = [name for name in self._slots if name not in self._done and name not in self._failed]
            if self._closed or not left:
                self._thread = None
                return None
            self._first = [name for name in self._first if name in left]
            return (self._first or left)[0]

    def _encoded(self, name: str) -> np.ndarray:
        latents = encode(self.model, self.folder.features(name), mode=self._mode)
        held: np.ndarray = np.repeat(latents, self.folder.pool, axis=0)[: self._slots[name]].astype(np.float32)
        return held

    def _path(self, name: str) -> Path:
        return self.out / f"{name}.npy"


def at_models_rate(folder: FeatureFolder, model: PJEPA) -> FeatureFolder:
    """The folder read at the rate that the model was trained at, where that is a whole fraction of its own."""
    from dataclasses import replace

    if model.origin.rate is None or Fraction(model.origin.rate) > folder.source.rate:
        return folder
    factor = folder.source.rate / Fraction(model.origin.rate)
    return replace(folder, pool=int(factor)) if factor.denominator == 1 else folder
