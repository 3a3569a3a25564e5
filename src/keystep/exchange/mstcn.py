"""MS-TCN text: one class name a line for each slot, and mapping.txt."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import groupby
from pathlib import Path

from keystep.data.annotation import UNLABELLED
from keystep.exchange.formats import Found, Recording, TimedLabel, lines_of
from keystep.files import write_lines
from keystep.reading import read_lines


class MstcnText:
    """Lines of labels."""

    ending = ".txt"
    loses = f"mstcn has a class for every slot: slots without one have the line {UNLABELLED}, which others may refuse"
    needs_frames = needs_video = False

    def files(self, names: Sequence[str]) -> list[str]:
        """The classes, and one a video."""
        return ["mapping.txt", *(f"groundTruth/{name}.txt" for name in names)]

    def write(self, recordings: Sequence[Recording], classes: Sequence[str], folder: Path) -> None:
        """Lines at the rate of the slots."""
        write_lines(folder / "mapping.txt", (f"{index} {name}" for index, name in enumerate(classes)))
        for recording in recordings:
            write_lines(folder / "groundTruth" / f"{recording.name}.txt", lines_of(recording.spans, recording.slots))

    def read(self, path: Path, track: str | None) -> list[Found]:
        """Runs of equal lines."""
        lines, stretches = read_lines(path), list[TimedLabel]()
        start = 0
        for label, run in groupby(lines):
            end = start + len(list(run))
            stretches.append(TimedLabel(Fraction(start), Fraction(end), label))
            start = end
        return [Found((path.stem,), tuple(stretches), "lines", length=len(lines))]
