"""Probe one representation of a data set: fit on training videos, choose on validation videos, score test videos."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from keystep.data.annotation import IGNORED, Split
from keystep.data.clock import Clock, decorrelation_time
from keystep.data.folder import FeatureFolder
from keystep.errors import InputError
from keystep.evals.controls import Position
from keystep.evals.kept import KeptProbes
from keystep.evals.probe import LinearProbe, ProbeConfig, band_width, fit_probe
from keystep.metrics import segmentation_scores

Representation = Mapping[str, np.ndarray]
"""Video name -> (T, D) float32 at the folder's pooled rate."""

Family = Literal["raw", "control", "untrained", "reconstruction", "learned", "oracle"]
Mode = Literal["offline", "causal"]
Beside = Literal["", "smoothing", "control"]
"""What a model's latents are concatenated with: nothing, the best moving average, or the best control."""


@dataclass(frozen=True, eq=False)
class Banded:
    """A representation whose columns are named bands side by side, nearest to the frame first.

    The probe gives each band a strength of its own, so that a band which does not carry over to other persons fades
    instead of drawing it away from the bands before it.

    videos: video name -> (T, D). widths: band name -> its number of columns, in their order; together they are D.

    Raises:
        InputError: no band, a band without columns, or a video whose width is not their sum.
    """

    videos: Representation
    widths: Mapping[str, int]

    def __post_init__(self) -> None:
        wanted = band_width(self.widths)
        for name, video in self.videos.items():
            if video.ndim != 2 or video.shape[1] != wanted:
                raise InputError(f"bands {dict(self.widths)} need (T, {wanted}), but {name} has shape {video.shape}")


@dataclass(frozen=True)
class Run:
    """One probe on one representation.

    scores: the metrics on the test videos, 0-100.
    correct: (videos,) right frames of each test video, for the bootstrap.
    predictions: test video -> (T,) class ids at the pooled rate.
    probe: the head that was chosen.
    """

    seed: int
    scores: dict[str, float]
    valid_accuracy: float
    penalty: float
    correct: np.ndarray
    predictions: dict[str, np.ndarray]
    probe: LinearProbe


@dataclass
class Row:
    """One line of the table: a representation, and its runs over seeds."""

    name: str
    family: Family
    mode: Mode
    position: Position = "none"
    """What it can know of a frame's place in the video: nothing, the time since the start, or also the time left."""
    delay: float | None = None
    """Seconds after a frame before its representation is final; None: when the video is over."""
    detail: str = ""
    width: int = 0
    beside: Beside = ""
    runs: list[Run] = field(default_factory=list)

    @property
    def correct(self) -> np.ndarray:
        """(seeds, videos) right frames of the test videos."""
        return np.stack([run.correct for run in self.runs])

    @property
    def valid_accuracy(self) -> float:
        """Mean over seeds; the only accuracy that may choose between rows."""
        return float(np.mean([run.valid_accuracy for run in self.runs]))

    def mean(self, metric: str) -> float:
        """Mean of a test metric over seeds."""
        return float(np.mean([run.scores[metric] for run in self.runs]))

    def spread(self, metric: str) -> float | None:
        """Standard deviation of a test metric over seeds; None for a single run."""
        return float(np.std([run.scores[metric] for run in self.runs], ddof=1)) if len(self.runs) > 1 else None

    def to_json(self) -> dict[str, Any]:
        """The row for the result file."""
        return {
            "name": self.name,
            "family": self.family,
            "mode": self.mode,
            "position": self.position,
            "oracle": self.family == "oracle" or "ORACLE" in self.name,
            "delay": self.delay,
            "detail": self.detail,
            "width": self.width,
            "beside": self.beside,
            "mean": {metric: self.mean(metric) for metric in self.runs[0].scores},
            "spread": {metric: self.spread(metric) for metric in self.runs[0].scores},
            "runs": [
                {
                    "seed": run.seed,
                    "scores": run.scores,
                    "valid_accuracy": run.valid_accuracy,
                    "penalty": run.penalty,
                    "penalty_at_edge": run.probe.at_edge,
                    "strengths": dict(run.probe.strengths),
                    "correct": [int(count) for count in run.correct],
                }
                for run in self.runs
            ],
        }


