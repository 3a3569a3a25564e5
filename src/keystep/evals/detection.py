"""Measures of frame scores against annotated mistakes: AUC, average precision and EDA, by video for intervals.

AUC is the area under the receiver operating characteristic, pooled over all frames (EgoPER's micro AUC and
CaptainCook4D's sub-step level) or over segments, whose score is the mean of their frames (CaptainCook4D's step level).
Average precision is the sum of precisions, weighted by the increase in recall. EDA is the error detection accuracy of
EgoPER (Lee et al., CVPR 2024; their ``metric_vis.py``): a true segment counts as detected if *any* of its frames is
above a threshold; EDA is the share of segments, with and without a mistake, that are judged rightly, averaged over the
thresholds -2.0 to 2.0 standard deviations in steps of 0.1. A segment is a run of one label; one of which more than half
of the frames are part of a mistake is one with a mistake.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from keystep.data.annotation import segment_lengths
from keystep.errors import InputError

Floats = npt.NDArray[np.float64]

BINS = 2000
"""Scores are replaced by this number of ranks, so that resampling videos needs histograms only."""
THRESHOLDS = np.arange(-20, 21) / 10
"""Of EDA, in standard deviations."""
MEASURES = ("AUC", "AP", "segment AUC", "segment AP", "EDA")


@dataclass(frozen=True)
class Truth:
    """What is known about a test video.

    Attributes:
        mistaken: (T,) bool, True in mistakes.
        segments: lengths of the true segments.
    """

    mistaken: np.ndarray
    segments: tuple[int, ...]

    @classmethod
    def of(cls, labels: np.ndarray, mistaken: np.ndarray) -> Truth:
        """The truth from (T,) class ids and (T,) bool; segments also end where a mistake begins or ends."""
        return cls(mistaken, tuple(segment_lengths(2 * labels + mistaken)))

    def by_segment(self, values: np.ndarray) -> list[np.ndarray]:
        """(T,) values, split into segments."""
        return np.split(values, np.cumsum(self.segments)[:-1])


@dataclass(frozen=True, eq=False)
class Ranking:
    """Histograms of ranked scores by video.

    Attributes:
        right: (videos, bins) number of items without a mistake, by ascending score.
        wrong: (videos, bins) number of items with one.
    """

    right: Floats
    wrong: Floats

    @classmethod
    def of(cls, scores: Sequence[np.ndarray], wrong: Sequence[np.ndarray]) -> Ranking:
        """Rank (n_i,) scores of all videos together; wrong: (n_i,) bool for each video."""
        values = np.unique(np.concatenate(scores))
        edges = values if len(values) <= BINS else np.quantile(values, np.linspace(0, 1, BINS))
        histograms = np.zeros((2, len(scores), len(edges)))
        for video, (own, flags) in enumerate(zip(scores, wrong, strict=True)):
            places = np.minimum(np.searchsorted(edges, own), len(edges) - 1)
            np.add.at(histograms[0, video], places[~flags], 1)
            np.add.at(histograms[1, video], places[flags], 1)
        return cls(histograms[0], histograms[1])

    def auc(self, draws: Floats) -> Floats:
        """(n,) AUC, 0-100, if each video occurs as often as ``draws`` (n, videos) says; 50 if one kind is missing."""
        right, wrong = draws @ self.right, draws @ self.wrong
        below = np.cumsum(right, axis=1) - right / 2  # ties count half
        total = right.sum(1) * wrong.sum(1)
        area = np.divide((wrong * below).sum(1), total, out=np.full(len(draws), 0.5), where=total > 0)
        return np.asarray(100 * area)

    def average_precision(self, draws: Floats) -> Floats:
        """(n,) average precision, 0-100; see `auc`. 0 without mistakes."""
        wrong = (draws @ self.wrong)[:, ::-1]
        found, flagged = np.cumsum(wrong, axis=1), np.cumsum((draws @ (self.right + self.wrong))[:, ::-1], axis=1)
        precision = np.divide(found, flagged, out=np.zeros_like(found), where=flagged > 0)
        total = wrong.sum(1)
        area = np.divide((wrong * precision).sum(1), total, out=np.zeros(len(draws)), where=total > 0)
        return np.asarray(100 * area)


@dataclass(frozen=True, eq=False)
class Detection:
    """The measures of one run of a method, for any draw of videos.

    Attributes:
        frames, segments: rankings.
        judged: (videos, thresholds) number of rightly judged segments.
        counts: (videos,) number of segments.
    """

    frames: Ranking
    segments: Ranking
    judged: Floats
    counts: Floats

    @classmethod
    def of(cls, scores: Mapping[str, np.ndarray], truths: Mapping[str, Truth]) -> Detection:
        """Compare scores with the truth.

        Args:
            scores: video -> (T,) in standard deviations; higher: more surprising.
            truths: test video -> its truth.

        Raises:
            InputError: another number of scores than frames, NaN, or no video with a mistake or none without.
        """
        for video, truth in truths.items():
            if len(scores[video]) != len(truth.mistaken) or not np.isfinite(scores[video]).all():
                raise InputError(f"{video}: {len(scores[video])} scores for {len(truth.mistaken)} frames, or NaN")
        flags = [truth.mistaken for truth in truths.values()]
        if not any(map(np.any, flags)) or all(map(np.all, flags)):
            raise InputError(f"{len(flags)} test videos: mistakes in none of their frames, or in all; both are needed")
        parts = [truth.by_segment(scores[video]) for video, truth in truths.items()]
        wrong = [np.array([own.mean() > 0.5 for own in truth.by_segment(truth.mistaken)]) for truth in truths.values()]
        peaks = [np.array([own.max() for own in video]) for video in parts]
        judged = [
            ((peak[:, None] > THRESHOLDS) == is_wrong[:, None]).sum(0)
            for peak, is_wrong in zip(peaks, wrong, strict=True)
        ]
        return cls(
            Ranking.of([scores[video] for video in truths], flags),
            Ranking.of([np.array([own.mean() for own in video]) for video in parts], wrong),
            np.array(judged, dtype=np.float64),
            np.array([len(video) for video in parts], dtype=np.float64),
        )

    def measures(self, draws: Floats | None = None) -> dict[str, Floats]:
        """Measure -> (n,) values, 0-100, for (n, videos) draws; None: every video once."""
        draws = np.ones((1, len(self.counts))) if draws is None else draws
        shares = (draws @ self.judged) / np.maximum(draws @ self.counts, 1)[:, None]
        values = (
            self.frames.auc(draws),
            self.frames.average_precision(draws),
            self.segments.auc(draws),
            self.segments.average_precision(draws),
            100 * shares.mean(1),
        )
        return dict(zip(MEASURES, values, strict=True))
