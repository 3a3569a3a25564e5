"""What pooling many tokens a slot is worth, with and without labels, where one moving token carries the step.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/pooling.py --seeds 3

Made-up videos (`keystep.data.synthetic`) are seen through a grid of tokens: one of them shows the procedure, now here,
now there; the others show clutter of the same size. ``noise`` clutter is new in every frame; ``scenery`` stays for
seconds, so it can be predicted as well as the procedure can.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from keystep import PJEPA
from keystep.batch import SequenceBatch
from keystep.config import RunConfig, TargetConfig
from keystep.config.attention import AttentionPattern
from keystep.config.base import build
from keystep.data.folder import FeatureFolder, open_dataset
from keystep.data.statistics import Statistics, measure
from keystep.data.store import FeatureStore
from keystep.data.synthetic import SyntheticConfig, World, class_names, make_video, make_world, video_name
from keystep.data.timeline import Timeline
from keystep.encoding import encode_videos
from keystep.evals.probe import fit_probe
from keystep.extraction.action_pool import ActionPoolConfig, fit_action_pool
from keystep.files import write_lines
from keystep.nn.encoder import Encoder
from keystep.nn.pooling import mean_token
from keystep.target import FeatureTarget, Target, around, feature_width
from keystep.train import setup
from keystep.train.run import pretrain
from measure import parser

TOKENS = 8
STAYS_SECONDS = 2.0
"""Mean time that the procedure is seen in one token before it moves to another; so long scenery stays, too."""
HANDS = 1.5
"""Twice the size a channel, beside looks of about 1, of what all frames of the token with the procedure share."""
SCENES = 12
WORLD = {
    "train_videos": 24,
    "valid_videos": 6,
    "test_videos": 10,
    "min_frames": 300,
    "max_frames": 600,
    "noise_strength": 0.5,
    "white_strength": 0.3,
}
QUICK = {
    "model": {"dim": 64, "heads": 4, "depth": 2, "predictor_depth": 1},
    "train": {"steps": 400, "crop": 256, "batch_size": 4, "learning_rate": 2e-3, "accelerator": "cpu"},
}
ACTION_POOL = ActionPoolConfig(steps=600, learning_rate=1e-3)
Frames = dict[str, np.ndarray]
"""(T, D) of each video."""


def token_videos(folder: Path, clutter: str, seed: int) -> FeatureFolder:
    """A feature folder of (T, TOKENS x 64) slots with labels and split 1, and the same with the right token alone."""
    config = SyntheticConfig(seed=seed, **WORLD)
    world = make_world(config)
    store = FeatureStore(
        folder, Timeline(rate=Fraction(4)), provenance={"tokens": TOKENS, "generator": Path(__file__).name}
    ).create()
    write_lines(folder / "mapping.txt", [f"{i} {name}" for i, name in enumerate(class_names(config))])
    for part, videos in config.splits.items():
        write_lines(folder / "splits" / f"{part}.split1.bundle", [f"{video_name(i)}.txt" for i in videos])
        for index in videos:
            features, labels = make_video(config, index, world)
            tokens = with_clutter(features, clutter, world, np.random.default_rng((seed, 7, index)))
            store.add(video_name(index), tokens.reshape(len(tokens), -1), labels=labels)
    store.finish()
    return open_dataset(folder)


def with_clutter(features: np.ndarray, clutter: str, world: World, rng: np.random.Generator) -> np.ndarray:
    """(T, D) -> (T, TOKENS, D) float32: the features in one token, clutter of their size in the others."""
    frames, width = features.shape
    hands = HANDS * np.random.default_rng(0).normal(size=width) / 2
    tokens = rng.normal(size=(frames, TOKENS, width)) * features.std()
    if clutter == "scenery":
        looks = np.random.default_rng(1).normal(size=(SCENES, world.mixing.shape[0])) @ world.mixing
        scenes = np.stack([looks[changing(frames, SCENES, rng)] for _ in range(TOKENS)], axis=1)
        spread = np.sqrt(max(features.var() - scenes.var(), 0.1))
        tokens = scenes + spread * rng.normal(size=scenes.shape)
    tokens[np.arange(frames), changing(frames, TOKENS, rng)] = features + hands
    return tokens.astype(np.float32)


def changing(frames: int, choices: int, rng: np.random.Generator) -> np.ndarray:
    """(T,) choices that stay for `STAYS_SECONDS` at 4 Hz on average."""
    moves = rng.random(frames) < 1 / (4 * STAYS_SECONDS)
    drawn = rng.integers(choices, size=frames)
    last = np.maximum.accumulate(np.where(moves, np.arange(frames), 0))
    return drawn[last]


class MeanTokenTarget(Target):
    """The rejected alternative: the mean of a slot's tokens as what has to be predicted, not all of them."""

    def __init__(self, measured: Statistics, config: TargetConfig) -> None:
        super().__init__()
        self.target = FeatureTarget(measured, True, config.smooth, config.components)

    def forward(self, batch: SequenceBatch, pattern: AttentionPattern) -> Tensor:
        """(B, T, components)"""
        out: Tensor = self.target(batch.with_features(mean_token(batch.features, self.target.norm.width)), pattern)
        return out


