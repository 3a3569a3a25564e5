"""Labelled stretches of a video in whole slots, and the labels of its slots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from keystep.data.annotation import IGNORED, segment_lengths
from keystep.errors import InputError, quoted


@dataclass(frozen=True, order=True)
class Span:
    """Slots ``start`` to ``stop`` (exclusive) with one label, the name of a class."""

    start: int
    stop: int
    label: str


def spans_of(labels: np.ndarray, classes: Sequence[str]) -> list[Span]:
    """Return the maximal runs of one class; slots without a label belong to none.

    Args:
        labels: (T,) class ids, `IGNORED` where unlabelled.
        classes: names by class id.
    """
    lengths = segment_lengths(labels)
    starts = np.cumsum([0, *lengths])[:-1].tolist()
    runs = zip(starts, lengths, strict=True)
    return [Span(a, a + n, classes[labels[a]]) for a, n in runs if labels[a] != IGNORED]


def labels_of_spans(spans: Iterable[Span], slots: int, classes: Sequence[str]) -> np.ndarray:
    """Return (slots,) int64 class ids, `IGNORED` where no span is.

    Raises:
        InputError: an empty span or one that leaves the video, spans that overlap, or a label that is no class.
    """
    ordered, ids = sorted(spans), {name: index for index, name in enumerate(classes)}
    for span in ordered:
        if not 0 <= span.start < span.stop <= slots:
            raise InputError(f"{quoted(span.label)} spans slots {span.start} to {span.stop} of a video of {slots}")
        if span.label not in ids:
            raise InputError(f"no class {quoted(span.label)}; the classes are {', '.join(classes) or 'none yet'}")
    for before, after in pairwise(ordered):
        if after.start < before.stop:
            raise InputError(
                f"{quoted(before.label)} ({before.start} to {before.stop}) and {quoted(after.label)} ({after.start} to "
                f"{after.stop}) overlap; every slot has one label"
            )
    labels = np.full(slots, IGNORED, np.int64)
    for span in ordered:
        labels[span.start : span.stop] = ids[span.label]
    return labels
