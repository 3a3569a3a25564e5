"""Moments that look alike: the nearest vectors over all videos, found through an index that is built in the background.

Vectors are at most `COLUMNS` decorrelated columns of the representation, all bands with the same weight, scaled to
length 1, so that the score is the cosine. Up to `EXACT` of them are compared one by one. More are kept in one byte a
number, in cells around centres, of which a search reads the nearest (faiss, ``IVF,SQ8``): 10 million take 1.0 GB.
The index is never read from a file, so that a data folder of somebody else cannot bring one.
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from keystep.errors import InputError
from keystep.serve.ridge import Basis
from keystep.serve.workspace import Workspace

log = logging.getLogger(__name__)

COLUMNS = 96
EXACT = 300_000
"""Most vectors that are compared one by one, as float32."""
SAMPLE = 40_000
"""Slots of all videos together that the columns are fitted to."""
BLOCK = 16_384
"""Slots that are added at a time."""
TRAINING = 200_000
"""Most vectors that the centres of the cells are fitted to."""
PROBED = 48
"""Cells that a search reads."""
MOMENT_SECONDS = 2.0
"""Seconds of a moment; two that are found are further apart."""
SPARE = 40
"""Neighbours that are looked at for each moment asked for: most are the next slots of another one."""


class Building(Exception):
    """The index is not there yet; ``progress`` from 0 to 1."""

    def __init__(self, progress: float) -> None:
        super().__init__("the index of moments is being built; ask again")
        self.progress = progress


@dataclass(frozen=True)
class Moment:
    """Slots ``start`` to ``stop`` (exclusive) of a video around the one that was found; ``score``: its cosine."""

    video: str
    slot: int
    start: int
    stop: int
    score: float


class Vectors:
    """An index of unit vectors, numbered in the order in which they are added.

    Args:
        sample: (N, K) float32 of them, which the cells of a large index are fitted to.
        total: how many there will be.

    Attributes:
        exact: every vector is compared; otherwise those of the nearest cells.
    """

    def __init__(self, sample: np.ndarray, total: int) -> None:
        import faiss

        width = sample.shape[1]
        self.exact = total <= EXACT
        if self.exact:
            self._index: Any = faiss.IndexFlatIP(width)
            return
        cells = 1 << (min(4 * int(total**0.5), len(sample) // 40, 4_096).bit_length() - 1)
        self._index = faiss.index_factory(width, f"IVF{cells},SQ8", faiss.METRIC_INNER_PRODUCT)
        self._index.cp.niter = 8
        self._index.train(sample)
        self._index.nprobe = PROBED

    def add(self, vectors: np.ndarray) -> None:
        """Add (N, K) float32."""
        self._index.add(np.ascontiguousarray(vectors))

    def nearest(self, vector: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(scores, numbers) of the nearest to (K,), best first; fewer where there are no more."""
        scores, numbers = self._index.search(np.ascontiguousarray(vector[None]), min(count, self._index.ntotal))
        known = numbers[0] >= 0
        return scores[0][known], numbers[0][known]


class MomentSearch:
    """Searches all videos of a workspace; the first search begins to build the index.

    Args:
        publish: told (kind, data) as the index grows.
    """

    def __init__(self, workspace: Workspace, publish: Callable[[str, dict[str, Any]], None]) -> None:
        self.workspace, self._publish = workspace, publish
        self._ends = list(accumulate(workspace.slots[name] for name in workspace.names))
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._failure = ""
        self._closed = False
        self._added = 0
        self._basis: Basis | None = None
        self._vectors: Vectors | None = None

    @property
    def ready(self) -> bool:
        """Whether the index is built."""
        return self._vectors is not None

    @property
    def exact(self) -> bool:
        """Whether every slot is compared."""
        return self._ends[-1] <= EXACT

    def find(self, name: str, slot: int, count: int) -> list[Moment]:
        """The moments that are most like a slot of a video, best first, the slot's own left out.

        Raises:
            Building: the index is not built yet.
            InputError: it cannot be.
        """
        self.begin()
        if self._vectors is None or self._basis is None:
            raise Building(self._added / self._ends[-1])
        row = _unit(self._basis.apply(self.workspace.representation(name)[slot : slot + 1]))[0]
        half = max(1, round(MOMENT_SECONDS / 2 * self.workspace.rate))
        taken, found = {(name, slot)}, list[Moment]()
        for score, number in zip(*self._vectors.nearest(row, SPARE * count), strict=True):
            video, place = self._place(int(number))
            if any(other == video and abs(place - near) <= 2 * half for other, near in taken):
                continue
            taken.add((video, place))
            stop = min(place + half + 1, self.workspace.slots[video])
            found.append(Moment(video, place, max(0, place - half), stop, float(score)))
            if len(found) == count:
                break
        return found

    def begin(self) -> None:
        """Build the index in the background, unless it is there or being built.

        Raises:
            InputError: building failed before.
        """
        with self._lock:
            if self._failure:
                raise InputError(self._failure)
            if self._vectors is None and self._thread is None:
                self._thread = threading.Thread(target=self._work, name="moments", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop building."""
        self._closed = True

    def _work(self) -> None:
        try:
            self._build()
        except Exception as error:  # a background thread has nobody above it who could tell
            log.warning("the index of moments: %s", error)
            self._failure = str(error) if isinstance(error, InputError) else f"the index of moments: {error}"

    def _build(self) -> None:
        names, total = self.workspace.names, self._ends[-1]
        basis = Basis.fit(self._sampled(SAMPLE), self.workspace.bands, COLUMNS)
        training = SAMPLE if total <= EXACT else TRAINING
        vectors = Vectors(_unit(basis.apply(self._sampled(training))), total)
        for name in names:
            rows = self.workspace.representation(name)
            for start in range(0, len(rows), BLOCK):
                if self._closed:
                    return
                part = _unit(basis.apply(rows[start : start + BLOCK]))
                vectors.add(part)
                self._added += len(part)
            self._publish("index", {"done": self._added, "total": total})
        self._basis, self._vectors = basis, vectors

    def _sampled(self, count: int) -> np.ndarray:
        """(N, D) at most ``count`` evenly spaced slots of all videos."""
        stride = -(-self._ends[-1] // count)
        return np.concatenate([self.workspace.representation(name)[::stride] for name in self.workspace.names])

    def _place(self, number: int) -> tuple[str, int]:
        place = bisect_right(self._ends, number)
        return self.workspace.names[place], number - (self._ends[place - 1] if place else 0)


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-12), np.float32)
