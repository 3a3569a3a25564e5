"""Evaluate one representation: fit a probe on training videos, select on validation videos, score on test videos."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from keystep.data.annotation import IGNORED, Split
from keystep.data.folder import FeatureFolder
from keystep.data.time_scale import TimeScale, decorrelation_time
from keystep.errors import InputError
from keystep.evals.probe import LinearProbe, ProbeConfig, band_width, fit_probe
from keystep.evals.probe_cache import ProbeCache
from keystep.evals.representation import Listed, Representation
from keystep.evals.rows import ProbeRun
from keystep.metrics import Tally, segmentation_scores, tally_video


@dataclass(frozen=True, eq=False)
class Banded:
    """A representation whose columns are consecutive named bands, nearest to the frame first.

    The probe learns one strength for each band, so that a band that does not generalise to other persons can be
    suppressed.

    Args:
        videos: video name -> (T, D).
        widths: band name -> number of columns, in column order. They add up to D.
        chosen: band name -> strength of all bands except the last, if already selected.

    Raises:
        InputError: no band, an empty band, or videos of another width, of which only the first is computed here.
    """

    videos: Representation
    widths: Mapping[str, int]
    chosen: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wanted = band_width(self.widths)
        name, video = next(iter(self.videos.items()))
        if video.ndim != 2 or video.shape[1] != wanted:
            raise InputError(f"{name} has shape {video.shape}; bands {dict(self.widths)} need (T, {wanted})")


@dataclass(frozen=True)
class Judge:
    """The fixed part of an evaluation: data, split, probe and metrics."""

    folder: FeatureFolder
    split: Split
    probe: ProbeConfig
    background: tuple[int, ...] = ()
    protocol: str = "pooled"
    label_share: float = 1.0
    """Share of the training and validation videos that keep their labels."""
    unlabelled: tuple[str, ...] = ()
    """Training videos without labels. Probes do not use them, but methods without labels may."""
    label_seed: int = 0
    """Selects which videos keep their labels."""
    kept: ProbeCache = field(default_factory=ProbeCache)
    """Cache of fitted probes."""
    groups: Mapping[str, str] | None = None
    """Test video -> group (person or site), the unit of the bootstrap; None: each video is its own group."""
    tau: float | None = None
    """Decorrelation time of the features in seconds, if given."""

    @cached_property
    def videos(self) -> tuple[str, ...]:
        """All videos of the split."""
        return self.split.train + self.split.valid + self.split.test

    @property
    def pretraining(self) -> tuple[str, ...]:
        """All training videos, with and without labels."""
        return self.split.train + self.unlabelled

    @cached_property
    def time_scale(self) -> TimeScale:
        """The decorrelation time: as given, or measured on all training videos."""
        if self.tau is not None:
            return TimeScale(self.tau, self.tau, self.tau)
        return decorrelation_time(self.folder.every_vector(self.pretraining), self.folder.timeline.rate)

    @cached_property
    def labels(self) -> dict[str, np.ndarray]:
        """Training and validation video -> (T,) class ids at the pooled rate."""
        return {name: self.folder.labels(name) for name in self.split.train + self.split.valid}

    @cached_property
    def truths(self) -> dict[str, np.ndarray]:
        """Test video -> (T,) class ids at the rate of the labels, at which scores are computed."""
        return {name: self.folder.frame_labels(name) for name in self.split.test}

    @cached_property
    def frames(self) -> np.ndarray:
        """(videos,) number of labelled frames of the test videos."""
        return np.array([(self.truths[name] != IGNORED).sum() for name in self.split.test])

    def by_group(self, counts: np.ndarray) -> np.ndarray:
        """Sum counts over groups, if there are any: (..., videos) -> (..., groups)."""
        if self.groups is None:
            return counts
        names = [self.groups.get(video, video) for video in self.split.test]
        order = list(dict.fromkeys(names))
        return np.stack([counts[..., [name == one for name in names]].sum(-1) for one in order], axis=-1)

    @cached_property
    def description(self) -> dict[str, Any]:
        """Everything except the representation that a fitted probe depends on, as a cache key."""
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
    ) -> ProbeRun:
        """Fit, select and score a probe.

        Args:
            representation: with or without bands, or a function that computes it, which is called only if the probe is
                not cached.
            seed: recorded in the run.
            refine: as in `fit_probe`.
            key: identifies the representation among all others of the same data. None: the probe is not cached.
        """
        description = {**self.description, "refine": refine, "representation": key} if key is not None else None
        found = None if description is None else self.kept.find(description)
        if found is None:
            made = representation() if callable(representation) else representation
            found = self._fit(made, refine)
            if description is not None:
                self.kept.keep(description, *found)
        probe, predictions = found
        scores, correct = self.score(predictions)
        return ProbeRun(seed, scores, probe.valid_accuracy, correct, predictions, probe)

    def _fit(self, representation: Representation | Banded, refine: bool) -> tuple[LinearProbe, dict[str, np.ndarray]]:
        """A fitted probe and its predictions for the test videos."""
        banded = representation if isinstance(representation, Banded) else None
        videos = representation if not isinstance(representation, Banded) else representation.videos

        def part(names: Sequence[str]) -> tuple[Listed, list[np.ndarray]]:
            return Listed(videos, names), [self.labels[name] for name in names]

        probe = fit_probe(
            *part(self.split.train),
            *part(self.split.valid),
            classes=len(self.folder.classes),
            config=self.probe,
            refine=refine,
            bands=banded.widths if banded else None,
            chosen=banded.chosen if banded else None,
        )
        return probe, {name: probe.predict(videos[name]).astype(np.int32) for name in self.split.test}

    def score(self, predictions: Mapping[str, np.ndarray]) -> tuple[dict[str, float], np.ndarray]:
        """Score predictions at the pooled rate.

        Args:
            predictions: test video -> (T,) class ids.

        Returns:
            The metrics (0-100), and the number of correct frames of each test video, (videos,).
        """
        at_frames = [self.at_frames(name, predictions[name]) for name in self.split.test]
        truths = [self.truths[name] for name in self.split.test]
        scores = segmentation_scores(at_frames, truths, background=self.background, protocol=self.protocol)
        return scores, np.array([(a == b).sum() for a, b in zip(at_frames, truths, strict=True)])

    def at_frames(self, name: str, predictions: np.ndarray) -> np.ndarray:
        """Repeat each prediction for the frames that its slot was pooled from."""
        return np.repeat(predictions, self.folder.pool)[: len(self.truths[name])]

    def tallies(self, predictions: Mapping[str, np.ndarray]) -> list[Tally]:
        """Edit and F1 counts of each test video, for the bootstrap."""
        return [
            tally_video(self.at_frames(name, predictions[name]), self.truths[name], self.background, name=name)
            for name in self.split.test
        ]
