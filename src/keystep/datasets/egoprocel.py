"""EgoProceL (Bansal et al., ECCV 2022): key-steps of 16 egocentric tasks, in FACT's layout or its own annotations.

FACT (Lu and Elhamifar, CVPR 2024) publishes features of width 2048 and frame labels, 115 steps of all tasks and a
background::

    egoprocel/features/<video>.npy     (T, 2048), 10 Hz
    egoprocel/groundTruth/<video>.txt  one class name per line
    egoprocel/mapping.txt              "id name"; the background is 0
    egoprocel/split1.train, split1.test    one video per line

The authors of the data set publish start and end of each key-step, but no features::

    annotations/CMU-MMAC/Brownie/S07_Brownie_Video/S07_Brownie_7150991-1431.csv   start second, end second, key-step
    annotations/EGTEA_Gaze+/BaconAndEggs/OP01-R03-BaconAndEggs.csv
    annotations/MECCANO/0003.csv                    (no task folder for sets with one task)
    features/.../<the same name>.npy or .pt         your own, all of one rate
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from keystep.config import Config
from keystep.data.annotation import UNLABELLED, read_mapping, segment_lengths
from keystep.data.folder import FeatureFolder, open_dataset
from keystep.data.problems import Problems
from keystep.data.slots import note_lost_segments
from keystep.data.store import FeatureStore
from keystep.data.timeline import Timeline
from keystep.datasets import egoprocel_csv
from keystep.datasets.egoprocel_csv import BACKGROUND
from keystep.datasets.survey import Missing, Survey, SurveyProblems, require, summarise_missing
from keystep.datasets.tree import Array, Axis, check_covered, thin_slots, write_splits
from keystep.errors import InputError
from keystep.files import write_lines
from keystep.reading import read_lines
from keystep.types import Rate, parse_rate

Layout = Literal["fact", "csv"]

FACT_RATE = parse_rate(10)
"""Rate of FACT's features: "fps" in the manifest of P-JEPA's authors; FACT's code states none."""
FACT_SOURCE = "FACT's Google Drive folder, linked from github.com/ZijiaLewisLu/CVPR2024-FACT, 'Prepare Data'"
CSV_SOURCE = "sid2697.github.io/egoprocel, section 'Download'"
FEATURES_SOURCE = "your own extraction, such as keystep extract; the data set's authors publish videos, no features"

LISTS = {
    914: {"videos": 914, "train": 731, "test": 183},  # P-JEPA (arXiv 2606.23256), and its release's first archive
    423: {"videos": 423, "train": 337, "test": 86},  # the release's newer archive of FACT's features
}
"""Number of videos -> published counts of the list with this number."""
CLASSES = 116
"""P-JEPA: 115 steps and background."""
TASKS = 16
"""Bansal et al., ECCV 2022."""


class EgoProceLConfig(Config):
    """Options of the conversion."""

    layout: Literal["auto", "fact", "csv"] = "auto"
    """``fact``: features, groundTruth, mapping.txt, split1.train. ``csv``: the authors' annotations with your own
    features. ``auto``: the one that is found."""
    videos: Literal[914, 423] = 914
    """The published list of FACT's videos to compare with: 914, split 731/183, as in the P-JEPA paper, or the newer one
    of 423, split 337/86."""
    features_rate: Rate | None = None
    """Slots per second on disk: 10 for FACT's features; required with ``csv``."""
    rate: Rate | None = None
    """Subsample to this rate: keeps the slot at or just before each moment, with its time. The paper uses 4."""
    time_axis: Axis | None = None
    """0 for (T, D) arrays, 1 for (D, T). None: determined from the shapes."""
    half: bool = False
    """Store float16."""

    @property
    def source_rate(self) -> Rate:
        """Slots per second on disk, by default FACT's."""
        return self.features_rate or FACT_RATE

    @property
    def step(self) -> float:
        """Slots on disk per slot that is kept.

        Raises:
            InputError: a rate above that on disk.
        """
        step = 1.0 if self.rate is None else float(self.source_rate / self.rate)
        if step < 1:
            raise InputError(f"rate {self.rate}: above that of the features on disk, {self.source_rate} Hz")
        return step


