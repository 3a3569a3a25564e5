"""What the time line shows of a representation: its colours, how fast it changes, how alike its moments are."""

from __future__ import annotations

import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np

from keystep.serve.kept import kept
from keystep.serve.tiles import means
from keystep.serve.workspace import Workspace

SAMPLE, SAMPLE_VIDEOS = 8_000, 200
"""Slots, and videos that they are of, whose principal components become colours."""
BLOCK = 4_096
"""Slots that are in memory at once."""
COARSE = 8
"""Slots in a row of the coarser copy of a representation."""
CHANGE_SECONDS = 2.0
"""Seconds before and behind a slot that are compared for its change."""
QUANTILE = 0.8
"""Change points are the peaks above this quantile of a video's changes."""


class Signals:
    """Computes each array of a video once, keeps it in the work folder, and reads only what is asked for then."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}

    def colours(self, name: str) -> np.ndarray:
        """(T, 3) uint8: the first three principal components of all videos as red, green and blue."""
        return self._kept("colours", name, self._make_colours, (self.workspace.slots[name], 3), np.uint8)

    def change(self, name: str) -> np.ndarray:
        """(T,) uint8: how much the representation changes around each slot; 255 is the video's largest change."""
        return self._kept("change", name, self._make_change, (self.workspace.slots[name],), np.uint8)

    def change_points(self, name: str, start: int, stop: int) -> list[int]:
        """Slots of ``start`` to ``stop`` at which the representation changes most, in order."""
        change = self.change(name).astype(np.int16)
        inner = change[1:-1]
        peaks = np.flatnonzero((inner > change[:-2]) & (inner >= change[2:]) & (inner >= np.quantile(change, QUANTILE)))
        return [int(slot) for slot in peaks + 1 if start <= slot < stop]

    def similarity(self, name: str, start: int, stop: int, size: int) -> bytes:
        """A PNG of the cosine similarity between all moments of slots ``start`` to ``stop``; white is the same."""
        from PIL import Image

        size = min(size, stop - start)
        if stop - start > 2 * COARSE * size:
            rows = means(self._coarse(name), start // COARSE, -(-stop // COARSE), size)
        else:
            rows = means(self.workspace.representation(name), start, stop, size)
        rows -= rows.mean(axis=0)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True) + 1e-12
        picture = BytesIO()
        shades = np.rint(255 * np.clip((rows @ rows.T + 1) / 2, 0, 1)).astype(np.uint8)
        Image.fromarray(shades).save(picture, "PNG")
        return picture.getvalue()

    def _coarse(self, name: str) -> np.ndarray:
        shape = (-(-self.workspace.slots[name] // COARSE), None)
        return self._kept("coarse", name, self._make_coarse, shape, np.float32)

    def _make_coarse(self, name: str) -> np.ndarray:
        rows = self.workspace.representation(name)
        parts = [
            means(rows, begin, min(begin + BLOCK, len(rows)), -(-min(BLOCK, len(rows) - begin) // COARSE))
            for begin in range(0, len(rows), BLOCK)
        ]
        return np.concatenate(parts).astype(np.float32)

    def _make_colours(self, name: str) -> np.ndarray:
        rows = self.workspace.representation(name)
        painter = self._kept("painter", "", self._make_painter, (4, rows.shape[1]), np.float32).astype(np.float64)
        mean, directions = painter[0], painter[1:]  # (D,), (3, D)
        parts = [(rows[begin : begin + BLOCK] - mean) @ directions.T for begin in range(0, len(rows), BLOCK)]
        return np.rint(255 * np.clip(0.5 + np.concatenate(parts), 0, 1)).astype(np.uint8)

    def _make_painter(self, _: str) -> np.ndarray:
        """(4, D) float32: the mean, and three directions, scaled so that most values are in -0.5 to 0.5."""
        from sklearn.decomposition import PCA

        names = self.workspace.names[:: -(-len(self.workspace.names) // SAMPLE_VIDEOS)]
        each = SAMPLE // len(names)
        parts = []
        for name in names:
            rows = self.workspace.representation(name)
            parts.append(np.asarray(rows[:: max(1, len(rows) // each)], np.float64))
        sample = np.concatenate(parts)
        count = min(3, *sample.shape)
        found = PCA(count, svd_solver="randomized" if min(sample.shape) > 100 else "full", random_state=0).fit(sample)
        directions = np.zeros((3, sample.shape[1]))
        directions[:count] = found.components_ / (5 * np.sqrt(np.maximum(found.explained_variance_, 1e-12)))[:, None]
        return np.vstack([found.mean_, directions]).astype(np.float32)

    def _make_change(self, name: str) -> np.ndarray:
        from keystep.evals.signals import change_scores

        rows = self.workspace.representation(name)
        window = max(1, min(round(CHANGE_SECONDS * self.workspace.rate), len(rows) // 4))
        scores = np.zeros(len(rows))
        for begin in range(0, len(rows), BLOCK):
            part = change_scores(rows[begin : begin + BLOCK + 2 * window - 1], window)
            scores[begin + window : begin + window + len(part)] = part
        return np.rint(255 * scores / (scores.max() or 1)).astype(np.uint8)

    def _kept(
        self,
        kind: str,
        name: str,
        make: Callable[[str], np.ndarray],
        shape: tuple[int | None, ...],
        dtype: type[np.generic],
    ) -> np.ndarray:
        path = self._path(kind, name)
        with self._lock:
            lock = self._locks.setdefault(f"{kind}/{name}", threading.Lock())
        with lock:
            return kept(path, lambda: make(name), shape, dtype, lambda array: bool(np.isfinite(array[:4]).all()))

    def _path(self, kind: str, name: str) -> Path:
        folder = self.workspace.work / "signals" / self.workspace.represented_by
        return folder / f"{kind}.npy" if not name else folder / kind / f"{name}.npy"