class Study:
    """One world, one kind of clutter: everything is judged by the same frame-wise linear probe on test videos."""

    def __init__(self, folder: Path, clutter: str, seed: int) -> None:
        self.root, self.seed = folder, seed
        self.tokens = token_videos(folder / "tokens", clutter, seed)
        self.split = self.tokens.split("1")

    def read(self, change: Callable[[np.ndarray], np.ndarray]) -> Frames:
        """Something of each video's tokens (T, TOKENS, D)."""
        return {
            name: change(self.tokens.features(name).reshape(self.tokens.length(name), TOKENS, -1))
            for name in self.tokens.videos
        }

    def probe(self, frames: Frames) -> float:
        """Frame accuracy (0-100)."""
        labels = {name: self.tokens.labels(name) for name in frames}
        parts = [
            [part[name] for name in videos]
            for videos in (self.split.train, self.split.valid)
            for part in (frames, labels)
        ]
        head = fit_probe(
            *parts,
            classes=len(self.tokens.classes),
        )
        right = np.concatenate([head.predict(frames[name]) == labels[name] for name in self.split.test])
        return 100 * float(right.mean())

    def written(self, name: str, frames: Frames) -> FeatureFolder:
        """One vector a slot as a folder to train on."""
        store = FeatureStore(self.root / name, self.tokens.source).create()
        for video, rows in frames.items():
            store.add(video, rows)
        store.copy_annotation(self.tokens)
        store.finish()
        return open_dataset(self.root / name)

    def pretrain(self, folder: FeatureFolder, name: str, **target: Any) -> PJEPA:
        """A P-JEPA of these features, without labels."""
        layers = {"data": {"root": folder.root, "split": "1"}, "train": {"seed": self.seed}, "target": target}
        return pretrain(build(RunConfig, QUICK, layers), self.root / "runs" / name)

    def rows(self) -> Iterator[tuple[str, float]]:
        """Name and accuracy of each representation."""
        mean = self.read(lambda tokens: tokens.mean(1))
        yield "mean of the tokens", self.probe(mean)
        yield "the right token alone (ORACLE)", self.probe(self.right_token())
        action = fit_action_pool(self.tokens, self.split, ACTION_POOL).pooler
        pooled = {name: action.pool(self.tokens.features(name)) for name in self.tokens.videos}
        yield "action-pool (LABELS)", self.probe(pooled)
        fed = {"mean": self.written("mean", mean), "action-pool": self.written("action-pool", pooled)}
        for smooth in (1, 5):
            after = f"smooth {smooth}"
            for name, folder in fed.items():
                model = self.pretrain(folder, f"{name} {after}", smooth=smooth)
                yield (
                    f"P-JEPA of {name}, {after}: latents",
                    self.probe(dict(encode_videos(model, folder, [*folder.videos]))),
                )
            for what in ("all tokens", "mean token"):
                with target_of(what, fed["mean"], self.split.train):
                    model = self.pretrain(self.tokens, f"{what} {after}", smooth=smooth)
                name = f"P-JEPA of tokens, target {what}, {after}"
                yield f"{name}: pooled", self.probe(self.pooled(model))
                latents = dict(encode_videos(model, self.tokens, [*self.tokens.videos]))
                yield f"{name}: latents", self.probe(latents)

    def right_token(self) -> Frames:
        """The procedure as it would be seen without clutter."""
        config = SyntheticConfig(seed=self.seed, **WORLD)
        world = make_world(config)
        videos = (index for part in config.splits.values() for index in part)
        return {video_name(index): make_video(config, index, world)[0] for index in videos}

    @torch.no_grad()
    def pooled(self, model: PJEPA) -> Frames:
        """What a model's pooler makes of single slots, before any other slot comes in."""
        slots = ((name, torch.from_numpy(self.tokens.features(name))) for name in self.tokens.videos)
        return {name: model.encoder.project(features[None])[0].numpy() for name, features in slots}


@contextmanager
def target_of(what: str, mean: FeatureFolder, videos: tuple[str, ...]) -> Iterator[None]:
    """Train on the mean token as the target, instead of on all tokens, for as long as this is open."""

    def build_mean(
        config: TargetConfig, encoder: Encoder, measured: Statistics, seed: int, rate: float | Fraction
    ) -> Target:
        own, _ = measure(mean, videos, seed, centred=True, smooth=config.smooth)
        return around(MeanTokenTarget(own, config), config, feature_width(config, len(own.mean)), rate)

    usual = setup.build_target
    try:
        if what == "mean token":
            setup.build_target = build_mean
        yield
    finally:
        setup.build_target = usual


def main() -> None:
    """Print a Markdown table for each kind of clutter: mean and range over the seeds."""
    found = parser(__doc__)
    found.add_argument("--seeds", type=int, default=3)
    found.add_argument("--clutter", nargs="+", default=["noise", "scenery"], choices=["noise", "scenery"])
    options = found.parse_args()
    for clutter in options.clutter:
        scores: dict[str, list[float]] = {}
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as folder:
                for name, score in Study(Path(folder), clutter, seed).rows():
                    print(f"{clutter}, seed {seed}: {name}: {score:.1f}", file=sys.stderr, flush=True)
                    scores.setdefault(name, []).append(score)
        print(f"\n| {clutter} clutter | frame accuracy | seeds |\n|---|---:|---|")
        for name, values in scores.items():
            each = ", ".join(f"{value:.1f}" for value in values)
            print(f"| {name} | {statistics.mean(values):.1f} | {each} |")


if __name__ == "__main__":
    main()
