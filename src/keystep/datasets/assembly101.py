"""Assembly101 for temporal action segmentation: TSM features of selected views with coarse labels.

::

    coarse-annotations/   see `keystep.datasets.coarse_annotations`
    TSM_features/         see `keystep.datasets.frame_features`
    annots/               mistake labels (optional), see `keystep.datasets.assembly101_mistakes`

A video is one assembly or disassembly of a recording in one view, from the first labelled frame to the last, as in both
public loaders. The official validation part is used for testing, because the official test labels are withheld.
Validation videos are held out from the training recordings, with all takes and views of a person on one side.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from pydantic import Field

from keystep.config import Config
from keystep.data.annotation import hold_out, hold_out_groups, segment_lengths
from keystep.data.groups import groups_by_pattern, write_groups
from keystep.data.mistakes import write_mistakes
from keystep.data.problems import Problems
from keystep.data.slots import pool_mean
from keystep.data.store import FeatureStore
from keystep.data.timeline import Timeline
from keystep.datasets import coarse_annotations
from keystep.datasets.assembly101_mistakes import SPLIT, in_slots, mistakes_folder, one_class, read_mistake_labels
from keystep.datasets.coarse_annotations import KINDS, PARTS, Take, label_path, read_actions, read_takes, split_path
from keystep.datasets.frame_features import FrameFeatures, features_folder, open_features
from keystep.datasets.subsampling import How, Subsampling, class_names
from keystep.datasets.survey import (
    Missing,
    Survey,
    SurveyProblems,
    check_root,
    first_existing,
    require,
    summarise_missing,
)
from keystep.datasets.tree import without_progress
from keystep.errors import InputError
from keystep.files import write_lines

RATE = Fraction(30)
"""Frames per second of annotations and features."""
ANNOTATIONS = coarse_annotations.SOURCE
FEATURES = (
    "TSM_features of huggingface.co/datasets/cvml-nus/assembly101, or the drive that assembly-101.github.io names"
)
PERSON = "_([0-9]+)_user_id_"
"""Matches the person in the name of a recording, such as 9011 in nusar-2021_action_both_9011-a01_9011_user_id_..."""
ONE_VIEW = "C10119"
PUBLISHED = {"classes": 202}
"""The README of the annotations: 202 coarse actions."""
PUBLISHED_ONE_VIEW = {"training videos": 393, "validation videos": 120}
"""P-JEPA (arXiv 2606.23256), for the view C10119 only."""
CHUNK = 4096
"""Maximum number of frames that are read at once for averaging."""


@dataclass(frozen=True)
class _Annotations:
    """The annotations of a download.

    Attributes:
        missing: missing parts.
        folder: of the annotations.
        classes: class names in the order of their ids.
        takes: annotated sequences.
        features: folder of the features. None: missing.
        mistakes: folder of the mistake labels. None: there is none.
    """

    missing: tuple[Missing, ...]
    folder: Path
    classes: tuple[str, ...]
    takes: tuple[Take, ...]
    features: Path | None
    mistakes: Path | None

    def mistake_labels(self, take: Take) -> Path | None:
        """The file of a take's mistake labels. None: there is none."""
        path = self.mistakes / f"{take.recording}.csv" if self.mistakes and take.kind == "assembly" else None
        return path if path is not None and path.exists() else None


@dataclass(frozen=True)
class _TakeView:
    """A take in one view; ``first`` to ``stop`` are the frames with features and labels."""

    name: str
    take: Take
    view: str
    first: int
    stop: int


class Assembly101Config(Config):
    """Options of the conversion."""

    view: str = ONE_VIEW
    """A camera, such as C10119 (used in the paper) or C10095_rgb, or ``all``, which makes one video per camera."""
    every: int = Field(default=8, ge=1)
    """Frames (at 30 Hz) per slot; 8, as in the paper, gives 3.75 slots per second."""
    how: How = "stride"
    """``stride``: the first of these frames, as in the paper. ``average``: the mean of all."""
    challenge: bool = False
    """Also write the test part, whose labels are withheld; its videos are in no split."""
    first_frame: int = Field(default=0, ge=0)
    """Frame number of the first column of features.npy. (LMDB keys contain frame numbers.)"""
    half: bool = False
    """Store float16 instead of float32."""


