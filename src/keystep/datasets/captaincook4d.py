"""CaptainCook4D (Peddi et al., 2023): recipes with and without mistakes, one feature vector per second.

::

    annotations/annotation_json/complete_step_annotations.json
                        recording -> activity_id, activity_name, person_id, steps: step_id, start_time, end_time
                        (seconds, -1 if the step was left out), has_errors
    annotations/annotation_json/error_annotations.json
                        list of recording_id, step_annotations: step_id, start_time, errors: tag, description
    annotations/annotation_json/step_idx_description.json
                        step_id -> description
    annotations/data_splits/<split>_data_split_combined.json
                        train, val, test -> recordings
    features/<backbone>/<recording>_360p.mp4_1s_1s.npz
                        arr_0: (T, D), one vector per second

Sources: github.com/CaptainCook4D/annotations (FILE_STRUCTURE.md and the files) and the loader of
github.com/CaptainCook4D/error_recognition (dataloader/CaptainCookStepDataset.py: names and arrays of features, a slot
per second, steps at negative times are missing). Split 1 is for one class: correct recordings of the official training
and validation parts, and all recordings of the test part. The other recordings are in no split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from keystep.config import Config
from keystep.data.groups import write_groups
from keystep.data.mistakes import Mistake, write_mistakes
from keystep.data.problems import Problems
from keystep.data.store import FeatureStore
from keystep.data.timeline import Timeline
from keystep.datasets.survey import Missing, Survey, check_root, first_existing, require, summarise_missing
from keystep.datasets.tree import TimedSegment, check_covered, label_slots, slot_range
from keystep.errors import InputError, named, one_line
from keystep.files import write_lines
from keystep.reading import Record, checked, is_file_name, parse_json, read_json, read_npz, read_record, read_text
from keystep.reading.text import MOST_JSON

SOURCE = "github.com/CaptainCook4D/annotations"
FEATURES = "the features that captaincook4d.github.io links to"
RATE = Fraction(1)
ENDING = "_360p.mp4_1s_1s.npz"
MOST_BYTES = 1 << 30
"""Of one recording's features in memory."""
BACKGROUND = "background"
PUBLISHED = {"recordings": 384}
"""The paper, arXiv 2312.14556."""
KINDS = {
    "Preparation Error": "preparation",
    "Measurement Error": "measurement",
    "Order Error": "order",
    "Timing Error": "timing",
    "Technique Error": "technique",
    "Temperature Error": "temperature",
    "Missing Step": "omitted",
    "Other": "other",
}
"""Tag of an error -> kind of the mistake."""


class _Step(Record):
    step_id: int
    start_time: float
    end_time: float
    description: str = ""
    has_errors: bool = False


class _Recording(Record):
    recording_id: str
    activity_name: str
    person_id: int
    steps: list[_Step]


class _Error(Record):
    tag: str


class _ErrorStep(Record):
    step_id: int
    start_time: float
    errors: list[_Error] = Field(default=[])


class _Errors(Record):
    recording_id: str
    step_annotations: list[_ErrorStep]


class _Split(Record):
    train: list[str]
    val: list[str]
    test: list[str]


class CaptainCook4DConfig(Config):
    """Options of the conversion."""

    backbone: str = "omnivore"
    """Folder of the features: omnivore, slowfast, x3d, 3dresnet or imagebind, as far as downloaded."""
    split: Literal["recordings", "person", "environment"] = "recordings"
    """The official split: by recordings, persons or kitchens."""
    half: bool = False
    """Store float16 instead of float32."""


@dataclass(frozen=True)
class _Tree:
    """The annotations of a download. names: step id -> class name; kinds: (recording, step id, start) -> kinds."""

    recordings: Mapping[str, _Recording]
    names: Mapping[int, str]
    kinds: Mapping[tuple[str, int, float], tuple[str, ...]]
    split: _Split

    def is_correct(self, recording: str) -> bool:
        """Whether nothing was done wrong or left out."""
        return not any(step.has_errors or step.start_time < 0 for step in self.recordings[recording].steps)


