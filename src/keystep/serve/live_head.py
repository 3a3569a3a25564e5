"""The head that answers live streams: a given one, or one that is learned from the labels."""

from __future__ import annotations

import logging
import threading
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import Any

from keystep.data.spans import Span
from keystep.errors import InputError
from keystep.heads import Head
from keystep.serve.annotations import AnnotationStore
from keystep.serve.latents import Latents
from keystep.serve.learner import labels_now
from keystep.serve.learning import LabelLearner, Labels
from keystep.serve.waiting import NotYet
from keystep.serve.workspace import Workspace

PATIENCE = 10.0
"""Seconds that whoever opens the first stream waits for a head."""


class LiveHead:
    """What answers live streams now.

    Without ``given``, it is learned: from the features, or from causal latents, those of live streams, of the labelled
    videos, if the learner reads latents that see the future. The latter begins when the first stream is asked for, and
    follows each fit of the learner from then on. All methods may be called from any thread.

    Args:
        learner: of the workspace's representation.
        given: a head that is never replaced.
    """

    def __init__(
        self, workspace: Workspace, annotations: AnnotationStore, learner: LabelLearner, given: Head | None = None
    ) -> None:
        self._workspace, self._annotations, self._learner, self._given = workspace, annotations, learner, given
        self._own: LabelLearner | None = None
        self._head: Head | None = None
        self._followed = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._wanted = self._closed = False
        self._latents = None if given is not None else _causal_latents(workspace)

    def now(self) -> Head | None:
        """The head, or None before there is one; never waits."""
        if self._given is not None:
            return self._given
        if self._latents is None:
            return self._learner.head()
        if self._learner.revision > self._followed:
            self._start()
        return self._head

    def prepare(self) -> None:
        """Wait until something answers that is learned for live streams.

        Raises:
            InputError: nothing can be learned, and why. NotYet: it takes longer than `PATIENCE`.
        """
        if self._latents is None or self._head is not None:
            return
        if self._thread is None:
            self._start()
        with self._changed:
            self._changed.wait_for(lambda: self._thread is None, PATIENCE)
            waiting, own = self._thread is not None, self._own
        if self._head is not None:
            return
        if waiting:
            progress = 0.0 if own is None else own.state.progress
            raise NotYet("a head for live streams is being learned; try again in a moment", progress)
        if own is not None:
            raise InputError(own.state.message)

    def status(self) -> dict[str, Any] | None:
        """How the learned head does, as `LabelLearner.status`; None where none is learned for live streams alone."""
        return None if self._own is None else self._own.status()

    def close(self) -> None:
        """Stop learning, and wait until nothing is written any more."""
        with self._changed:
            self._closed, self._wanted, own, thread = True, False, self._own, self._thread
        if own is not None:
            own.cancel()
        if thread is not None:
            thread.join()

    def _start(self) -> None:
        with self._changed:
            if self._closed:
                return
            self._wanted = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="live head", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._wanted:
                    self._thread = None
                    self._changed.notify_all()
                    return
                self._wanted = False
            try:
                self._fit()
            except Exception:  # a background thread has nobody above it who could tell
                logging.getLogger("keystep").exception("the head of live streams stays")

    def _fit(self) -> None:
        """Learn from what is labelled now; a basis is fitted to the labelled videos, so new ones take a new learner."""
        self._followed = self._learner.revision
        labels = labels_now(self._workspace, self._annotations)
        labelled = {name: self._workspace.slots[name] for name, spans in labels.spans.items() if spans}
        if not labelled:
            return
        own = self._own
        if own is None or own.lengths != labelled:
            own = self._made(labelled)
        with self._changed:
            if self._closed:
                return
            self._own = own
            own.start()
        own.wait()
        self._head = own.head() or self._head

    def _made(self, lengths: dict[str, int]) -> LabelLearner:
        assert self._latents is not None
        latents, workspace = self._latents, self._workspace

        def labels() -> Labels:
            found = labels_now(workspace, self._annotations)
            return replace(found, spans=_only(found.spans, lengths), unsure=_only(found.unsure, lengths))

        return LabelLearner(
            lengths,
            latents.made,
            labels,
            rate=workspace.rate,
            folder=workspace.work / "learning" / workspace.live_as,
            bands=latents.model.bands(latents.model.config.stream_attention),
            groups=workspace.folder.groups,
            origin=latents.origin,
        )


def _only(spans: Mapping[str, Sequence[Span]], names: Container[str]) -> dict[str, Sequence[Span]]:
    return {name: each for name, each in spans.items() if name in names}


def _causal_latents(workspace: Workspace) -> Latents | None:
    """Latents as live streams have them; None where the learner reads the same ones, or there can be no streams."""
    model, latents = workspace.live_model, workspace.latents
    if model is None or latents is None or model.config.stream_attention is None or model.config.oracle:
        return None
    own, live = latents.model.config.attention, model.config.stream_attention
    longest = max(workspace.slots.values())
    covered = live.window is not None and longest <= live.window
    if live == own or (covered and live.model_copy(update={"window": None}) == own):
        return None
    return Latents(workspace.folder, model, workspace.work / "latents" / workspace.live_as, mode="causal")