@dataclass(frozen=True)
class Judge:
    """The fixed part of an evaluation: data, split, probe and metrics."""

    folder: FeatureFolder
    split: Split
    probe: ProbeConfig
    background: tuple[int, ...] = ()
    protocol: str = "pooled"
    label_share: float = 1.0
    """Share of the training and validation videos that the split's parts were cut down to."""
    unlabelled: tuple[str, ...] = ()
    """Training videos that were cut off: no probe sees them, but what needs no labels may."""
    label_seed: int = 0
    """Which videos the share kept."""
    kept: KeptProbes = field(default_factory=KeptProbes)
    """Where finished probes are kept and found again."""
    groups: Mapping[str, str] | None = None
    """Test video -> the group (person, site) that the bootstrap draws as one; None: each video is its own."""
    tau: float | None = None
    """Seconds after which the features are half forgotten, if that was stated."""

    @cached_property
    def videos(self) -> tuple[str, ...]:
        """All videos of the split."""
        return self.split.train + self.split.valid + self.split.test

    @property
    def pretraining(self) -> tuple[str, ...]:
        """All training videos, with or without labels."""
        return self.split.train + self.unlabelled

    @cached_property
    def clock(self) -> Clock:
        """The decorrelation time of the training videos, with or without labels; or what was stated."""
        if self.tau is not None:
            return Clock(self.tau, self.tau, self.tau)
        videos = [self.folder.vectors(name) for name in self.pretraining]
        return decorrelation_time(videos, self.folder.timeline.rate)

    @cached_property
    def labels(self) -> dict[str, np.ndarray]:
        """Class ids of the training and validation videos, at the pooled rate."""
        return {name: self.folder.labels(name) for name in self.split.train + self.split.valid}

    @cached_property
    def truths(self) -> dict[str, np.ndarray]:
        """Class ids of the test videos at the labels' own rate, at which scores are computed."""
        return {name: self.folder.frame_labels(name) for name in self.split.test}

    @cached_property
    def frames(self) -> np.ndarray:
        """(videos,) labelled frames of the test videos."""
        return np.array([(self.truths[name] != IGNORED).sum() for name in self.split.test])

    def by_group(self, counts: np.ndarray) -> np.ndarray:
        """(..., videos) counts of the test videos summed over groups, (..., groups); as they are without groups."""
        if self.groups is None:
            return counts
        names = [self.groups.get(video, video) for video in self.split.test]
        order = list(dict.fromkeys(names))
        return np.stack([counts[..., [name == one for name in names]].sum(-1) for one in order], axis=-1)

    @cached_property
    def description(self) -> dict[str, Any]:
        """What a kept probe hangs on beside its representation."""
        parts = {part: list(getattr(self.split, part)) for part in ("train", "valid", "test")}
        return {
            "data": self.folder.fingerprint(),
            "rate": str(self.folder.timeline.rate),
            "pretraining": list(self.pretraining),
            "probe": self.probe.model_dump(mode="json"),
            **parts,
        }

    def run(
        self,
        representation: Representation | Banded | Callable[[], Representation | Banded],
        seed: int = 0,
        refine: bool = True,
        key: str | None = None,
    ) -> Run:
        """Fit, choose, score.

        Args:
            representation: in bands or not, or a function that makes it, which is called only where no kept probe is
                found.
            refine: as for `fit_probe`.
            key: what tells this representation and its bands from all others of the same data; without it nothing is
                kept.
        """
        description = {**self.description, "refine": refine, "representation": key} if key is not None else None
        found = None if description is None else self.kept.find(description)
        if found is None:
            made = representation() if callable(representation) else representation
            found = self._fitted(made, refine)
            if description is not None:
                self.kept.keep(description, *found)
        probe, predictions = found
        scores, correct = self.score(predictions)
        return Run(seed, scores, probe.valid_accuracy, probe.penalty, correct, predictions, probe)

    def _fitted(
        self, representation: Representation | Banded, refine: bool
    ) -> tuple[LinearProbe, dict[str, np.ndarray]]:
        """A probe, and what it says of the test videos."""
        videos: Representation
        bands: Mapping[str, int] | None
        if isinstance(representation, Banded):
            videos, bands = representation.videos, representation.widths
        else:
            videos, bands = representation, None

        def part(names: Sequence[str]) -> tuple[list[np.ndarray], list[np.ndarray]]:
            return [videos[name] for name in names], [self.labels[name] for name in names]

        probe = fit_probe(
            *part(self.split.train),
            *part(self.split.valid),
            classes=len(self.folder.classes),
            config=self.probe,
            refine=refine,
            bands=bands,
        )
        return probe, {name: probe.predict(videos[name]) for name in self.split.test}

    def score(self, predictions: Mapping[str, np.ndarray]) -> tuple[dict[str, float], np.ndarray]:
        """The metrics (0-100) of class ids at the pooled rate, and the right frames of each test video, (videos,)."""
        at_frames = [self.at_frames(name, predictions[name]) for name in self.split.test]
        truths = [self.truths[name] for name in self.split.test]
        scores = segmentation_scores(at_frames, truths, background=self.background, protocol=self.protocol)
        return scores, np.array([(a == b).sum() for a, b in zip(at_frames, truths, strict=True)])

    def at_frames(self, name: str, predictions: np.ndarray) -> np.ndarray:
        """Each prediction held for the frames that its slot was pooled from."""
        return np.repeat(predictions, self.folder.pool)[: len(self.truths[name])]
