"""What pooling many tokens a slot is worth, with and without labels, where one moving token carries the step.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/pooling.py --seeds 3

Made-up videos (`keystep.data.synthetic`) are seen through a grid of tokens: one of them shows the procedure, now here,
now there; the others show clutter of the same size. ``noise`` clutter is new in every frame; ``scenery`` stays for
seconds, so it can be predicted as well as the procedure can.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from keystep import PJEPA
from keystep.data.folder import FeatureFolder, open_folder
from keystep.data.store import FeatureStore
from keystep.data.synthetic import SyntheticConfig, World, class_names, make_video, make_world, video_name
from keystep.data.timeline import Timeline
from keystep.evals.encoding import encode_videos
from keystep.evals.probe import ProbeConfig, fit_probe
from keystep.files import write_lines
from keystep.settings import build
from keystep.train.run import pretrain
from keystep.config import RunConfig

TOKENS = 8
STAYS_SECONDS = 2.0
"""Mean time that the procedure is seen in one token before it moves to another; so long scenery stays, too."""
HANDS = 1.5
"""Length, beside looks of about 1 a channel, of what all frames of the token with the procedure share."""
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
Pooled = dict[str, np.ndarray]
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
    return open_folder(folder)


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