class EgoProceL:
    """`keystep.datasets.survey.Preparer` of EgoProceL."""

    name = "egoprocel"
    title = "EgoProceL"
    source = f"features and labels: {FACT_SOURCE}; the original annotations: {CSV_SOURCE}"
    frames_per_second = float(FACT_RATE)

    def __init__(self, config: EgoProceLConfig | None = None) -> None:
        self.config = config or EgoProceLConfig()

    def survey(self, root: Path) -> Survey:
        """See `Preparer`. Reads labels, annotations and array headers."""
        layout = self.layout(root)
        return self._survey_fact(_fact_root(root)) if layout == "fact" else self._survey_csv(root)

    def write(self, root: Path, out: Path, problems: Problems) -> None:
        """See `Preparer`. Every ``<video>.json`` states the layout of the source or, with ``csv``, the task."""
        if self.layout(root) == "fact":
            self._write_fact(_fact_root(root), out, problems)
        else:
            self._write_csv(root, out, problems)

    def layout(self, root: Path) -> Layout:
        """The layout of a download.

        Raises:
            InputError: no folder, or neither layout.
        """
        if not root.is_dir():
            raise InputError(f"{root}: no such folder; download EgoProceL from {self.source}")
        if self.config.layout != "auto":
            return self.config.layout
        inner = _fact_root(root)
        if (inner / "groundTruth").is_dir() or (inner / "mapping.txt").is_file() or _splits(inner):
            return "fact"
        if any((root / "annotations").rglob("*.csv")):
            return "csv"
        raise InputError(
            f"{root}: neither FACT's layout (groundTruth/, mapping.txt) nor the authors' (annotations/**/*.csv); "
            f"{self.source}"
        )

    def _survey_fact(self, root: Path) -> Survey:
        splits, notes = _splits(root), ["layout: FACT's"]
        missing = _missing_of_fact(root, splits)
        counts: dict[str, int] = {}
        for name, parts in splits.items():
            prefix = "" if name == "1" else f"split{name} "
            counts |= {f"{prefix}{part}": len(videos) for part, videos in parts.items()}
        if (root / "mapping.txt").exists():
            counts["classes"] = len(read_mapping(root / "mapping.txt"))
        if not missing:
            problems = SurveyProblems()
            folder = open_dataset(root, source_rate=self.config.source_rate, problems=problems)
            listed = {video for parts in splits.values() for videos in parts.values() for video in videos}
            used = listed | set(problems.skipped)
            counts |= _counts(folder, problems)
            notes += problems.notes
            absent = [
                Missing(root / "features" / f"{video}.npy", FACT_SOURCE)
                for video in sorted(listed - set(folder.videos) - set(problems.skipped))
            ]
            unlabelled = [name for name, video in folder.videos.items() if video.labels is None and name in listed]
            absent += [Missing(root / "groundTruth" / f"{name}.txt", FACT_SOURCE) for name in unlabelled]
            bad = [
                Missing(root / "features" / f"{video}.npy", FACT_SOURCE, damage=line)
                for video, line in problems.skipped.items()
                if video in used and video not in unlabelled
            ]
            for group, what in ((absent, "files are missing"), (bad, "videos cannot be used")):
                few, more = summarise_missing(group, what)
                missing, notes = [*missing, *few], [*notes, *more]
        published = LISTS[self.config.videos]
        notes += [
            f"these are the {videos} videos of the other published list; set videos={videos} to compare with it"
            for videos, other in LISTS.items()
            if videos != self.config.videos and other.items() <= counts.items()
        ]
        return Survey(counts, published | {"classes": CLASSES}, tuple(missing), tuple(notes))

    def _write_fact(self, root: Path, out: Path, problems: Problems) -> None:
        splits = _splits(root)
        require(Survey({}, {}, tuple(_missing_of_fact(root, splits))))
        folder = open_dataset(root, source_rate=self.config.source_rate, problems=problems)
        names = [name for parts in splits.values() for videos in parts.values() for name in videos]
        for name in names:
            if name not in folder.videos and name not in problems.skipped:
                problems.attempt(name, lambda name=name: _raise_missing(root / "features" / f"{name}.npy"))  # type: ignore[misc]
        store = self._store(out, "FACT")
        write_lines(out / "mapping.txt", (f"{index} {name}" for index, name in enumerate(folder.classes)))
        for name in dict.fromkeys(names):
            if name in folder.videos and not (out / "features" / f"{name}.npy").exists():
                problems.attempt(name, lambda name=name: self._add_fact(store, folder, name, problems))  # type: ignore[misc]
        write_splits(out, splits, problems)
        store.finish()

    def _add_fact(self, store: FeatureStore, folder: FeatureFolder, name: str, problems: Problems) -> None:
        features, labels = folder.features(name), folder.frame_labels(name)
        kept = thin_slots(len(features), self.config.step)
        problems.notes += note_lost_segments(name, labels, kept, labels[kept])
        store.add(
            name,
            features[kept].astype("float16" if self.config.half else "float32"),
            {"source": "FACT"},
            labels=[folder.classes[label] if label >= 0 else UNLABELLED for label in labels[kept]],
            times=self._times(kept),
        )

    def _survey_csv(self, root: Path) -> Survey:
        problems = SurveyProblems()
        listed = egoprocel_csv.read_tree(root, self.config.time_axis, problems)
        notes, missing = ["layout: the authors' annotations", *listed.notes], list[Missing]()
        bad = [
            Missing(path, CSV_SOURCE if path.suffix == ".csv" else FEATURES_SOURCE, damage=problems.skipped[name])
            for name, path in listed.damaged.items()
        ]
        absent = [
            Missing(root / "features" / f"{video.name}.npy", FEATURES_SOURCE) for video in listed.without_features
        ]
        if not listed.paths:
            missing, absent = [Missing(root / "features", FEATURES_SOURCE)], []
        for parts, what in ((absent, "files are missing"), (bad, "files cannot be used")):
            few, more = summarise_missing(parts, what)
            missing, notes = [*missing, *few], [*notes, *more]
        if self.config.features_rate is None:
            notes.append("features_rate is not set; writing needs it (slots per second of your arrays)")
        return Survey(listed.counts(), {"tasks": TASKS}, tuple(missing), tuple(notes))

    def _write_csv(self, root: Path, out: Path, problems: Problems) -> None:
        if self.config.features_rate is None:
            raise InputError(f"{root}: set features_rate to the slots per second of your arrays (layout csv)")
        listed = egoprocel_csv.read_tree(root, self.config.time_axis, problems)
        if not listed.paths:
            raise InputError(f"{root / 'features'}: no arrays here that can be used; {FEATURES_SOURCE}")
        for video in listed.without_features:
            problems.attempt(video.name, lambda video=video: _raise_without_features(root, video))  # type: ignore[misc]
        store = self._store(out, "EgoProceL's CSV annotations")
        write_lines(out / "mapping.txt", (f"{index} {name}" for index, name in enumerate(listed.classes)))
        for video in listed.with_features:
            if not (out / "features" / f"{video.name}.npy").exists():
                problems.attempt(video.name, lambda video=video: self._add_csv(store, listed, video, problems))  # type: ignore[misc]
        write_splits(out, {"1": listed.split()}, problems)
        store.finish()

    def _add_csv(
        self, store: FeatureStore, listed: egoprocel_csv.Tree, video: egoprocel_csv.AnnotatedVideo, problems: Problems
    ) -> None:
        features = listed.features(video)
        kept = thin_slots(len(features), self.config.step)
        times = kept / float(self.config.source_rate)
        found = listed.labels(video, times)
        labels = found.labels
        notes = check_covered(video.name, found, len(video.segments), times, "features_rate")
        if found.claimed:
            notes.append(f"{video.name}: key-steps overlap in {found.claimed} slots; the one that starts later is used")
        if not any(label != BACKGROUND for label in labels):
            notes.append(f"{video.name}: no slot is within a key-step; check features_rate")
        problems.notes += notes
        store.add(
            video.name,
            features[kept].astype("float16" if self.config.half else "float32"),
            {"task": video.task},
            labels=labels,
            times=self._times(kept),
        )

    def _store(self, out: Path, what: str) -> FeatureStore:
        config = self.config
        timeline = Timeline(rate=config.rate or config.source_rate)
        settings = config.model_dump(mode="json", exclude={"layout", "time_axis", "videos"})
        made = {"data_set": self.name, "annotation": what, "settings": settings}
        return FeatureStore(out, timeline, "native", made).create()

    def _times(self, kept: Array) -> Array | None:
        """Explicit seconds, if subsampling gives irregular slots."""
        return None if self.config.step.is_integer() else kept / float(self.config.source_rate)


