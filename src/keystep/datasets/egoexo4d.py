"""EgoExo4D's benchmark of fine-grained keystep recognition (Grauman et al., CVPR 2024).

Layout of the ``egoexo`` downloader (docs.ego-exo4d-data.org, "Fine-grained Keystep Recognition" and "Keystep")::

    annotations/keystep_train.json, keystep_val.json         segments of each take, taxonomy, vocabulary
    keystep_benchmark/keystep_segment_{train,val,test_unannotated}.json    the benchmark's clips
    keystep_benchmark/label_mapping.csv                      label_id,step_unique_id,step_name,scenario_name
    takes.json                                               person of each take (part "metadata"; optional)
    features/omnivore_video/<take_uid>_<camera>_<stream>.pt  or your own <take_uid> or <take_name>, .pt or .npy

(``keystep_benchmark`` may also be in ``annotations``, and the arrays directly in ``features``.)

The written folder has one video per take, labels of its slots, and ``clips.json``, the trimmed clips that
`keystep.evals.trimmed` classifies. In split 1, the official training takes train and the official validation takes
test, because the labels of the official test takes are not published; those are written without labels.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
from pydantic import Field

from keystep.config import Config
from keystep.data.clips import FILE, write_clips
from keystep.data.groups import write_groups
from keystep.data.problems import Problems
from keystep.data.store import FeatureStore
from keystep.data.timeline import Timeline
from keystep.datasets.egoexo4d_annotations import SOURCE, AnnotatedTake, Annotations, read_annotations, read_persons
from keystep.datasets.survey import Missing, Survey, SurveyProblems, require, summarise_missing
from keystep.datasets.tree import Axis, TimedSegment, check_covered, label_slots, measure, open_features, time_axis
from keystep.errors import InputError
from keystep.files import write_lines
from keystep.types import Rate

FEATURES_SOURCE = "egoexo -o DIR --parts features/omnivore_video, or your own extraction"

OMNIVORE = Timeline(rate=Fraction(30, 16), start=Fraction(16, 30), window=Fraction(32, 30), alignment="center")
"""The official features: windows of 32/30 s every 16/30 s from the start (docs, "Features")."""

PUBLISHED = {
    "classes": 278,  # docs.ego-exo4d-data.org, "Label mapping file"
    "train clips": 14_326,  # P-JEPA (arXiv 2606.23256)
    "val clips": 4_517,
}


class EgoExo4DConfig(Config):
    """Options of the conversion."""

    features: str = "features"
    """Folder of the arrays within the download, which may be in subfolders of it."""
    camera: str = "aria"
    """Prefix of the camera in ``<take_uid>_<camera>_<stream>.pt``; the benchmark allows only egocentric video for
    testing."""
    stream: str = "rgb"
    """The stream in these names."""
    features_rate: Rate | None = None
    """Slots per second of your own arrays; the official ones have 30/16."""
    time_axis: Axis | None = None
    """0 for (T, D) arrays, 1 for (D, T). None: determined from the shapes."""
    least_clips: int = Field(default=20, ge=1)
    """Minimum number of clips of a class, if the benchmark's own files are missing."""
    half: bool = False
    """Store float16."""


