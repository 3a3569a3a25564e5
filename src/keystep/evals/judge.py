"""Probe one representation of a data set: fit on training videos, choose on validation videos, score test videos."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from keystep.data.annotation import IGNORED, Split
from keystep.data.clock import Clock, decorrelation_time
from keystep.data.folder import FeatureFolder
from keystep.errors import InputError
from keystep.evals.kept import KeptProbes
from keystep.evals.probe import LinearProbe, ProbeConfig, band_width, fit_probe
from keystep.evals.rows import ProbeRun
from keystep.metrics import Tally, segmentation_scores, tally_video

Representation = Mapping[str, np.ndarray]
"""Video name -> (T, D) float32 at the folder's pooled rate."""


@dataclass(frozen=True, eq=False)
class Banded:
    """A representation whose columns are named bands side by side, nearest to the frame first.

    The probe gives each band a strength of its own, so that a band which does not carry over to other persons fades
    instead of drawing it away from the bands before it.

    videos: video name -> (T, D). widths: band name -> its number of columns, in their order; together they are D.
    chosen: band name -> its strength, for all bands but the last, where they were chosen before.

    Raises:
        InputError: no band, a band without columns, or a video whose width is not their sum.
    """

    videos: Representation
    widths: Mapping[str, int]
    chosen: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wanted = band_width(self.widths)
        for name, video in self.videos.items():
            if video.ndim != 2 or video.shape[1] != wanted:
                raise InputError(f"bands {dict(self.widths)} need (T, {wanted}), but {name} has shape {video.shape}")


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
    ) -> ProbeRun:
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
        return ProbeRun(seed, scores, probe.valid_accuracy, correct, predictions, probe)

    def _fitted(
        self, representation: Representation | Banded, refine: bool
    ) -> tuple[LinearProbe, dict[str, np.ndarray]]:
        """A probe, and what it says of the test videos."""
        banded = representation if isinstance(representation, Banded) else None
        videos = representation if not isinstance(representation, Banded) else representation.videos

        def part(names: Sequence[str]) -> tuple[list[np.ndarray], list[np.ndarray]]:
            return [videos[name] for name in names], [self.labels[name] for name in names]

        probe = fit_probe(
            *part(self.split.train),
            *part(self.split.valid),
            classes=len(self.folder.classes),
            config=self.probe,
            refine=refine,
            bands=banded.widths if banded else None,
            chosen=banded.chosen if banded else None,
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

    def tallies(self, predictions: Mapping[str, np.ndarray]) -> list[Tally]:
        """What edit and F1 of each test video are made of, for the bootstrap."""
        return [
            tally_video(self.at_frames(name, predictions[name]), self.truths[name], self.background, name=name)
            for name in self.split.test
        ]
