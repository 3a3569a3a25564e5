"""Assembly101's mistake labels: which assembly segments are correct, mistakes, or corrections of mistakes.

::

    annots/<recording>.csv   start,end,verb,this,that,label,remark (no header; frames at 30 a second, end exclusive)

Source: github.com/assembly-101/assembly101-mistake-detection (files; the label is correct, mistake or correction, in
some lines with spaces around it; the remark says why, such as "wrong order"). Disassemblies have no such labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from keystep.data.mistakes import Mistake
from keystep.errors import InputError, quoted
from keystep.reading import read_rows, whole_number

SOURCE = "github.com/assembly-101/assembly101-mistake-detection"
SPLIT = "correct"
"""Name of the split for one class: correct takes to train and validate on, all annotated ones to test."""
FOLDERS = ("assembly101-mistake-detection/annots", "mistake-detection/annots", "annots")
CORRECT = "correct"
LABELS = (CORRECT, "mistake", "correction")


def mistakes_folder(root: Path) -> Path | None:
    """The folder of the labels below the root. None: there is none."""
    return next((root / name for name in FOLDERS if (root / name).is_dir()), None)


def read_mistake_labels(path: Path) -> list[Mistake]:
    """Read the segments that are not correct, in frames.

    Returns:
        Mistakes; the kind is the remark of a mistake, such as ``wrong order``, ``mistake`` without one, or
        ``correction``; the step is ``verb this that``.

    Raises:
        InputError: an invalid line or an unknown label.
    """
    found = []
    for number, row in read_rows(path):
        cells = [cell.strip() for cell in row]
        if len(cells) < 6 or whole_number(cells[0]) is None or whole_number(cells[1]) is None:
            raise InputError(f"{path}, line {number}: {quoted(','.join(row))} is not start,end,verb,this,that,label")
        start, stop, label = int(cells[0]), int(cells[1]), cells[5]
        if label not in LABELS or stop < start:
            raise InputError(
                f"{path}, line {number}: {quoted(label)} from frame {start} to {stop}; expected one of "
                f"{', '.join(LABELS)}, and an end after the start"
            )
        if label != CORRECT:
            remark = cells[6] if len(cells) > 6 else ""
            kind = remark if remark and label == "mistake" else label
            found.append(Mistake(start, stop, kind, " ".join(cells[2:5])))
    return found


def one_class(parts: Mapping[str, Sequence[str]], mistakes: Mapping[str, bool]) -> dict[str, list[str]]:
    """The split `SPLIT`.

    Args:
        parts: part -> videos.
        mistakes: annotated video -> whether it has mistakes.

    Returns:
        Part -> videos; empty if a part would be.
    """
    chosen = {
        part: [video for video in videos if video in mistakes and (part == "test" or not mistakes[video])]
        for part, videos in parts.items()
    }
    return chosen if all(chosen.values()) else {}


def in_slots(mistakes: Sequence[Mistake], first: int, every: int, slots: int) -> list[Mistake]:
    """Mistakes in frames -> in slots of ``every`` frames from frame ``first`` on; those outside are left out."""
    found = []
    for mistake in mistakes:
        start = min(max(0, (mistake.start - first) // every), slots)
        stop = min(max(0, -(-(mistake.stop - first) // every)), slots)
        if start < stop:
            found.append(Mistake(start, stop, mistake.kind, mistake.step))
    return found