class Assembly101:
    """`keystep.datasets.survey.Preparer` of Assembly101."""

    name = "assembly101"
    title = "Assembly101: coarse steps of taking toys apart and together, TSM features"
    source = "assembly-101.github.io; annotations: github.com/assembly-101/assembly101-annotations"

    def __init__(self, config: Assembly101Config | None = None) -> None:
        self.config = config or Assembly101Config()

    def survey(self, root: Path) -> Survey:
        """See `Preparer`. Reads all annotations, but only the frame numbers of the features."""
        problems = SurveyProblems()
        tree = self._tree(root, problems)
        takes, notes = tree.takes, list[str]()
        bad = []
        for name, line in problems.skipped.items():
            path = label_path(tree.folder, *name.split("_", 1))
            bad.append(Missing(path, ANNOTATIONS, damage=line if path.exists() else ""))
        counts = {"classes": len(tree.classes)} if tree.classes else {}
        published = dict(PUBLISHED)
        videos = [_TakeView(take.name, take, "", take.start, take.stop) for take in takes]
        if tree.features is not None:
            with open_features(tree.features, self.config.first_frame) as features:
                without = set(problems.skipped)
                videos, notes = self._videos(tree, features, problems)
                bad += [
                    Missing(tree.features / name, FEATURES, damage=line)
                    for name, line in problems.skipped.items()
                    if name not in without
                ]
            if self.config.view.partition("_")[0] == ONE_VIEW:
                published |= PUBLISHED_ONE_VIEW
        for part, name in zip(PARTS, ("training videos", "validation videos", "unlabelled test videos"), strict=True):
            if any(take.part == part for take in takes):
                counts[name] = sum(video.take.part == part for video in videos)
        if takes:
            labelled = [video for video in videos if video.take.part != "test"]
            counts["recordings"] = len({video.take.recording for video in videos})
            counts["segments"] = sum(_segments(video) for video in labelled)
            if tree.mistakes is not None:
                counts["videos with mistake labels"] = sum(
                    tree.mistake_labels(video.take) is not None for video in videos
                )
            counts["labelled frames at 30 Hz"] = sum(video.stop - video.first for video in labelled)
        few, more = summarise_missing(bad, "files of takes cannot be used")
        return Survey(counts, published, (*tree.missing, *few), (*more, *notes))

    def write(self, root: Path, out: Path, problems: Problems) -> None:
        """See `Preparer`. Takes are cut to the frames that have features, with a note."""
        tree = self._tree(root, problems)
        require(Survey({}, {}, tree.missing))
        assert tree.features is not None
        timeline = Timeline(rate=RATE / self.config.every)
        provenance = {"data_set": self.name, "settings": self.config.model_dump(mode="json")}
        with open_features(tree.features, self.config.first_frame) as features:
            videos, notes = self._videos(tree, features, problems)
            problems.notes.extend(notes)
            if not videos:
                raise InputError(
                    f"{tree.features}: no features of view {self.config.view} for any take; download this view"
                )
            store = FeatureStore(out, timeline, "native", provenance).create()
            write_lines(out / "mapping.txt", (f"{label} {name}" for label, name in enumerate(tree.classes)))
            for video in videos:
                if not (out / "features" / f"{video.name}.npy").exists():
                    problems.attempt(
                        video.name,
                        lambda video=video: self._write(store, features, video, tree, problems),  # type: ignore[misc]
                    )
        problems.notes.extend(_write_splits(out, videos, tree))
        store.finish()

    def _tree(self, root: Path, problems: Problems) -> _Annotations:
        check_root(root)
        folder = next(
            (root / name for name in coarse_annotations.FOLDERS if (root / name / "coarse_labels").is_dir()),
            first_existing(root, coarse_annotations.FOLDERS[:2]),
        )
        features = features_folder(root)
        missing = _missing_annotations(folder)
        if features is None:
            missing.append(Missing(root / "TSM_features", FEATURES))
        classes = read_actions(folder / "actions.csv") if (folder / "actions.csv").exists() else ()
        parts = PARTS if self.config.challenge else PARTS[:2]
        readable = parts if classes and (folder / "coarse_labels").is_dir() else ()
        quiet = without_progress(problems)
        takes = tuple(take for part in readable for take in read_takes(folder, part, classes, quiet))
        return _Annotations(tuple(missing), folder, classes, takes, features, mistakes_folder(root))

    def _videos(
        self, tree: _Annotations, features: FrameFeatures, problems: Problems
    ) -> tuple[list[_TakeView], list[str]]:
        """The takes with features in the selected views, and notes about the others."""
        views, quiet = self._views(features), without_progress(problems)
        videos, absent, empty, cut = [], [], [], 0
        for take in tree.takes:
            names = {view: f"{take.name}_{view}" if self.config.view == "all" else take.name for view in views}
            spans = {
                view: quiet.attempt(name, lambda view=view, take=take: features.span(take.recording, view))  # type: ignore[misc]
                for view, name in names.items()
            }
            if not any(spans.values()) and not problems.skipped.keys() & names.values():
                absent.append(take.name)  # no recording has all 16 cameras
            for view, span in spans.items():
                if span is None:
                    continue
                name = names[view]
                first, stop = max(take.start, span[0]), min(take.stop, span[1])
                if stop <= first:
                    empty.append(name)
                    continue
                videos.append(_TakeView(name, take, view, first, stop))
                cut += stop - first < take.stop - take.start
        why = {f"without features of {self.config.view}": absent, "with features that end before the first step": empty}
        notes = [f"{len(names)} takes left out, {reason}, such as {names[0]}" for reason, names in why.items() if names]
        if cut:
            notes.append(f"{cut} takes have labels beyond their features; these labels are left out")
        return videos, notes

    def _views(self, features: FrameFeatures) -> tuple[str, ...]:
        if self.config.view == "all":
            return features.views
        exact = [
            view for view in features.views if view == self.config.view or view.partition("_")[0] == self.config.view
        ]
        if not exact:
            near = difflib.get_close_matches(self.config.view, features.views, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]}?" if near else "give --set view=NAME"
            raise InputError(f"no features of view {self.config.view!r} among {', '.join(features.views)}; {hint}")
        return tuple(exact)

    def _write(
        self,
        store: FeatureStore,
        features: FrameFeatures,
        video: _TakeView,
        tree: _Annotations,
        problems: Problems,
    ) -> None:
        subsampling, take, count = Subsampling(self.config.every, self.config.how), video.take, video.stop - video.first
        rows = _read(features, video, subsampling)
        ids = subsampling.labels(take.frame_labels(video.first, video.stop), len(tree.classes))
        lengths = subsampling.segments(take.frame_segments(video.first, video.stop))
        total = len(take.bounds)
        if take.part != "test" and len(lengths) < total:
            problems.notes.append(f"{video.name}: {total - len(lengths)} of {total} segments get no slot")
        labelled, path = take.part != "test", tree.mistake_labels(take)
        if path is not None:
            found = in_slots(read_mistake_labels(path), video.first, self.config.every, len(rows))
            write_mistakes(store.root, video.name, found)
        store.add(
            video.name,
            rows.astype(np.float16 if self.config.half else np.float32),
            {"recording": take.recording, "view": video.view, "first_frame": video.first},
            labels=class_names(ids, tree.classes) if labelled else None,
            segments=lengths if labelled and lengths != segment_lengths(ids) else None,
            times=subsampling.times(video.first, len(rows), count, RATE),
        )


