"""A segmenter from training videos, and a segmenter from its file. Labels are not used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from keystep.boundaries.config import SegmenterConfig, slots
from keystep.boundaries.segmenter import Segmenter, local_peaks
from keystep.boundaries.sources import Features, Latents, Source, Surprise, all_rows
from keystep.config.base import build
from keystep.data.discovered import damaged, read_record
from keystep.data.folder import FeatureFolder
from keystep.errors import InputError
from keystep.pjepa import PJEPA

Tick = Callable[[str], None]


def fit(
    folder: FeatureFolder,
    videos: Sequence[str],
    config: SegmenterConfig,
    model: PJEPA | None = None,
    *,
    clusters: int | None = None,
    progress: Tick = lambda video: None,
) -> Segmenter:
    """Measure what is usual on the videos, then choose the threshold from the heights of the local peaks there.

    Most sources read each video twice. ``clusters``: the model predicts logits of so many, see `Surprise`.

    Raises:
        InputError: a source that needs a model and has none, or another model than it needs; no peak to learn from.
    """
    rate = folder.timeline.rate
    source = make_source(config, rate, folder.width, model, clusters)
    spread = _Spread(slots(config.span, rate) if config.source == "surprise" else None)
    kept: dict[str, np.ndarray] = {}
    for name in videos:
        rows = all_rows(source, folder.features(name))
        spread.add(rows)
        if config.source == "surprise":  # slow to get, and small
            kept[name] = rows
        progress(name)
    rough = Segmenter(config, rate, source, spread.scale(), 0.0)
    heights, frames = [], 0
    for name in videos:
        rows = kept[name] if name in kept else all_rows(source, folder.features(name))
        scores = rough.scores(rows)
        heights.append(scores[local_peaks(scores, rough.shortest - 1)])
        frames += folder.length(name)
        progress(name)
    threshold = choose_threshold(np.concatenate(heights), float(frames / rate / 60), config)
    return Segmenter(config, rate, source, rough.scale, threshold)


def choose_threshold(heights: np.ndarray, minutes: float, config: SegmenterConfig) -> float:
    """What divides the peaks that are boundaries, all above a quantile or so many a minute, from the others.

    It lies midway between the lowest of the ones and the highest of the others (zero where there are none), so that
    float noise moves none of them across.
    """
    if not len(heights):
        raise InputError(f"no video is longer than two windows of {config.window:g} s; make window smaller")
    if config.per_minute is None:
        lowest = float(np.quantile(heights, config.quantile, method="higher"))
    else:
        wanted = max(1, round(config.per_minute * minutes))
        lowest = float(np.sort(heights)[::-1][min(wanted, len(heights)) - 1])
    lower = heights[heights < lowest]
    return (lowest + (float(lower.max()) if len(lower) else min(0.0, 2 * lowest))) / 2


def make_source(
    config: SegmenterConfig, rate: Fraction, width: int, model: PJEPA | None, clusters: int | None
) -> Source:
    """What the settings name, for features ``width`` wide."""
    if config.source == "features":
        return Features(width)
    if model is None:
        raise InputError(f"source {config.source!r} needs a model")
    if model.config.input_dim != width:
        raise InputError(f"features are {width} wide; the model reads {model.config.input_dim}")
    if config.source == "latents":
        return Latents(model)
    return Surprise(model, slots(config.span, rate), slots(config.context, rate), clusters)


def to_record(segmenter: Segmenter) -> dict[str, Any]:
    """What `from_record` needs to make the same segmenter again, and what people want to know."""
    source = segmenter.source
    return {
        "settings": segmenter.config.model_dump(mode="json"),
        "rate": str(segmenter.rate),
        "look_ahead_slots": segmenter.look_ahead,
        "look_ahead_seconds": float(segmenter.look_ahead / segmenter.rate),
        "threshold": segmenter.threshold,
        "scale": segmenter.scale.tolist(),
        "width": source.width if isinstance(source, Features) else None,
        "clusters": source.clusters if isinstance(source, Surprise) else None,
    }


def load(path: Path | str, model: PJEPA | None = None) -> Segmenter:
    """The segmenter in a ``segmenter.json``; ``model``: the one it was fitted with, where it needs one.

    Raises:
        InputError: no such file, a damaged one, or a model that is missing or does not fit.
    """
    path = Path(path)
    record = read_record(path)
    try:
        config = build(SegmenterConfig, record.settings)
    except InputError as error:
        raise damaged(path, f"settings: {error}") from error
    if config.source == "surprise" and "clusters" not in record.model_fields_set:
        raise damaged(path, "surprise without clusters")  # earlier versions compared logits of all offsets as one
    if config.source == "features" and record.width is None:
        raise damaged(path, "features without a width")
    width = record.width if model is None or config.source == "features" else model.config.input_dim
    source = make_source(config, record.rate, width or 0, model, record.clusters)
    if len(record.scale) != source.divisors:
        raise damaged(path, f"scale: {len(record.scale)} numbers instead of {source.divisors}")
    return Segmenter(config, record.rate, source, np.array(record.scale), record.threshold)


class _Spread:
    """The deviation of each channel within videos; with ``span``, the mean at each place in a span instead."""

    def __init__(self, span: int | None) -> None:
        self.span = span
        self.sums: np.ndarray | float = 0.0
        self.counts: np.ndarray | float = 0.0

    def add(self, rows: np.ndarray) -> None:
        """Count (T, D) rows of a video."""
        rows = rows.astype(np.float64)
        if self.span is None:
            self.sums = self.sums + np.square(rows - rows.mean(0)).sum(0)
            self.counts = self.counts + float(len(rows))
        else:
            place = np.arange(len(rows)) % self.span
            self.sums = self.sums + np.bincount(place, rows[:, 0], self.span)
            self.counts = self.counts + np.bincount(place, minlength=self.span)

    def scale(self) -> np.ndarray:
        """(D,) or (span,); 1 where nothing ever moves."""
        mean = self.sums / np.maximum(self.counts, 1)
        usual = np.sqrt(mean) if self.span is None else mean
        scale: np.ndarray = np.where(usual > 1e-9, usual, 1.0)
        return scale
