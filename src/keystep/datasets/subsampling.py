"""Subsample frames to slots, by stride or by averaging."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from keystep.data.annotation import UNLABELLED, segment_lengths
from keystep.data.slots import pool_labels

How = Literal["stride", "average"]


@dataclass(frozen=True)
class Subsampling:
    """Assignment of frames to slots.

    Attributes:
        every: frames per slot.
        how: ``stride`` uses the first frame, ``average`` the mean of all; the last slot may have fewer frames.
    """

    every: int
    how: How

    def frames(self, count: int) -> np.ndarray:
        """(n,) indices of the frames, of ``count``, whose features are needed."""
        return np.arange(0, count, self.every if self.how == "stride" else 1)

    @property
    def pool(self) -> int:
        """Number of these frames that are averaged per slot."""
        return self.every if self.how == "average" else 1

    def labels(self, ids: np.ndarray, classes: int) -> np.ndarray:
        """Class ids of frames (T,) -> of slots: that of the first frame, or the most frequent one."""
        return ids[:: self.every] if self.how == "stride" else pool_labels(ids, self.every, classes)

    def segments(self, lengths: list[int]) -> list[int]:
        """Lengths of segments in frames -> in slots; a slot belongs to the segment of its first or middle frame."""
        numbers = np.repeat(np.arange(len(lengths)), lengths)
        places = np.arange(0, len(numbers), self.every)
        if self.how == "average":
            places = (places + np.minimum(places + self.every, len(numbers)) - 1) // 2
        return segment_lengths(numbers[places])

    def times(self, first: int, slots: int, count: int, rate: Fraction) -> np.ndarray:
        """Moments of slots.

        Args:
            first: number of the first frame.
            slots: number of slots.
            count: number of frames.
            rate: frames per second.

        Returns:
            (slots,) float64 seconds.
        """
        starts = np.arange(slots) * self.every
        middle = 0.0 if self.how == "stride" else (np.minimum(self.every, count - starts) - 1) / 2
        seconds: np.ndarray = (first + starts + middle) / float(rate)
        return seconds


def class_names(ids: np.ndarray, classes: tuple[str, ...]) -> list[str]:
    """Class names of class ids; negative ids are unlabelled."""
    return [classes[label] if label >= 0 else UNLABELLED for label in ids]
