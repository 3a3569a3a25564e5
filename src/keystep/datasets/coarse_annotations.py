"""Assembly101's coarse annotations: classes, splits, and the labelled segments of each sequence.

::

    actions.csv                                        action_id,verb_id,noun_id,action_cls,verb_cls,noun_cls
    coarse_splits/{train,val,test}_coarse_{assembly,disassembly}.txt
                                                       sequence.txt <tab> shared or not <tab> toy id <tab> toy name
    coarse_labels/{assembly,disassembly}_<recording>.txt
                                                       start <tab> end <tab> action, frames at 30 a second

Sources: the README of github.com/assembly-101/assembly101-annotations (folder coarse-annotations: files, columns, 202
actions) and the loaders of assembly-101/assembly101-temporal-action-segmentation and LTContext/LTContext (segments are
[start, end); tabs; more columns may follow; the segments of a sequence have no gaps; the first column of a split ends
in ``.txt``; label files may be spelt "disassebly"). Assembly and disassembly of a recording are two sequences. The
actions of the test split are withheld.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keystep.data.annotation import IGNORED
from keystep.data.problems import Problems
from keystep.errors import InputError, quoted
from keystep.reading import is_file_name, read_lines, read_table, whole_number

SOURCE = "github.com/assembly-101/assembly101-annotations, coarse-annotations"
KINDS = ("assembly", "disassembly")
PARTS = ("train", "val", "test")
"""Official parts; ``test`` has no published actions."""
MISSPELT = {"disassembly": "disassebly"}
FOLDERS = ("coarse-annotations", "annotations/coarse-annotations", ".")


@dataclass(frozen=True)
class Take:
    """An annotated sequence: one assembly or disassembly of a recording.

    Attributes:
        kind: ``assembly`` or ``disassembly``.
        recording: its name.
        part: official part.
        bounds: (n, 2) int64, frames [start, end) of the segments, in order.
        labels: (n,) int64 class ids, `IGNORED` if the action is withheld.
    """

    kind: str
    recording: str
    part: str
    bounds: np.ndarray
    labels: np.ndarray

    @property
    def name(self) -> str:
        """The name in the splits."""
        return f"{self.kind}_{self.recording}"

    @property
    def start(self) -> int:
        """The first frame."""
        return int(self.bounds[0, 0])

    @property
    def stop(self) -> int:
        """The frame after the last one."""
        return int(self.bounds[-1, 1])

    def frame_labels(self, first: int, stop: int) -> np.ndarray:
        """(stop - first,) int64 class ids of frames; `IGNORED` between segments."""
        ids = np.full(self.stop - self.start, IGNORED, dtype=np.int64)
        for (start, end), label in zip(self.bounds - self.start, self.labels, strict=True):
            ids[start:end] = label
        return ids[first - self.start : stop - self.start]

    def frame_segments(self, first: int, stop: int) -> list[int]:
        """Lengths in frames of segments and gaps between ``first`` and ``stop``."""
        edges = np.unique(np.clip(self.bounds, first, stop))
        return [int(length) for length in np.diff(edges)]


def read_actions(path: Path) -> tuple[str, ...]:
    """Read class names in the order of their ids.

    Raises:
        InputError: other columns, ids that are not 0..n-1, or a repeated name.
    """
    columns, rows = read_table(path)
    if not {"action_id", "action_cls"} <= set(columns):
        raise InputError(f"{path}: expected the columns action_id and action_cls, found {quoted(columns)}")
    names: dict[int, str] = {}
    for line, row in rows:
        label, name = row["action_id"].strip(), row["action_cls"].strip()
        if whole_number(label) is None or not name or int(label) in names or name in names.values():
            raise InputError(f"{path}, line {line}: action {quoted(name)}, id {quoted(label)}: invalid or repeated")
        names[int(label)] = name
    if sorted(names) != list(range(len(names))):
        raise InputError(f"{path}: action ids must be 0 to {len(names) - 1} without gaps")
    return tuple(names[label] for label in range(len(names)))


def split_path(folder: Path, part: str, kind: str) -> Path:
    """The file that lists the sequences of a part."""
    return folder / "coarse_splits" / f"{part}_coarse_{kind}.txt"


def read_takes(folder: Path, part: str, classes: tuple[str, ...], problems: Problems) -> list[Take]:
    """Read the sequences of a part, assemblies first; a missing list is empty.

    Args:
        folder: of the annotations.
        part: ``train``, ``val`` or ``test``.
        classes: class names in the order of their ids.
        problems: collects bad label files, by the name of the sequence.

    Raises:
        InputError: an invalid list, a repeated sequence, or a missing or invalid label file (unless skipped).
    """
    takes: list[Take] = []
    names: set[str] = set()
    for kind in KINDS:
        path = split_path(folder, part, kind)
        if not path.exists():
            continue
        for number, line in enumerate(read_lines(path), start=1):
            name = line.split("\t")[0].strip().removesuffix(".txt")
            recording = name.removeprefix(f"{kind}_")
            if recording == name or not is_file_name(name):
                raise InputError(f"{path}, line {number}: {quoted(line)} is not a sequence {kind}_<recording>.txt")
            if name in names:
                raise InputError(f"{path}, line {number}: {name} is listed twice")
            names.add(name)
            found = problems.attempt(
                name,
                lambda kind=kind, recording=recording: _read_labels(folder, kind, recording, part, classes),  # type: ignore[misc]
            )
            if found is not None:
                takes.append(Take(kind, recording, part, *found))
    return takes


def _read_labels(
    folder: Path, kind: str, recording: str, part: str, classes: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    path = label_path(folder, kind, recording)
    if not path.exists():
        raise InputError(f"{path}: missing, though the {part} split lists it; it comes from {SOURCE}")
    return read_segments(path, classes, withheld=part == "test")


def read_segments(path: Path, classes: tuple[str, ...], withheld: bool) -> tuple[np.ndarray, np.ndarray]:
    """Read the segments of a sequence, except empty ones.

    Args:
        path: the label file.
        classes: class names in the order of their ids.
        withheld: whether actions are withheld; all class ids are then `IGNORED`.

    Returns:
        (n, 2) int64 frames [start, end), and (n,) int64 class ids.

    Raises:
        InputError: no file, an invalid line, overlapping segments, an unknown action, or no segment.
    """
    ids = {name: label for label, name in enumerate(classes)}
    bounds: list[tuple[int, int]] = []
    labels: list[int] = []
    for number, line in enumerate(read_lines(path), start=1):
        start, end, action, *_ = (*(column.strip() for column in line.split("\t")), "", "", "")
        if whole_number(start) is None or whole_number(end) is None or int(start) > int(end):
            raise InputError(f"{path}, line {number}: {quoted(line)} is not 'start <tab> end <tab> action'")
        if bounds and int(start) < bounds[-1][1]:
            raise InputError(f"{path}, line {number}: starts at frame {int(start)}, before the previous segment ends")
        if not withheld and action not in ids:
            raise InputError(f"{path}, line {number}: action {quoted(action)} is not in actions.csv")
        if int(end) > int(start):
            bounds.append((int(start), int(end)))
            labels.append(IGNORED if withheld else ids[action])
    if not bounds:
        raise InputError(f"{path}: no segments; remove the sequence from the split, or download the file again")
    return np.array(bounds, dtype=np.int64), np.array(labels, dtype=np.int64)


def label_path(folder: Path, kind: str, recording: str) -> Path:
    """The label file of a sequence, under either spelling."""
    spellings = (kind, MISSPELT.get(kind, kind))
    paths = [folder / "coarse_labels" / f"{spelling}_{recording}.txt" for spelling in spellings]
    return next((path for path in paths if path.exists()), paths[0])