def _missing_annotations(folder: Path) -> list[Missing]:
    """Missing parts of the annotations; the lists of the test part are not needed."""
    if not folder.is_dir():
        return [Missing(folder, ANNOTATIONS)]
    needed = [folder / "actions.csv", folder / "coarse_labels"]
    needed += [split_path(folder, part, kind) for part in PARTS[:2] for kind in KINDS]
    missing = [Missing(path, ANNOTATIONS) for path in needed if not path.exists()]
    unneeded = [split_path(folder, PARTS[2], kind) for kind in KINDS]
    return missing + [Missing(path, ANNOTATIONS, needed=False) for path in unneeded if not path.exists()]


def _segments(video: _TakeView) -> int:
    bounds = video.take.bounds
    return int(((bounds[:, 0] < video.stop) & (bounds[:, 1] > video.first)).sum())


def _read(features: FrameFeatures, video: _TakeView, subsampling: Subsampling) -> np.ndarray:
    """(T, 2048) float32 features of the slots, read `CHUNK` frames at a time."""
    frames = video.first + subsampling.frames(video.stop - video.first)
    size = max(1, CHUNK // subsampling.pool) * subsampling.pool
    parts = [
        pool_mean(features.read(video.take.recording, video.view, frames[start : start + size]), subsampling.pool)
        for start in range(0, len(frames), size)
    ]
    return np.concatenate(parts)


def _write_splits(out: Path, videos: list[_TakeView], tree: _Annotations) -> list[str]:
    """Write the splits and groups of the written videos; a note if names do not contain the person."""
    done = [video for video in videos if (out / "features" / f"{video.name}.npy").exists()]
    training = list(dict.fromkeys(video.take.recording for video in done if video.take.part == "train"))
    persons, notes = _persons(done)
    held = set[str]()
    if len({persons.get(recording, "") for recording in training}) > 1:
        held = set(hold_out_groups(training, persons)[1])
    elif len(training) > 1:
        held = set(hold_out(training)[1])
    parts = {
        "train": [video for video in done if video.take.part == "train" and video.take.recording not in held],
        "valid": [video for video in done if video.take.recording in held and video.take.part == "train"],
        "test": [video for video in done if video.take.part == "val"],
    }
    for part, chosen in parts.items():
        if chosen:
            write_lines(out / "splits" / f"{part}.split1.bundle", (video.name for video in chosen))
    labels = {video.name: tree.mistake_labels(video.take) for video in done}
    mistaken = {name: bool(read_mistake_labels(path)) for name, path in labels.items() if path is not None}
    names = {part: [video.name for video in chosen] for part, chosen in parts.items()}
    for part, found in one_class(names, mistaken).items():
        write_lines(out / "splits" / f"{part}.split{SPLIT}.bundle", found)
    if persons:
        write_groups(out, {video.name: persons[video.take.recording] for video in done})
    return notes


def _persons(videos: list[_TakeView]) -> tuple[dict[str, str], list[str]]:
    """Recording -> person; empty with a note if names are not as published."""
    try:
        return groups_by_pattern(PERSON, {video.take.recording for video in videos}), []
    except InputError as error:
        return {}, [f"persons are not known: {str(error).removeprefix('--groups ')}"]
