"""A head that learns from labels in the background: progress, predictions, accuracy, and what to label next."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy.special import softmax

from keystep.data.annotation import IGNORED
from keystep.data.spans import Span, labels_of_spans, spans_of
from keystep.errors import InputError, one_line, quoted
from keystep.evals.controls import as_frames
from keystep.heads.linear import Affine, LinearHead, linear_head
from keystep.serve.growth import Entry, History, summary, too_few
from keystep.serve.ridge import Accuracy, Array, Evidence, Ids, Validation, Weights, add, cross_validate
from keystep.serve.survey import Choice, Suggestion, VideoSurvey

BLOCK = 4_096
"""Slots that are read at a time."""

State = Literal["idle", "running", "failed"]


@dataclass(frozen=True)
class Labels:
    """What people said so far.

    classes: names by id; new ones go to the end. spans: video -> its labelled spans; a video without any may be
    missing. unsure: video -> spans that are neither learned from nor scored, whatever their label.
    """

    classes: Sequence[str]
    spans: Mapping[str, Sequence[Span]]
    unsure: Mapping[str, Sequence[Span]] = field(default_factory=dict)


@dataclass(frozen=True)
class LearningState:
    """What the page shows.

    progress: 0 to 1 of the running fit. message: what is true now, and what would help; one line. accuracy: None until
    two videos (or groups) are labelled. history: earlier accuracies, oldest first. revision: fits since the start; the
    predictions are those of the last one. stamp: rises with every change, over restarts too, so that whoever is told of
    two states knows the later one.
    """

    state: State = "idle"
    progress: float = 0.0
    message: str = ""
    accuracy: Accuracy | None = None
    history: tuple[Entry, ...] = ()
    revision: int = 0
    stamp: int = 0


@dataclass(frozen=True)
class PredictedSpan(Span):
    """A run of one predicted class. confidence: mean probability (0 to 1) of that class in it."""

    confidence: float


@dataclass(frozen=True, eq=False)
class SlotPrediction:
    """A head's answer for one video.

    ids: (T,) class ids. confidence: (T,) float32 probability of that class, calibrated on held-out videos if there are
    two. classes: names by id. revision: the fit that it comes from.
    """

    ids: Ids
    confidence: Array
    classes: tuple[str, ...]
    revision: int

    def spans(self, start: int = 0, stop: int | None = None) -> list[PredictedSpan]:
        """The predicted spans within slots ``start`` to ``stop``, cut at these."""
        confidence = self.confidence[start:stop]
        return [
            PredictedSpan(
                start + span.start, start + span.stop, span.label, float(confidence[span.start : span.stop].mean())
            )
            for span in spans_of(self.ids[start:stop], self.classes)
        ]


@dataclass(frozen=True, eq=False)
class _Fitted:
    """A head, what it was fitted on, and how unsure it is of each surveyed slot (video -> (S,), 0 to 1)."""

    head: LinearHead
    classes: tuple[str, ...]
    doubt: Mapping[str, Array]
    revision: int


class _Cancelled(Exception):
    """The fit was asked to stop."""


class LabelLearner:
    """Fits a linear head on what is labelled, in a background thread.

    All methods return at once, but for `prediction`, which reads a video, `wait` and `close`. They may be called from
    any thread.

    Args:
        lengths: video -> its slots; all videos that can be labelled or predicted.
        representation: video -> (T, D) array, preferably memory-mapped. All videos have to be represented by the same
            model; if that changes, make another learner.
        labels: what is labelled now; called from the background thread.
        rate: slots per second.
        folder: where ``learning.json``, the history, is kept; one for each representation. It can be deleted.
        bands: band name -> number of columns of the representation, in column order, as from `PJEPA.bands`.
        groups: video -> the person or site that it belongs to; they are held out together.
        origin: of the saved heads: ``weights`` (fingerprint of the model), ``mode`` and ``rate`` for latents,
            ``representation`` for features. Heads for `keystep stream` need causal latents.
        changed: called from the background thread with every change of the state; it must not raise.
    """

    def __init__(
        self,
        lengths: Mapping[str, int],
        representation: Callable[[str], Array],
        labels: Callable[[], Labels],
        *,
        rate: float,
        folder: Path,
        bands: Mapping[str, int] | None = None,
        groups: Mapping[str, str] | None = None,
        origin: Mapping[str, str] | None = None,
        changed: Callable[[LearningState], None] = lambda state: None,
    ) -> None:
        self.lengths, self.rate, self.bands, self.groups = dict(lengths), rate, bands, groups
        self.origin, self._representation, self._labels = dict(origin or {}), representation, labels
        self._changed = changed
        self._history = History(Path(folder))
        self._state = LearningState(history=self._history.entries)
        self._lock, self._cancel = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._wanted = False
        self._survey: VideoSurvey | None = None
        self._evidence: dict[str, tuple[Ids, Evidence]] = {}
        self._left_out: dict[str, str] = {}
        self._fitted: _Fitted | None = None
        self._known: dict[str, Array] = {}
        self._predictions: dict[str, SlotPrediction] = {}

    @property
    def state(self) -> LearningState:
        """The present state."""
        return self._state

    @property
    def revision(self) -> int:
        """The fit that predictions come from; 0 before the first."""
        return self._state.revision

    def status(self) -> dict[str, Any]:
        """The state as plain data, as ``GET /api/learning`` returns it."""
        state = self._state
        return {
            "state": state.state,
            "progress": state.progress,
            "message": state.message,
            "accuracy": None if state.accuracy is None else asdict(state.accuracy),
            "history": [entry.model_dump() for entry in state.history],
            "stamp": state.stamp,
        }

    def start(self) -> None:
        """Fit to what is labelled now; a fit that runs is finished first, and one more follows it."""
        with self._lock:
            self._wanted = True
            self._cancel.clear()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="learning", daemon=True)
                self._thread.start()

    def cancel(self) -> None:
        """Stop the running fit, and forget the waiting one; the last head stays."""
        with self._lock:
            self._wanted = False
            self._cancel.set()

    def close(self) -> None:
        """Stop, and wait until nothing is written any more."""
        self.cancel()
        self.wait()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until nothing runs; False if it still does after so many seconds."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)
            return not thread.is_alive()
        return True

    def prediction(self, video: str) -> SlotPrediction | None:
        """The last head's answer for a video, computed when it is first asked for; None without a head.

        Raises:
            InputError: no such video, or a representation of another size.
        """
        fitted = self._fitted
        if fitted is None:
            return None
        kept = self._predictions.get(video)
        if kept is not None and kept.revision == fitted.revision:
            return kept
        frames = self._read(video)
        parts = [
            fitted.head.probabilities(torch.from_numpy(np.array(frames[at : at + BLOCK], np.float32))).numpy()
            for at in range(0, len(frames), BLOCK)
        ]
        found = np.concatenate(parts)
        prediction = SlotPrediction(found.argmax(axis=1), found.max(axis=1), fitted.classes, fitted.revision)
        self._predictions[video] = prediction
        return prediction

    def uncertainty(self, video: str) -> float | None:
        """1 minus the mean confidence (0 to 1) in the slots of a video that are not labelled; None without a head, or
        for a video that cannot be read."""
        fitted, survey = self._fitted, self._survey
        if fitted is None or survey is None or video not in survey.lengths:
            return None
        left = ~self._known.get(video, np.zeros(self.lengths[video], bool))[survey.slots[video]]
        return float(fitted.doubt[video][left].mean()) if left.any() else 0.0

    def suggestions(self, count: int = 5, choice: Choice = "mixed", seed: int = 0) -> list[Suggestion]:
        """Stretches to label next, as `VideoSurvey.suggest`; none until the first fit has read all videos."""
        survey, fitted = self._survey, self._fitted
        if survey is None:
            return []
        return survey.suggest(self._known, fitted.doubt if fitted else None, count, choice, seed)

    def head(self) -> LinearHead | None:
        """The last head, which can be saved (``head.save(path)``) for `keystep predict` and, if causal, `stream`."""
        return self._fitted.head if self._fitted else None

    def _work(self) -> None:
        """Fit until nothing is wanted."""
        while True:
            with self._lock:
                if not self._wanted:
                    self._thread = None
                    return
                self._wanted = False
            try:
                self._fit(self._labels())
            except _Cancelled:
                self._set(state="idle", progress=0.0, message="stopped; the last head stays")
            except InputError as error:
                self._set(state="failed", progress=0.0, message=str(error))
            except Exception as error:  # a background thread has nobody above it who could tell
                logging.getLogger("keystep").exception("learning failed")
                self._set(state="failed", progress=0.0, message=one_line(f"{type(error).__name__}: {error}"))

    def _fit(self, labels: Labels) -> None:
        """One fit: read what is new, choose by cross-validation, fit, and say how good it is."""
        ids = self._ids(labels)
        steps = len(ids) + (len(self.lengths) if self._survey is None else 0) + 1
        done = 0

        def step(video: str) -> None:
            nonlocal done
            done += 1
            self._check()
            self._set(progress=done / steps)

        self._set(state="running", progress=0.0, message="reading")
        if self._survey is None:
            self._survey = VideoSurvey.make(self.lengths, self._read, self.rate, self.bands, step)
        evidence = self._gather(ids, len(labels.classes), step)
        self._known = {video: known != IGNORED for video, known in ids.items()}
        for video, spans in labels.unsure.items():
            marked = _covered(spans, self.lengths[video])
            self._known[video] = self._known.get(video, np.zeros_like(marked)) | marked
        total = add(each.sums for each in evidence.values()) if evidence else None
        if total is None or np.count_nonzero(total.counts) < 2:
            self._fitted = None
            message = self._told(too_few(evidence, labels.classes))
            self._set(state="idle", progress=1.0, accuracy=None, message=message)
            return
        found = cross_validate(evidence, self.groups)
        self._check()
        self._keep(total.solve([found.penalty])[0], found, labels, evidence)

    def _ids(self, labels: Labels) -> dict[str, Ids]:
        """Video -> (T,) class ids of what is learned from; videos without any are left out."""
        unknown = sorted({*labels.spans, *labels.unsure} - set(self.lengths))
        if unknown:
            raise InputError(f"labels of {quoted(unknown[0])}, which is none of the {len(self.lengths)} videos")
        found = {}
        for video in sorted(labels.spans):
            ids = labels_of_spans(labels.spans[video], self.lengths[video], labels.classes)
            ids[_covered(labels.unsure.get(video, ()), len(ids))] = IGNORED
            if (ids != IGNORED).any():
                found[video] = ids
        return found

    def _gather(self, ids: Mapping[str, Ids], classes: int, step: Callable[[str], None]) -> dict[str, Evidence]:
        """Video -> its evidence; only videos whose labels changed are read, and those that cannot be are left out."""
        assert self._survey is not None
        self._left_out = dict(self._survey.skipped)
        found = {}
        for video, wanted in ids.items():
            kept = self._evidence.get(video)
            if video not in self._left_out:
                try:
                    same = kept is not None and np.array_equal(kept[0], wanted)
                    found[video] = kept if kept and same else (wanted, self._evidence_of(video, wanted, classes))
                except InputError as error:
                    self._left_out[video] = f"{video}: {error}"
            step(video)
        self._evidence = found
        return {video: evidence.widened(classes) for video, (_, evidence) in found.items()}

    def _evidence_of(self, video: str, ids: Ids, classes: int) -> Evidence:
        assert self._survey is not None
        known, frames = np.flatnonzero(ids != IGNORED), self._read(video)
        parts = [as_frames(frames[known[at : at + BLOCK]]) for at in range(0, len(known), BLOCK)]
        columns = np.concatenate([self._survey.basis.apply(part) for part in parts])
        return Evidence.of(columns, ids[known], classes)

    def _keep(self, weights: Weights, found: Validation, labels: Labels, evidence: Mapping[str, Evidence]) -> None:
        """Make this the head that answers."""
        assert self._survey is not None
        basis, classes, revision = self._survey.basis, tuple(labels.classes), self._state.revision + 1
        weight = found.factor * basis.matrix @ weights.weight  # (D, C)
        bias = found.factor * weights.bias - basis.mean @ weight
        affine = Affine(torch.from_numpy(weight.T.astype(np.float32)), torch.from_numpy(bias.astype(np.float32)))
        doubt = {
            video: 1 - softmax(found.factor * weights.scores(frames), axis=1).max(axis=1)
            for video, frames in self._survey.frames.items()
        }
        self._fitted = _Fitted(linear_head(affine, names=classes, origin=self.origin), classes, doubt, revision)
        self._predictions = {}
        if found.accuracy is not None:
            slots = sum(each.sums.counts.sum() for each in evidence.values())
            self._history.add(len(evidence), float(slots) / self.rate, found.accuracy)
        self._set(
            state="idle",
            progress=1.0,
            accuracy=found.accuracy,
            message=self._told(summary(found.accuracy, evidence, classes)),
            history=self._history.entries,
            revision=revision,
        )

    def _told(self, message: str) -> str:
        """The message, with what is left out."""
        if not self._left_out:
            return message
        return f"{message}; left out: {len(self._left_out)} that cannot be read ({next(iter(self._left_out.values()))})"

    def _read(self, video: str) -> Array:
        if video not in self.lengths:
            raise InputError(f"no video {quoted(video)} among {len(self.lengths)}")
        frames = self._representation(video)
        if frames.ndim != 2 or len(frames) != self.lengths[video]:
            raise InputError(f"{video}: the representation is {frames.shape}; expected ({self.lengths[video]}, D)")
        return frames

    def _check(self) -> None:
        if self._cancel.is_set():
            raise _Cancelled

    def _set(self, **changes: object) -> None:
        stamp = max(self._state.stamp + 1, time.time_ns() // 1_000)
        self._state = replace(self._state, stamp=stamp, **changes)  # type: ignore[arg-type]
        self._changed(self._state)


def _covered(spans: Sequence[Span], slots: int) -> Array:
    """(slots,) bool, True within any of the spans."""
    found = np.zeros(slots, bool)
    for span in spans:
        found[span.start : span.stop] = True
    return found
