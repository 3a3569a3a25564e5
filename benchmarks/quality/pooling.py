"""Pieces of the study put together: all folds' test videos side by side, seeds in rows, both sides paired by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from records import Piece

from keystep.evals.bootstrap import Difference, RatioSums, paired_ratios
from keystep.evals.protocol import SEEDS_FOR_A_CLAIM

Place = tuple[str, str, str]
"""(fold, part, video): a video is judged once for each draw of the training videos that have labels, too."""
Share = tuple[float, float]
"""What a video adds to the two sums that a score is the ratio of."""


@dataclass
class Side:
    """One side of a comparison: for each seed and test video, the two sums of a score."""

    shares: dict[int, dict[Place, Share]] = field(default_factory=dict)
    groups: dict[Place, str] = field(default_factory=dict)
    """What the bootstrap draws as one: the person or site of a video, or the video itself."""
    rows: dict[str, str] = field(default_factory=dict)
    """Fold -> name of the row there: the strongest control of a kind may be another one in each."""
    delays: dict[str, float | None] = field(default_factory=dict)
    """Fold -> seconds until an answer is final; None: when the video is over."""

    def add(self, piece: Piece, row: Mapping[str, Any], shares: Sequence[Share]) -> None:
        """Add a row of a piece: ``shares`` of each of its test videos."""
        fold, test = piece["fold"], piece["test"]
        self.rows[fold], self.delays[fold] = row["name"], row.get("delay")
        seed = row.get("seed", 0) if piece["seed"] is None else piece["seed"]
        mine = self.shares.setdefault(seed, {})
        for video, group, share in zip(test["videos"], test["groups"] or test["videos"], shares, strict=True):
            mine[fold, piece["part"], video] = share
            self.groups[fold, piece["part"], video] = group

    def having(self, places: Collection[Place]) -> list[int]:
        """The seeds that have all of these, rising."""
        return sorted(seed for seed, found in self.shares.items() if set(places) <= set(found))


@dataclass(frozen=True)
class Line:
    """One comparison. ``later``: in some fold the first answers later than its rival, which is no fair win."""

    words: str
    mode: str
    difference: Difference
    later: bool = False

    @property
    def holds(self) -> bool:
        """Better with an interval above zero, over enough seeds, not by waiting longer."""
        return self.difference.low > 0 and self.difference.seeds[0] >= SEEDS_FOR_A_CLAIM and not self.later

    @property
    def verdict(self) -> str:
        """`holds`, or why not; with too few seeds nobody knows what another one would say."""
        if self.difference.seeds[0] < SEEDS_FOR_A_CLAIM:
            return "not enough seeds"
        if self.holds:
            return "**holds**"
        return "does not hold: it answers later" if self.difference.low > 0 else "does not hold"


def compare(first: Side, second: Side, words: str, mode: str, without: Collection[str] = ()) -> Line | None:
    """Points by which the first is ahead, over what both were judged on, and the seeds that have all of that.

    Videos (or groups, where the pieces know them) and each side's seeds are drawn anew; a video that is tested by
    several folds, or with several draws of labels, is drawn as one.

    without: videos to leave out, such as those by which a variant was chosen.

    Returns:
        None where the two have fewer than two videos or groups, or no seed, in common.
    """
    places = [place for place in first.groups if place in second.groups and place[2] not in without]
    seeds = first.having(places), second.having(places)
    units = sorted({first.groups[place] for place in places})
    if not all(seeds) or len(units) < 2:
        return None
    index = {unit: number for number, unit in enumerate(units)}

    def summed(side: Side, seeds: Sequence[int]) -> RatioSums:
        sums = np.zeros((2, len(seeds), len(units)))
        for row, seed in enumerate(seeds):
            for place in places:
                sums[:, row, index[first.groups[place]]] += side.shares[seed][place]
        return RatioSums(sums[0], sums[1])

    difference = paired_ratios(summed(first, seeds[0]), summed(second, seeds[1]))
    return Line(words, mode, difference, _later(first, second, {fold for fold, _, _ in places}))


def _later(first: Side, second: Side, folds: Collection[str]) -> bool:
    """Whether the first is final later than its rival in any of the folds."""
    pairs = [(first.delays[fold], second.delays[fold]) for fold in folds]
    return any(one is not None and other is not None and one > other + 1e-9 for one, other in pairs)


@dataclass(frozen=True)
class Score:
    """Mean over folds and seeds, and the deviation over the seeds that have all folds (None: fewer than two)."""

    mean: float
    spread: float | None

    def __str__(self) -> str:
        return f"{self.mean:.1f}" + ("" if self.spread is None else f" ± {self.spread:.1f}")


def mean_score(cells: Collection[tuple[str, int, float]]) -> Score | None:
    """Of (fold, seed, score), draws of labels among them; None where there are none.

    A seed that lacks a fold counts in the means of those that it has.
    """
    if not cells:
        return None
    folds = {fold for fold, _, _ in cells}
    by_seed: dict[int, dict[str, list[float]]] = {}
    for fold, seed, score in cells:
        by_seed.setdefault(seed, {}).setdefault(fold, []).append(score)
    mean = np.mean([np.mean([score for where, _, score in cells if where == fold]) for fold in folds])
    whole = [np.mean([np.mean(s) for s in found.values()]) for found in by_seed.values() if set(found) == folds]
    return Score(float(mean), float(np.std(whole, ddof=1)) if len(whole) > 1 else None)
