"""What a head that ``keystep eval`` wrote says of the videos, beside what is learned here."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from keystep.errors import InputError
from keystep.heads import load_head
from keystep.loading import check_head
from keystep.prediction import predict
from keystep.serve.kept import kept
from keystep.serve.learning import SlotPrediction
from keystep.serve.workspace import Workspace


class SavedHead:
    """Predictions of a head, each made once and kept in the work folder.

    Raises:
        InputError: no model is served, or the head is of another one.
    """

    def __init__(self, workspace: Workspace, path: Path) -> None:
        if workspace.latents is None:
            raise InputError(f"{path}: a head reads a model's latents; give that model with --model")
        self._latents, self._path = workspace.latents, path
        self.head = load_head(path)
        self.warnings = check_head(self.head, self._latents.model, str(path), live=False)
        self._out = workspace.work / "heads" / f"{self.head.signature[:16]}-{workspace.represented_by}"
        self._slots, self._lock = workspace.slots, threading.Lock()

    def prediction(self, name: str, classes: tuple[str, ...]) -> SlotPrediction:
        """Ids by ``classes``; -1 where the head says a class that is none of them."""
        path = self._out / f"{name}.npy"
        with self._lock:
            rows = kept(path, lambda: self._predicted(name), (self._slots[name], 2), np.float32, self._possible)
        ids = {label: index for index, label in enumerate(classes)}
        table = np.array([ids.get(label, -1) for label in self.names], np.int64)
        return SlotPrediction(table[rows[:, 0].astype(np.int64)], np.asarray(rows[:, 1]), classes, 0)

    def _predicted(self, name: str) -> np.ndarray:
        """(T, 2) float32: the head's id of each slot, and its probability."""
        folder = self._latents.folder
        found = predict(self._latents.model, self.head, folder.features(name))[0]
        both = np.stack([found.ids, found.probabilities.max(axis=1)], axis=1).astype(np.float32)
        return np.repeat(both, folder.pool, axis=0)[: self._slots[name]]

    def _possible(self, rows: np.ndarray) -> bool:
        ids, shares = rows[:, 0], rows[:, 1]
        return bool(np.isin(ids, np.arange(self.head.classes)).all() and ((shares >= 0) & (shares <= 1.001)).all())

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the head's classes by its ids."""
        return tuple(self.head.name(identifier) for identifier in range(self.head.classes))