class CaptainCook4D:
    """`keystep.datasets.survey.Preparer` of CaptainCook4D."""

    name = "captaincook4d"
    title = "CaptainCook4D: recipes with and without mistakes"
    source = "captaincook4d.github.io; annotations: github.com/CaptainCook4D/annotations"

    def __init__(self, config: CaptainCook4DConfig | None = None) -> None:
        self.config = config or CaptainCook4DConfig()

    def survey(self, root: Path) -> Survey:
        """See `Preparer`."""
        missing = self._missing(root)
        if missing:
            return Survey({}, PUBLISHED, tuple(missing))
        tree = self._tree(root)
        steps = [step for found in tree.recordings.values() for step in found.steps]
        counts = {
            "recordings": len(tree.recordings),
            "correct recordings": sum(map(tree.is_correct, tree.recordings)),
            "segments": sum(step.start_time >= 0 for step in steps),
            "omitted steps": sum(step.start_time < 0 for step in steps),
            "classes": len(tree.names) + 1,
        }
        absent = [Missing(path, FEATURES) for path in map(self._features(root), tree.recordings) if not path.exists()]
        few, notes = summarise_missing(absent, "files of features are missing")
        counts["recordings with features"] = len(tree.recordings) - len(absent)
        return Survey(counts, PUBLISHED, few, notes)

    def write(self, root: Path, out: Path, problems: Problems) -> None:
        """See `Preparer`. Also writes ``mistakes/<recording>.csv``."""
        require(Survey({}, {}, tuple(self._missing(root))))
        tree = self._tree(root)
        provenance = {"data_set": self.name, "settings": self.config.model_dump(mode="json")}
        store = FeatureStore(out, Timeline(rate=RATE), "native", provenance).create()
        write_lines(out / "mapping.txt", (f"{i} {name}" for i, name in enumerate([BACKGROUND, *tree.names.values()])))
        where = self._features(root)
        for recording in tree.recordings:
            if not (out / "features" / f"{recording}.npy").exists():
                path = where(recording)
                problems.notes += (
                    problems.attempt(
                        recording,
                        lambda recording=recording, path=path: self._add(store, tree, recording, path),  # type: ignore[misc]
                    )
                    or []
                )
        problems.notes += _write_splits(out, tree)
        write_groups(out, {name: f"person {found.person_id}" for name, found in tree.recordings.items()})
        store.finish()

    def _add(self, store: FeatureStore, tree: _Tree, recording: str, path: Path) -> list[str]:
        """Write a recording; returns warnings."""
        arrays = read_npz(path, MOST_BYTES)
        if "arr_0" not in arrays:
            raise InputError(f"{path}: no array arr_0 among {', '.join(map(named, arrays)) or 'none'}")
        features = arrays["arr_0"].astype(np.float16 if self.config.half else np.float32)
        if features.ndim != 2:
            raise InputError(f"{path}: arr_0 has shape {features.shape}; expected (T, D), one row per second")
        found = tree.recordings[recording]
        times = np.arange(len(features), dtype=np.float64)
        done = [step for step in found.steps if step.start_time >= 0]
        segments = [TimedSegment(step.start_time, step.end_time, tree.names[step.step_id]) for step in done]
        labels = label_slots(times, segments, BACKGROUND)
        notes = check_covered(recording, labels, len(segments), times, "backbone")
        if labels.claimed:
            notes.append(f"{recording}: steps overlap in {labels.claimed} s; the one that starts later is used")
        write_mistakes(store.root, recording, _mistakes(tree, found, times))
        store.add(recording, features, {"task": found.activity_name}, labels=labels.labels)
        return notes

    def _features(self, root: Path) -> Callable[[str], Path]:
        """Recording -> the path of its features."""
        folder = first_existing(root, [f"features/{self.config.backbone}", self.config.backbone])
        return lambda recording: folder / f"{recording}{ENDING}"

    def _files(self, root: Path) -> dict[str, Path]:
        check_root(root)
        folder = first_existing(root, ["annotations", "."])
        json_folder = folder / "annotation_json"
        return {
            "steps": json_folder / "complete_step_annotations.json",
            "errors": json_folder / "error_annotations.json",
            "names": json_folder / "step_idx_description.json",
            "split": folder / "data_splits" / f"{self.config.split}_data_split_combined.json",
        }

    def _missing(self, root: Path) -> list[Missing]:
        return [Missing(path, SOURCE) for path in self._files(root).values() if not path.exists()]

    def _tree(self, root: Path) -> _Tree:
        files = self._files(root)
        recordings = checked(dict[str, _Recording], read_json(files["steps"]), str(files["steps"]))
        errors = checked(list[_Errors], _read_list(files["errors"]), str(files["errors"]))
        described = checked(dict[str, str], read_json(files["names"]), str(files["names"]))
        for recording in recordings:
            if not is_file_name(recording):
                raise InputError(f"{files['steps']}: recording {named(recording)} is no name of a file")
        kinds = {
            (found.recording_id, step.step_id, step.start_time): tuple(
                KINDS.get(error.tag, error.tag.lower()) for error in step.errors
            )
            for found in errors
            for step in found.step_annotations
        }
        used = sorted({step.step_id for found in recordings.values() for step in found.steps})
        return _Tree(recordings, _class_names(used, described), kinds, read_record(files["split"], _Split))


def _read_list(path: Path) -> Any:
    try:
        return parse_json(read_text(path, MOST_JSON))
    except ValueError as error:
        raise InputError(f"{path}: unreadable: no JSON: {one_line(error)}") from error


def _class_names(used: Sequence[int], described: Mapping[str, str]) -> dict[int, str]:
    """Step id -> its description on one line, with the id where another step has the same one."""
    texts = {step: " ".join(described.get(str(step), f"step {step}").split()) for step in used}
    counts = Counter(texts.values())
    return {step: text if counts[text] == 1 else f"{text} ({step})" for step, text in texts.items()}


def _mistakes(tree: _Tree, found: _Recording, times: np.ndarray) -> list[Mistake]:
    """Mistakes in slots. An omitted step is put where the step that is listed before it ends."""
    mistakes, end = [], 0
    for step in found.steps:
        kinds = tree.kinds.get((found.recording_id, step.step_id, step.start_time), ())
        name = tree.names[step.step_id]
        if step.start_time < 0:
            mistakes.append(Mistake(end, end, "omitted", name))
            continue
        start, end = slot_range(times, step.start_time, step.end_time)
        if step.has_errors and end > start:
            mistakes += [Mistake(start, end, kind, name) for kind in dict.fromkeys(kinds or ("other",))]
    return mistakes


def _write_splits(out: Path, tree: _Tree) -> list[str]:
    """Write split 1, of correct recordings except for testing; notes about recordings in no part."""
    there = [name for name in tree.recordings if (out / "features" / f"{name}.npy").exists()]
    listed = {"train": tree.split.train, "valid": tree.split.val, "test": tree.split.test}
    parts = {
        part: [name for name in there if name in names and (part == "test" or tree.is_correct(name))]
        for part, names in listed.items()
    }
    if not all(parts.values()):
        empty = next(part for part, names in parts.items() if not names)
        return [f"split 1 is not written: no recording with features for its {empty} part"]
    for part, names in parts.items():
        write_lines(out / "splits" / f"{part}.split1.bundle", names)
    left = len(there) - sum(map(len, parts.values()))
    return [f"{left} recordings with mistakes are in no part of split 1"] if left else []
