"""Labels given frame by frame, for the slots of features extracted from the same video."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import floor
from pathlib import Path

import numpy as np

from keystep.data.annotation import UNLABELLED, read_labels, read_lines, read_mapping
from keystep.errors import InputError
from keystep.files import write_lines


@dataclass(frozen=True)
class FrameLabels:
    """A folder with ``groundTruth/<video>.txt``, ``mapping.txt`` and perhaps ``splits/``.

    root: the folder. rate: lines a second; None: one line a frame of the video, in the order of presentation.
    """

    root: Path
    rate: Fraction | None = None

    def __post_init__(self) -> None:
        if not (self.root / "groundTruth").is_dir() or not (self.root / "mapping.txt").is_file():
            raise InputError(f"{self.root}: no groundTruth/ with a mapping.txt beside it; these are needed as labels")

    def of(self, video: str, times: np.ndarray, shown: np.ndarray) -> tuple[list[str], int] | None:
        """Each slot's class name and how many lines there are; None where the video has no labels.

        A slot gets the label of the frame that is shown at its moment, `UNLABELLED` behind the last line.

        Args:
            times: (T,) seconds of the slots. shown: (T,) the frames shown then.

        Raises:
            InputError: a class that is not in mapping.txt, an unreadable file.
        """
        path = self.root / "groundTruth" / f"{video}.txt"
        if not path.exists():
            return None
        read_labels(path, read_mapping(self.root / "mapping.txt"))  # for its checks
        lines = read_lines(path)
        places = shown if self.rate is None else [floor(Fraction(float(time)) * self.rate) for time in times]
        return [lines[place] if place < len(lines) else UNLABELLED for place in places], len(lines)

    def copy_to(self, folder: Path) -> None:
        """Classes and splits, as they are."""
        for source in [self.root / "mapping.txt", *sorted((self.root / "splits").glob("*.bundle"))]:
            write_lines(folder / source.relative_to(self.root), read_lines(source))
