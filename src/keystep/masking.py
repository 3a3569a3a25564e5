"""Random masks: which frames are hidden from the encoder. The caller provides the random generator."""

from __future__ import annotations

import numpy as np

from keystep.config import MaskingConfig
from keystep.config.times import settled_frames


def hidden_count(frames: int, ratio: float) -> int:
    """Number of hidden frames: ``frames * ratio`` rounded half to even, at least 1 and less than ``frames``.

    This is the authors' rule. A video of one frame has no hidden frame.
    """
    return 0 if frames < 2 else min(frames - 1, max(1, round(frames * ratio)))


def draw_hidden(frames: int, config: MaskingConfig, rng: np.random.Generator) -> np.ndarray:
    """(frames,) bool, True at exactly `hidden_count` frames."""
    draw = _random if config.kind == "random" else _spans
    return draw(frames, hidden_count(frames, config.ratio), config, rng)


def _random(frames: int, count: int, config: MaskingConfig, rng: np.random.Generator) -> np.ndarray:
    hidden = np.zeros(frames, dtype=bool)
    hidden[rng.permutation(frames)[:count]] = True
    return hidden


def _spans(frames: int, count: int, config: MaskingConfig, rng: np.random.Generator) -> np.ndarray:
    """Spans of random lengths in random order, with the visible frames distributed at random between them.

    Spans do not overlap but may touch. The last one is truncated to match the count. They are placed on a circle, which
    is then cut at a random position (possibly within a span), so that every frame is hidden with the same probability;
    on a line, the first and last frames would rarely be hidden.
    """
    shortest, longest = settled_frames(config.shortest), settled_frames(config.longest)
    lengths: list[int] = []
    left = count
    while left > 0:
        lengths.append(min(left, int(rng.integers(shortest, longest + 1))))
        left -= lengths[-1]
    visible = frames - count
    cuts = np.sort(rng.integers(0, visible + 1, size=len(lengths)))  # visible frames before each span
    gaps = np.diff(cuts, prepend=0)
    hidden = np.zeros(frames, dtype=bool)
    start = 0
    for gap, length in zip(gaps, rng.permutation(lengths), strict=True):
        start += int(gap)
        hidden[start : start + int(length)] = True
        start += int(length)
    return np.roll(hidden, rng.integers(max(1, frames)))
