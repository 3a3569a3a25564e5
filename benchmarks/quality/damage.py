"""Features as a worn sensor would give them: noise, stretches that are lost, channels that freeze.

Each function maps (T, D) float32 features to damaged ones of the same shape. What happens to a video hangs on its name
only, so every representation is judged on the same damage.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from itertools import pairwise

import numpy as np

SPANS = 10
"""Lost stretches of a video."""
LOST = 0.2
"""Share of the frames in them."""
FROZEN = 1 / 3
"""Share of the channels that freeze."""
Damage = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def noise(amount: float) -> Damage:
    """White noise of ``amount`` deviations of each channel."""

    def damage(features: np.ndarray, deviation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return (features + amount * deviation * rng.standard_normal(features.shape)).astype(np.float32)

    return damage


def dropped(features: np.ndarray, deviation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`LOST` of the frames, in one span in each of `SPANS` equal parts of the video, show the last frame before it."""
    held = features.copy()
    edges = np.linspace(1, len(features), SPANS + 1)  # before frame 0 there is nothing to hold
    for start, stop in pairwise(edges):
        length = LOST * (stop - start)
        first = round(start + rng.uniform(0, stop - start - length))
        held[first : round(first + length)] = features[first - 1]
    return held


def frozen(features: np.ndarray, deviation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`FROZEN` of the channels keep the value that they have at a random moment."""
    width = features.shape[1]
    channels = rng.choice(width, max(1, round(FROZEN * width)), replace=False)
    moment = int(rng.integers(len(features)))
    stopped = features.copy()
    stopped[moment:, channels] = features[moment, channels]
    return stopped


DAMAGES: dict[str, Damage] = {
    "noise, half a deviation": noise(0.5),
    "noise, one deviation": noise(1.0),
    "a fifth of the frames lost": dropped,
    "a third of the channels frozen": frozen,
}

KINDS = ("none", *DAMAGES)


def damaged(kind: str, video: str, features: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """One video under one of `KINDS`; ``deviation`` (D,) is that of each channel in training videos."""
    if kind == "none":
        return features
    return DAMAGES[kind](features, deviation, np.random.default_rng(zlib.crc32(f"{kind}/{video}".encode())))
