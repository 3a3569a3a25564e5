"""What the application asks of whatever learns from the labels (`keystep.serve.learning.Learner`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from keystep.serve.annotations import AnnotationStore
from keystep.serve.workspace import Workspace

Publish = Callable[[str, dict[str, Any]], None]
"""Tells all open pages of an event: its kind, and its data."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """ids: (slots,) int class ids by the classes of the `AnnotationStore`. confidence: (slots,) float32, 0 to 1."""

    ids: np.ndarray
    confidence: np.ndarray


@dataclass(frozen=True)
class Stretch:
    """A stretch that is worth labelling next; ``reason`` is for people."""

    video: str
    start: int
    stop: int
    reason: str
    score: float


class Learner(Protocol):
    """Learns in the background; every method returns at once and may be called from any thread.

    Constructed as ``Learner(workspace, annotations, publish)``. Publishes ``learning`` with what `status` returns.
    """

    @property
    def revision(self) -> int:
        """Grows with each set of predictions; 0 before the first."""

    def start(self) -> None:
        """Fit on what is labelled now; a fit that is running is begun again."""

    def cancel(self) -> None:
        """Stop fitting; the predictions of before stay."""

    def status(self) -> dict[str, Any]:
        """State, progress, message, accuracy and history as ``GET /api/learning`` returns them."""

    def prediction(self, name: str) -> Prediction | None:
        """What the newest head says of a video; None before there is one."""

    def uncertainty(self, name: str) -> float | None:
        """How unsure the newest head is of a video, 0 to 1; None before there is one."""

    def suggestions(self, count: int) -> Sequence[Stretch]:
        """Stretches to label next, best first."""

    def close(self) -> None:
        """Stop, and wait until nothing is written any more."""


class NoLearner:
    """Stands in where nothing learns."""

    revision = 0

    def __init__(self, workspace: Workspace, annotations: AnnotationStore, publish: Publish) -> None: ...

    def start(self) -> None: ...

    def cancel(self) -> None: ...

    def status(self) -> dict[str, Any]:
        message = "this installation does not learn"
        return {"state": "idle", "progress": 0.0, "message": message, "accuracy": None, "history": []}

    def prediction(self, name: str) -> Prediction | None:
        return None

    def uncertainty(self, name: str) -> float | None:
        return None

    def suggestions(self, count: int) -> Sequence[Stretch]:
        return ()

    def close(self) -> None: ...
