"""Which variant is worth more seeds? Decided on validation videos; test videos are not even encoded here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from runs import Job

from keystep.config.attention import AttentionPattern
from keystep.data.clock import decorrelation_time
from keystep.data.folder import FeatureFolder
from keystep.encoding import encode_videos
from keystep.errors import InputError
from keystep.evals.candidates import RAW, Candidates
from keystep.evals.probe import ProbeConfig, fit_probe
from keystep.files import write_json
from keystep.loading import load
from keystep.pjepa import PJEPA

MODES = ("offline", "causal")
CONTROLS = ("raw features", "moving average", "offsets")
Scores = dict[str, dict[str, float]]
"""Mode -> read-out -> frame accuracy on the validation videos, percent."""
Videos = dict[str, np.ndarray]


class Screen:
    """Validation accuracies on one fold, kept in a file each, so that nothing is computed twice."""

    def __init__(self, folder: FeatureFolder, fold: str, cache: Path, probe: ProbeConfig) -> None:
        self.folder, self.cache, self.probe = folder, cache, probe
        split = folder.split(fold)
        self.train, self.valid = split.train, split.valid
        self.names = self.train + self.valid
        self.labels = {name: folder.labels(name) for name in self.names}
        self.smoothed: dict[str, Videos] = {}

    def controls(self) -> dict[str, Scores]:
        """What needs no training, the width or number of components that is best on validation."""
        raw = {name: self.folder.features(name) for name in self.names}
        rate = float(self.folder.timeline.rate)
        found: dict[str, Scores] = {name: {} for name in CONTROLS}
        train = [raw[name] for name in self.train]
        controls = Candidates(train, rate, decorrelation_time(train, rate).tau)
        for mode in MODES:
            causal = mode == "causal"
            candidates = {
                "raw features": (RAW,),
                "moving average": controls.smoothing(causal=causal),
                "offsets": controls.offsets(causal=causal),
            }
            for name, choices in candidates.items():
                videos = [{n: choice.transform(x) for n, x in raw.items()} for choice in choices]
                scores = [self._cached(f"{name}-{mode}-{i}", lambda v=v: v) for i, v in enumerate(videos)]  # type: ignore[misc]
                best = int(np.argmax(scores))
                found[name][mode] = {"alone": scores[best]}
                if name == "moving average":
                    self.smoothed[mode] = videos[best]
        return found

    def model(self, job: Job) -> Scores:
        """A trained model in each mode that it has: alone, and beside the best moving average."""
        model = load(job.folder)
        found: Scores = {}
        for mode, pattern in _patterns(model).items():
            name = f"{job.variant}-{job.seed}-{mode}"
            latents = cache(lambda pattern=pattern: dict(encode_videos(model, self.folder, self.names, pattern)))

            def beside(mode: str = mode, latents: Callable[[], Videos] = latents) -> Videos:
                return {n: np.concatenate([latents()[n], self.smoothed[mode][n]], axis=1) for n in self.names}

            found[mode] = {"alone": self._cached(name, latents), "beside": self._cached(f"{name}-beside", beside)}
        return found

    def _cached(self, name: str, videos: Callable[[], Videos]) -> float:
        """The probe's validation accuracy; computed where it is not on disk yet."""
        path = self.cache / f"{name.replace(' ', '-')}.json"
        if not path.exists():
            made = videos()
            probe = fit_probe(
                *self._part(made, self.train),
                *self._part(made, self.valid),
                classes=len(self.folder.classes),
                config=self.probe,
            )
            write_json(path, {"valid_accuracy": probe.valid_accuracy})
        return float(json.loads(path.read_text())["valid_accuracy"])

    def _part(self, videos: Videos, names: Iterable[str]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        return [videos[name] for name in names], [self.labels[name] for name in names]


def best_variant(scores: dict[str, Scores], variants: Sequence[str]) -> str:
    """The highest mean over the modes, alone; a variant that lacks a mode cannot win."""
    whole = [name for name in variants if set(scores[name]) == set(MODES)]
    if not whole:
        raise InputError(f"none of the {len(variants)} variants has both modes; name the one to judge with --confirm")
    return max(whole, key=lambda name: np.mean([scores[name][mode]["alone"] for mode in MODES]))


def _patterns(model: PJEPA) -> dict[str, AttentionPattern]:
    """The attention of each mode that the model has."""
    own, live = model.config.attention, model.config.stream_attention
    patterns = {} if own == live else {"offline": own}
    return patterns if live is None else patterns | {"causal": live}
