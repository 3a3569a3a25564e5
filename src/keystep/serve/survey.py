"""What is known of all videos without labels, and which stretch to label next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from keystep.errors import InputError
from keystep.evals.controls import as_frames
from keystep.serve.ridge import Array, Basis, Floats, Frames, Ids

SLOTS = 240
"""Evenly spaced slots of each video that are surveyed, fewer of very many videos."""
MOST_SLOTS = 20_000
"""Surveyed slots of all videos together."""
FEWEST_SLOTS = 10
STRETCH_SECONDS = 60.0
"""Length of a suggested stretch, unless there would be more than `MOST_STRETCHES`."""
MOST_STRETCHES = 2_000

Choice = Literal["mixed", "coverage", "uncertainty", "random"]
"""How stretches are chosen; all but ``mixed`` are for comparison."""


@dataclass(frozen=True)
class Stretch:
    """Slots ``start`` to ``stop`` (exclusive) of a video."""

    video: str
    start: int
    stop: int


@dataclass(frozen=True)
class Suggestion:
    """A stretch to label next. reason: a few words for people. score: 0 to 1, of the best suggestion 1."""

    video: str
    start: int
    stop: int
    reason: str
    score: float


@dataclass(frozen=True, eq=False)
class VideoSurvey:
    """Evenly spaced slots of each video in a basis that was fitted to all of them.

    Attributes:
        basis: the basis.
        lengths: video -> its slots.
        slots: video -> (S,) the surveyed slots, in order.
        frames: video -> (S, K) their columns.
        rate: slots per second.
        skipped: video that cannot be read -> why; the other attributes do without it.
    """

    basis: Basis
    lengths: Mapping[str, int]
    slots: Mapping[str, Ids]
    frames: Mapping[str, Frames]
    rate: float
    skipped: Mapping[str, str]

    @classmethod
    def make(
        cls,
        lengths: Mapping[str, int],
        representation: Callable[[str], Array],
        rate: float,
        bands: Mapping[str, int] | None = None,
        step: Callable[[str], None] = lambda video: None,
    ) -> VideoSurvey:
        """Read the slots of each video, and fit the basis.

        Args:
            lengths: video -> its slots, at least one.
            representation: video -> (T, D); only the surveyed rows are read of memory-mapped arrays.
            rate: slots per second.
            bands: as in `Basis.fit`.
            step: called after each video.

        Raises:
            InputError: no video can be read.
        """
        most = min(SLOTS, max(FEWEST_SLOTS, MOST_SLOTS // len(lengths)))
        slots, rows, skipped = {}, {}, {}
        for video, length in lengths.items():
            edges = np.linspace(0, length, min(most, length) + 1)
            at = ((edges[:-1] + edges[1:]) / 2).astype(np.int64)
            try:
                rows[video] = as_frames(representation(video)[at])
                slots[video] = at
            except InputError as error:
                skipped[video] = f"{video}: {error}"
            step(video)
        if not rows:
            raise InputError(f"none of {len(lengths)} videos can be read; the first: {next(iter(skipped.values()))}")
        basis = Basis.fit(np.concatenate(list(rows.values())), bands)
        read = {video: lengths[video] for video in rows}
        frames = {video: basis.apply(some) for video, some in rows.items()}
        return cls(basis, read, slots, frames, rate, skipped)

    def stretches(self) -> list[Stretch]:
        """All videos, cut into stretches of about equal length."""
        found = []
        size = max(STRETCH_SECONDS * self.rate, sum(self.lengths.values()) / MOST_STRETCHES)
        for video, length in self.lengths.items():
            parts = min(max(1, round(length / size)), len(self.slots[video]))
            edges = np.linspace(0, length, parts + 1).round().astype(int).tolist()
            found += [Stretch(video, start, stop) for start, stop in pairwise(edges)]
        return found

    def suggest(
        self,
        labelled: Mapping[str, Array],
        doubt: Mapping[str, Array] | None,
        count: int,
        choice: Choice = "mixed",
        seed: int = 0,
    ) -> list[Suggestion]:
        """Stretches to label next, the most useful first.

        ``mixed`` covers what the head doubts: each next stretch is the one that brings the doubted stretches of all
        videos closest, in the latents' means, to one that is labelled or suggested already.

        Args:
            labelled: video -> (T,) bool, the slots that need no label; a video without any may be missing.
            doubt: video -> (S,) 0 to 1, how unsure a head is of each surveyed slot; None without a head.
            count, choice: most stretches to return, and how they are chosen.
            seed: of ``random``.
        """
        stretches = self.stretches()
        done = np.array([_share(labelled, each) > 0.5 for each in stretches])
        doubts = np.array([self._doubt(doubt, each) for each in stretches]) if doubt else np.ones(len(stretches))
        if choice == "random":
            order: Sequence[int] = np.random.default_rng(seed).permutation(np.flatnonzero(~done))[:count].tolist()
            gains = [1.0] * len(order)
        elif choice == "uncertainty":
            order = [at for at in np.argsort(-doubts, kind="stable").tolist() if not done[at]][:count]
            gains = [float(doubts[at]) for at in order]
        else:
            weights = doubts if choice == "mixed" else np.ones(len(doubts))
            means = np.stack([self._inside(self.frames, each).mean(axis=0) for each in stretches]).astype(np.float64)
            found = list(_cover(means, done, weights, count))
            order, gains = [at for at, _ in found], [gain for _, gain in found]
        most = max(gains, default=1.0) or 1.0
        typical = float(np.median(doubts[~done])) if doubt and not done.all() else np.inf
        return [
            Suggestion(each.video, each.start, each.stop, _reason(float(doubts[at]), typical), gain / most)
            for at, gain in zip(order, gains, strict=True)
            for each in [stretches[at]]
        ]

    def _doubt(self, doubt: Mapping[str, Array], stretch: Stretch) -> float:
        return float(self._inside(doubt, stretch).mean())

    def _inside(self, values: Mapping[str, Array], stretch: Stretch) -> Array:
        """The values of the surveyed slots of a stretch; of the nearest one, if there is none in it."""
        slots = self.slots[stretch.video]
        first, last = np.searchsorted(slots, [stretch.start, stretch.stop]).tolist()
        first = min(first, len(slots) - 1)
        return values[stretch.video][first : max(last, first + 1)]


def _share(labelled: Mapping[str, Array], stretch: Stretch) -> float:
    known = labelled.get(stretch.video)
    return 0.0 if known is None else float(known[stretch.start : stretch.stop].mean())


def _reason(doubt: float, typical: float) -> str:
    if doubt > typical:
        return f"the head is unsure here (confidence {100 * (1 - doubt):.0f} %)"
    return "it stands for many stretches unlike those labelled so far"


def _cover(means: Floats, done: Array, weights: Floats, count: int) -> Iterator[tuple[int, float]]:
    """Greedily choose points so that all points, by weight, come close to a chosen one or one that is done.

    Args:
        means: (N, K).
        done: (N,) bool.
        weights: (N,).
        count: most points to choose.

    Yields:
        The index of each chosen point, and by how much it lowers the weighted sum of distances.
    """
    squares = np.square(means).sum(axis=1)
    apart = np.sqrt(np.maximum(squares[:, None] + squares - 2 * means @ means.T, 0))
    nearest = apart[:, done].min(axis=1) if done.any() else apart.max(axis=1)
    left = ~done
    for _ in range(min(count, int(left.sum()))):
        gains = weights @ np.maximum(nearest[:, None] - apart, 0)
        best = int(np.where(left, gains, -np.inf).argmax())
        yield best, float(gains[best])
        left[best] = False
        nearest = np.minimum(nearest, apart[best])
