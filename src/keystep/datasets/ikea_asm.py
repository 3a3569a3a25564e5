"""IKEA-ASM (Ben-Shabat et al., WACV 2021): atomic actions of furniture assembly, of the top camera's frames.

::

    gt_segments.json                        {"database": {"Lack_Coffee_Table/0044_...": {"subset": "training",
                                            "annotation": [{"segment": [first frame, end], "label": "flip table"}]}}}
    indexing_files/atomic_action_list.txt   one action per line
    features/Lack_Coffee_Table_0044_....npy     your own: the name of the scan, with _ for /

Source: github.com/IkeaASM/IKEA_ASM_Dataset, action/IKEAActionDataset.py (frames, lists), and its statistics (25 Hz);
later versions call the file ``indexing_files/db_gt_annotations.json``. The official split, by environment, is that of
``subset``. Frames outside of all segments are "NA", the first class, as in that code. Not verified, without
the download: that the file has all scans, and that its labels are those of the list. No numbers are compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from keystep.data.annotation import composed
from keystep.datasets.own_features import Annotations, OwnFeatures, OwnFeaturesConfig
from keystep.datasets.survey import first_existing
from keystep.datasets.tree import TimedSegment, positive_seconds
from keystep.errors import InputError, named
from keystep.reading import Record, is_file_name, read_lines, read_record
from keystep.types import Rate, parse_rate

LIST = "indexing_files/atomic_action_list.txt"


class IkeaASMConfig(OwnFeaturesConfig):
    """Options of the conversion."""

    frame_rate: Rate = parse_rate(25)
    """Frames per second of the videos, to which the annotation refers."""


class Action(Record):
    """An annotated action, in frames."""

    segment: list[float]
    label: str


class Scan(Record):
    """The annotation of a recording."""

    subset: Literal["training", "testing"]
    annotation: list[Action]


class GroundTruth(Record):
    """The annotation file."""

    database: dict[str, Scan]


class IkeaASM(OwnFeatures):
    """`keystep.datasets.survey.Preparer` of IKEA-ASM."""

    name = "ikea-asm"
    title = "IKEA-ASM: atomic actions of furniture assembly, your own features"
    source = "github.com/IkeaASM/IKEA_ASM_Dataset, 'Annotations - action'"
    needed = (("gt_segments.json", "indexing_files/db_gt_annotations.json"), (LIST,))
    between = "NA"

    def __init__(self, config: IkeaASMConfig | None = None) -> None:
        self.config: IkeaASMConfig = config or IkeaASMConfig()
        self.published = {}

    def annotations(self, root: Path) -> Annotations:
        """See `OwnFeatures`."""
        path = first_existing(root, self.needed[0])
        actions = sorted({composed(line) for line in read_lines(root / LIST)} - {self.between})
        videos, parts = dict[str, list[TimedSegment]](), dict[str, list[str]](train=[], test=[])
        for scan, record in read_record(path, GroundTruth).database.items():
            name = scan.replace("/", "_")
            if not is_file_name(name) or name in videos:
                raise InputError(f"{path}: the scan {named(scan)} cannot be the name of a video, or is there twice")
            videos[name] = [self._segment(path, scan, action, actions) for action in record.annotation]
            parts["train" if record.subset == "training" else "test"].append(name)
        return Annotations(videos, (self.between, *actions), {"1": parts})

    def _segment(self, path: Path, scan: str, action: Action, actions: list[str]) -> TimedSegment:
        label = composed(action.label)
        if len(action.segment) != 2 or label not in (*actions, self.between):
            raise InputError(f"{path}, {named(scan)}: {named(label)} is not in {LIST}, or has no start and end")
        rate = float(self.config.frame_rate)
        return TimedSegment(*positive_seconds(path, scan, action.segment[0] / rate, action.segment[1] / rate), label)
