"""The learner of a workspace: what it learns from, and whom it tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keystep.serve.annotations import AnnotationStore
from keystep.serve.learning import LabelLearner, Labels, LearningState
from keystep.serve.workspace import Workspace

Publish = Callable[[str, dict[str, Any]], None]
"""Tells all open pages of an event: its kind, and its data."""

UNSURE = "unsure"
"""Name of the class of stretches that nobody learns from, and whose predictions nobody counts."""
STEP = 0.01
"""Progress that is worth telling."""


def make_learner(workspace: Workspace, annotations: AnnotationStore, publish: Publish) -> LabelLearner:
    """A learner of what is labelled; tells ``learning`` with what `LabelLearner.status` returns."""
    last = LearningState()

    def changed(state: LearningState) -> None:
        nonlocal last
        same = (state.state, state.message, state.revision) == (last.state, last.message, last.revision)
        if not same or abs(state.progress - last.progress) >= STEP:
            last = state
            publish("learning", learner.status())

    learner = LabelLearner(
        workspace.slots,
        workspace.representation,
        lambda: labels_now(workspace, annotations),
        rate=workspace.rate,
        folder=workspace.work / "learning" / workspace.represented_by,
        bands=workspace.bands,
        groups=workspace.folder.groups,
        origin=workspace.origin,
        changed=changed,
    )
    return learner


def labels_now(workspace: Workspace, annotations: AnnotationStore) -> Labels:
    """What is labelled now, and what is marked as unsure."""
    spans = {name: annotations.current(name)[1] for name in workspace.names}
    sure = {name: [span for span in each if span.label != UNSURE] for name, each in spans.items()}
    unsure = {name: [span for span in each if span.label == UNSURE] for name, each in spans.items()}
    return Labels(annotations.classes, sure, unsure)
