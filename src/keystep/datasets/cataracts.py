"""CATARACTS: 19 steps of 50 cataract operations, as annotated for the challenge of 2020.

::

    ground_truth/CATARACTS_2020/train_gt/train01.csv     "Frame,Steps": one line per frame from 1 on, step 0 is idle
    ground_truth/CATARACTS_2020/dev_gt/test01.csv        validation: 5 of the videos called test
    ground_truth/CATARACTS_2020/test_gt/test02.csv       the other 20
    features/train01.npy                                 your own, of the microscope's video

Sources: cataracts2020.grand-challenge.org; the archive is on ieee-dataport.org. Folders, columns, names of steps and
numbers of videos are those of public loaders (github.com/yumion/cataractsWorkflow and converters to 1 Hz), since the
archive needs an account: not verified on it. The frame rate of the videos is not stated there; public audits of the 50
files found four, of 29.17 to 29.20 Hz, so that ``frame_rate`` is off by at most 0.05 %, 1 s after half an hour.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from keystep.data.annotation import segment_lengths
from keystep.datasets.own_features import Annotations, OwnFeatures, OwnFeaturesConfig
from keystep.datasets.survey import SurveyProblems, first_existing
from keystep.datasets.tree import TimedSegment
from keystep.errors import InputError
from keystep.reading import read_rows, whole_number
from keystep.types import Rate, parse_rate

FOLDER = "CATARACTS_2020"
PARTS = {"train": "train_gt", "valid": "dev_gt", "test": "test_gt"}
STEPS = (
    *("Idle", "Toric Marking", "Implant Ejection", "Incision", "Viscodilatation", "Capsulorhexis", "Hydrodissection"),
    *("Nucleus Breaking", "Phacoemulsification", "Vitrectomy", "Irrigation/Aspiration", "Preparing Implant"),
    *("Manual Aspiration", "Implantation", "Positioning", "OVD Aspiration", "Suturing", "Sealing Control"),
    "Wound Hydratation",
)
"""By id; "Hydrodissetion" of the challenge's script is spelled right."""


class CataractsConfig(OwnFeaturesConfig):
    """Options of the conversion."""

    frame_rate: Rate = parse_rate("29.19")
    """Frames per second of the videos, to which the annotation refers."""


class Cataracts(OwnFeatures):
    """`keystep.datasets.survey.Preparer` of CATARACTS."""

    name = "cataracts"
    title = "CATARACTS: steps of cataract operations, your own features"
    source = "ieee-dataport.org, CATARACTS (ground_truth/CATARACTS_2020)"
    needed = ((f"ground_truth/{FOLDER}", FOLDER),)

    def __init__(self, config: CataractsConfig | None = None) -> None:
        self.config: CataractsConfig = config or CataractsConfig()
        self.published = {"videos": 50, "train": 25, "valid": 5, "test": 20}

    def annotations(self, root: Path) -> Annotations:
        """See `OwnFeatures`."""
        folder, problems, damaged = first_existing(root, self.needed[0]), SurveyProblems(), dict[Path, str]()
        videos, parts = dict[str, list[TimedSegment]](), dict[str, list[str]]()
        for part, place in PARTS.items():
            parts[part] = []
            for path in sorted((folder / place).glob("*.csv")):
                segments = problems.attempt(path.stem, lambda path=path: self._segments(path))  # type: ignore[misc]
                if segments is None:
                    damaged[path] = problems.skipped[path.stem]
                    continue
                videos[path.stem] = segments
                parts[part].append(path.stem)
        return Annotations(videos, STEPS, {"1": parts}, damaged)

    def _segments(self, path: Path) -> list[TimedSegment]:
        """The runs of equal steps, in seconds."""
        rows = read_rows(path)
        if not rows or [cell.strip() for cell in rows[0][1]] != ["Frame", "Steps"]:
            raise InputError(f"{path}: the first line is not 'Frame,Steps'")
        ids = []
        for frame, (line, row) in enumerate(rows[1:], start=1):
            cells = [whole_number(cell.strip()) for cell in row]
            if len(cells) != 2 or cells[0] != frame or cells[1] is None or cells[1] >= len(STEPS):
                raise InputError(f"{path}, line {line}: {','.join(row)!r} is not frame {frame} and a step of 0 to 18")
            ids.append(cells[1])
        ends = np.cumsum(segment_lengths(np.array(ids))).tolist()
        rate = float(self.config.frame_rate)
        return [
            TimedSegment(start / rate, end / rate, STEPS[ids[start]])
            for start, end in zip([0, *ends], ends, strict=False)
        ]