class EgoExo4D:
    """`keystep.datasets.survey.Preparer` of EgoExo4D's keysteps."""

    name = "egoexo4d"
    title = "EgoExo4D, fine-grained keystep recognition"
    source = SOURCE
    frames_per_second = 30.0

    def __init__(self, config: EgoExo4DConfig | None = None) -> None:
        self.config = config or EgoExo4DConfig()

    def survey(self, root: Path) -> Survey:
        """See `Preparer`. Reads annotations and array headers."""
        annotations = read_annotations(root, self.config.least_clips)
        arrays = self._arrays(root, annotations)
        problems = SurveyProblems()
        shapes = measure(arrays, problems)
        notes = [*annotations.notes, *read_persons(root, annotations.takes)[1]]
        missing = list(annotations.missing)
        if not arrays:
            missing.append(Missing(root / self.config.features, FEATURES_SOURCE))
        else:
            absent = [
                Missing(self._expected(take, arrays), FEATURES_SOURCE)
                for take in annotations.takes
                if take.name not in arrays
            ]
            bad = [Missing(arrays[name], FEATURES_SOURCE, damage=line) for name, line in problems.skipped.items()]
            for parts, what in ((absent, "files are missing"), (bad, "arrays cannot be used")):
                few, more = summarise_missing(parts, what)
                missing, notes = [*missing, *few], [*notes, *more]
            if self._timeline(root, arrays.values(), needed=False) is None:
                notes.append("features_rate is not set; writing needs it (these are not the official features)")
        counts = annotations.counts() | {"takes with features": len(shapes)}
        if shapes:
            axis = self.config.time_axis if self.config.time_axis is not None else time_axis(shapes)
            counts["frames"] = sum(shape[axis] for shape in shapes.values())
        return Survey(counts, PUBLISHED, tuple(missing), tuple(notes))

    def write(self, root: Path, out: Path, problems: Problems) -> None:
        """See `Preparer`. Also writes ``clips.json``, without the clips of takes that are left out."""
        annotations = read_annotations(root, self.config.least_clips)
        require(Survey({}, {}, annotations.missing))
        persons, _ = read_persons(root, annotations.takes)
        arrays = self._arrays(root, annotations)
        if not arrays:
            raise InputError(f"{root / self.config.features}: no array of any annotated take; {FEATURES_SOURCE}")
        timeline = self._timeline(root, arrays.values(), needed=True)
        assert timeline is not None
        shapes = measure(arrays, problems)
        if not shapes:
            raise InputError(f"{root / self.config.features}: none of {len(arrays)} arrays can be read; download again")
        axis = self.config.time_axis if self.config.time_axis is not None else time_axis(shapes)
        store = self._store(out, timeline, annotations)
        write_lines(out / "mapping.txt", (f"{index} {name}" for index, name in enumerate(annotations.classes)))
        for take in annotations.takes:
            if (out / "features" / f"{take.name}.npy").exists() or take.name in problems.skipped:
                continue
            path = arrays.get(take.name)

            def add(take: AnnotatedTake = take, path: Path | None = path) -> list[str]:
                return self._add(store, annotations, take, path, axis)

            problems.notes += problems.attempt(take.name, add) or []
        self._finish(out, annotations, problems)
        write_groups(out, persons)
        store.finish()

    def _add(
        self, store: FeatureStore, annotations: Annotations, take: AnnotatedTake, path: Path | None, axis: Axis
    ) -> list[str]:
        """Write a take; returns warnings."""
        if path is None:
            raise InputError(f"{take.name}: no array {take.uid}*; {FEATURES_SOURCE}")
        stored = open_features(path)
        features = stored if axis == 0 else stored.T
        if not np.isfinite(features).all():
            raise InputError(f"{path}: NaN or infinite values; extract this take again")
        times = float(store.timeline.start) + np.arange(len(features)) / float(store.timeline.rate)
        clips = [clip for clip in annotations.clips if clip.take == take.name]
        for clip in clips:
            if clip.start > times[-1] + float(store.timeline.span):
                raise InputError(
                    f"{path}: {len(features)} slots end at {times[-1]:.1f} s, but a keystep starts at {clip.start:g} "
                    "s; check features_rate"
                )
        named = [
            TimedSegment(clip.start, clip.end, annotations.classes[clip.label])
            for clip in clips
            if clip.label is not None
        ]
        found = label_slots(times, named)
        notes = check_covered(take.name, found, len(named), times, "features_rate")
        if found.claimed:
            notes.append(f"{take.name}: keysteps overlap in {found.claimed} slots; the one that starts later is used")
        kind = "float16" if self.config.half else "float32"
        store.add(
            take.name,
            np.ascontiguousarray(features, dtype=kind),
            {"take_uid": take.uid, "task": take.scenario},
            labels=found.labels if named else None,
        )
        return notes

    def _store(self, out: Path, timeline: Timeline, annotations: Annotations) -> FeatureStore:
        settings = self.config.model_dump(mode="json", exclude={"features", "time_axis"})
        made = {"data_set": self.name, "annotation": annotations.origin, "settings": settings}
        return FeatureStore(out, timeline, "native", made).create()

    def _finish(self, out: Path, annotations: Annotations, problems: Problems) -> None:
        """Write the split and the clips of the written takes."""
        there = {take.name for take in annotations.takes if (out / "features" / f"{take.name}.npy").exists()}
        clips = [clip for clip in annotations.clips if clip.take in there]
        left_out = len(annotations.clips) - len(clips)
        if left_out:
            problems.notes.append(
                f"{left_out} of {len(annotations.clips)} clips are left out: their takes have no features"
            )
        write_clips(out / FILE, clips, annotations.origin)
        parts = {part: sorted({clip.take for clip in clips if clip.part == part}) for part in ("train", "test")}
        if all(parts.values()):
            for part, takes in parts.items():
                write_lines(out / "splits" / f"{part}.split1.bundle", takes)
        else:
            problems.notes.append("split 1 is not written: no takes with features to train on, or none to test on")

    def _arrays(self, root: Path, annotations: Annotations) -> dict[str, Path]:
        """Take name -> its array, that of the selected camera if files name cameras."""
        folder = root / self.config.features
        files = sorted(
            path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.suffix in (".pt", ".npy")
        )
        found: dict[str, Path] = {}
        takes = {take.uid: take.name for take in annotations.takes}
        own = takes | {name: name for name in takes.values()}
        for path in files:
            stem = path.name.removesuffix(path.suffix)
            name = own.get(stem) or self._official(stem, takes)
            if name is None:
                continue
            if name in found:
                raise InputError(f"{path}: {found[name]} is of the same take {name}; keep one of them, or set camera")
            found[name] = path
        return found

    def _expected(self, take: AnnotatedTake, arrays: dict[str, Path]) -> Path:
        """The expected path of a missing array, judging by the existing ones."""
        example = next(iter(arrays.values()))
        if example.stem.endswith(f"_{self.config.stream}"):
            return example.with_name(f"{take.uid}_{self.config.camera}*_{self.config.stream}{example.suffix}")
        return example.with_name(f"{take.name}{example.suffix}")

    def _official(self, stem: str, takes: dict[str, str]) -> str | None:
        """The take of ``<take_uid>_<camera>_<stream>``. None: another camera or stream."""
        uid, _, view = stem.partition("_")
        wanted = view.startswith(self.config.camera) and view.endswith(f"_{self.config.stream}")
        return takes.get(uid) if wanted else None

    def _timeline(self, root: Path, paths: Iterable[Path], *, needed: bool) -> Timeline | None:
        """The timeline of the official features, or of the settings. None: unknown and not needed."""
        if self.config.features_rate is not None:
            return Timeline(rate=self.config.features_rate)
        if all(path.name.endswith(f"_{self.config.stream}.pt") for path in paths):
            return OMNIVORE
        if needed:
            raise InputError(
                f"{root / self.config.features}: set features_rate to the slots per second of your arrays (the "
                "official features, <take_uid>_<camera>_rgb.pt, have 30/16)"
            )
        return None