def _fact_root(root: Path) -> Path:
    """The folder itself, or the ``egoprocel`` in FACT's ``data`` folder."""
    inner = root / "egoprocel"
    return inner if inner.is_dir() and not (root / "groundTruth").exists() else root


def _splits(root: Path) -> dict[str, dict[str, list[str]]]:
    """Split name -> part -> videos, from ``split1.train``, ``split1.test`` or from ``splits/train.split1.bundle``."""
    splits: dict[str, dict[str, list[str]]] = {}
    for path in sorted([*root.glob("split*.t*"), *(root / "splits").glob("t*.split*.bundle")]):
        first, second = path.name.removesuffix(".bundle").split(".", 1)
        part, name = (first, second) if path.suffix == ".bundle" else (second, first)
        if part in ("train", "test"):
            videos = [line.removesuffix(".txt").removesuffix(".npy") for line in read_lines(path)]
            splits.setdefault(name.removeprefix("split"), {})[part] = videos
    return splits


def _missing_of_fact(root: Path, splits: dict[str, dict[str, list[str]]]) -> list[Missing]:
    """The missing necessary parts, including both parts of each split."""
    needed = [root / part for part in ("features", "groundTruth", "mapping.txt")]
    missing = [Missing(path, FACT_SOURCE) for path in needed if not path.exists()]
    for name, parts in (splits or {"1": {}}).items():
        for part in ("train", "test"):
            bundle = root / "splits" / f"{part}.split{name}.bundle"
            path = bundle if bundle.parent.is_dir() else root / f"split{name}.{part}"
            if not parts.get(part):
                missing.append(Missing(path, FACT_SOURCE, damage=f"{path}: lists no video" if part in parts else ""))
    return missing


def _counts(folder: FeatureFolder, problems: Problems) -> dict[str, int]:
    """Counts for the survey, of videos with valid labels."""
    found = {
        name: problems.attempt(name, lambda name=name: folder.frame_labels(name))  # type: ignore[misc]
        for name in folder.videos
    }
    labels = {name: ids for name, ids in found.items() if ids is not None}
    background = folder.classes.index(BACKGROUND) if BACKGROUND in folder.classes else 0
    segments = 0
    for ids in labels.values():
        starts = [0]
        for length in segment_lengths(ids):
            starts.append(starts[-1] + length)
        segments += sum(ids[start] != background for start in starts[:-1])
    return {
        "videos": len(labels),
        "frames": sum(folder.videos[name].frames for name in labels),
        "segments": int(segments),
    }


def _raise_missing(path: Path) -> None:
    raise InputError(f"{path}: missing, though a split lists the video; it comes from {FACT_SOURCE}")


def _raise_without_features(root: Path, video: egoprocel_csv.AnnotatedVideo) -> None:
    raise InputError(f"{root / 'features'}: no features for {video.path.relative_to(root)}; {FEATURES_SOURCE}")
