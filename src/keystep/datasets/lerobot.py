"""LeRobot data sets, version 3: columns of the robot's state and action as features, subtasks as labels.

::

    meta/info.json                                 fps, features, splits ({"train": "0:50"}), total_episodes
    meta/episodes/chunk-000/file-000.parquet       episode_index, length, data/chunk_index, data/file_index
    meta/subtasks.parquet, meta/tasks.parquet      subtask_index (task_index), and the name as pandas' index
    data/chunk-000/file-000.parquet                one row per frame: episode_index, frame_index, subtask_index,
                                                   observation.state, action; many episodes per file
    videos/<camera>/chunk-000/file-000.mp4         many episodes per file; not read

Sources: huggingface.co/docs/lerobot, "LeRobotDataset v3.0" and "Using Subtasks"; names of columns from
src/lerobot/datasets/utils.py of github.com/huggingface/lerobot. Subtasks in the language columns of version 3.1
(``language_persistent``) are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from keystep.config import Config
from keystep.data.annotation import UNLABELLED, composed, segment_lengths
from keystep.data.problems import Problems
from keystep.data.slots import pool_mean
from keystep.data.store import FeatureStore
from keystep.data.timeline import Timeline
from keystep.datasets.subsampling import How, Subsampling, class_names
from keystep.datasets.survey import Missing, Survey, SurveyProblems, check_root, require, summarise_missing
from keystep.datasets.tree import write_splits
from keystep.errors import InputError, named
from keystep.files import write_lines
from keystep.reading import Record, column_names, read_columns, read_record
from keystep.types import parse_rate

DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
PARTS = {"train": "train", "val": "valid", "valid": "valid", "validation": "valid", "test": "test"}
"""Split of ``info.json`` -> part of a split here."""


class LeRobotConfig(Config):
    """Options of the conversion."""

    columns: tuple[str, ...] = Field(default=("observation.state", "action"), min_length=1)
    """Columns of numbers that are joined to the features, in this order."""
    labels: Literal["subtask", "task"] = "subtask"
    """``subtask``: the label of a frame is its subtask. ``task``: its task, often one for a whole episode."""
    every: int = Field(default=1, ge=1)
    """Frames per slot."""
    how: How = "stride"
    """``stride``: the first of these frames. ``average``: the mean of all."""
    half: bool = False
    """Store float16 instead of float32."""

    def timeline(self, rate: Fraction) -> Timeline:
        """Of the slots; a sensor's reading is of its moment, so that averages look back, and nothing looks ahead.

        Args:
            rate: frames per second.
        """
        frames = Timeline(rate=rate, alignment="right")
        return frames.pooled(self.every) if self.how == "average" else replace(frames, rate=rate / self.every)


class Info(Record):
    """The parts of ``meta/info.json`` that are read."""

    codebase_version: str
    fps: float = Field(gt=0)
    total_episodes: int = Field(ge=0)
    total_frames: int = Field(ge=0)
    splits: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class Tree:
    """A download.

    Attributes:
        root: its folder.
        info: ``meta/info.json``.
        label: ``subtask`` or ``task``.
    """

    root: Path
    info: Info
    label: str
    _held: dict[tuple[Path, tuple[str, ...]], dict[str, np.ndarray]] = field(default_factory=dict, repr=False)

    @cached_property
    def episodes(self) -> Mapping[int, tuple[Path, int]]:
        """Episode -> the file with its frames, and their number."""
        wanted = ("episode_index", "length", "data/chunk_index", "data/file_index")
        found = {}
        for path in sorted((self.root / "meta/episodes").glob("*/*.parquet")):
            columns = read_columns(path, wanted)
            if any(column.dtype.kind not in "iu" for column in columns.values()):
                raise InputError(f"{path}: {', '.join(wanted)} are not whole numbers")
            for episode, length, chunk, file in zip(*(columns[name].tolist() for name in wanted), strict=True):
                found[episode] = self.root / DATA.format(chunk_index=chunk, file_index=file), length
        return dict(sorted(found.items()))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the labels in the order of their indices; empty if the set has none."""
        path = self.root / f"meta/{self.label}s.parquet"
        if not path.exists():
            return ()
        index = f"{self.label}_index"
        texts = [name for name in column_names(path) if name in (self.label, "__index_level_0__")]
        columns = read_columns(path, [index, *(texts or [self.label])[:1]])
        found = dict(zip(columns.pop(index).tolist(), next(iter(columns.values())).tolist(), strict=True))
        names = tuple(composed(" ".join(str(found.get(number, "")).split())) for number in range(len(found)))
        if "" in names or len(set(names)) < len(names):
            raise InputError(f"{path}: names have to be indexed 0, 1, ... and be different; found {named(str(found))}")
        return names

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The names without that of unlabelled frames, which ``keystep annotations export`` writes."""
        return tuple(name for name in self.names if name != UNLABELLED)

    @property
    def label_column(self) -> tuple[str, ...]:
        """The column of labels, if the set has any."""
        return (f"{self.label}_index",) if self.names else ()

    def rows(self, episode: int, columns: tuple[str, ...]) -> dict[str, np.ndarray]:
        """The rows of an episode; the last file that was read is kept for the next one.

        Raises:
            InputError: a bad file, or frames that are not 0, 1, ... as many as ``meta/episodes`` says.
        """
        path, length = self.episodes[episode]
        if (path, columns) not in self._held:
            self._held.clear()
            self._held[path, columns] = read_columns(path, ("episode_index", "frame_index", *columns))
        table = self._held[path, columns]
        mine = table["episode_index"] == episode
        frames = table["frame_index"][mine]
        if len(frames) != length or not np.array_equal(frames, np.arange(len(frames))):
            raise InputError(f"{path}: episode {episode} does not have the frames 0 to {length - 1} of meta/episodes")
        return {column: table[column][mine] for column in columns}

    def labels(self, episode: int, rows: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """(T,) indices of `classes`, negative if unlabelled, from the rows of an episode. None: no labels.

        Raises:
            InputError: an index that has no name.
        """
        if not self.names:
            return None
        (column,) = self.label_column
        ids = rows[column]
        if ids.dtype.kind not in "iu" or (len(ids) and not 0 <= ids.min() <= ids.max() < len(self.names)):
            raise InputError(
                f"{self.episodes[episode][0]}: episode {episode} has a {column} that is none of the "
                f"{len(self.names)} in meta/{self.label}s.parquet"
            )
        places = {name: place for place, name in enumerate(self.classes)}
        classes: np.ndarray = np.array([places.get(name, -1) for name in self.names])[ids]
        return classes

    def splits(self) -> dict[str, dict[str, list[str]]]:
        """Split -> part -> episodes, from ``info.json``; empty if it has no test part."""
        parts = {
            PARTS[name]: [episode_name(episode) for episode in self.episodes if episode in _span(self.root, span)]
            for name, span in self.info.splits.items()
            if name in PARTS
        }
        return {"1": parts} if parts.get("train") and parts.get("test") else {}


class LeRobot:
    """`keystep.datasets.survey.Preparer` of any data set in LeRobot's version 3."""

    name = "lerobot"
    title = "LeRobot data sets (version 3): state and action as features, subtasks as labels"
    source = "huggingface.co/datasets?other=LeRobot (older ones: convert with lerobot's convert_dataset_v21_to_v30)"

    def __init__(self, config: LeRobotConfig | None = None) -> None:
        self.config = config or LeRobotConfig()

    def survey(self, root: Path) -> Survey:
        """See `Preparer`. Reads the tables of ``meta`` and the column of labels; "published" is what info.json says."""
        check_root(root)
        needed = [root / "meta/info.json", root / "meta/episodes"]
        missing = tuple(Missing(path, self.source) for path in needed if not path.exists())
        if missing:
            return Survey({}, {}, missing)
        tree, problems = self.tree(root), SurveyProblems()
        absent = {path for path, _ in tree.episodes.values() if not path.exists()}
        there = {episode for episode, (path, _) in tree.episodes.items() if path not in absent}
        labels = [
            problems.attempt(episode_name(number), lambda number=number: _survey_labels(tree, number))  # type: ignore[misc]
            for number in sorted(there)
        ]
        bad = [Missing(root / "data", self.source, damage=line) for line in problems.skipped.values()]
        parts, notes = summarise_missing([Missing(path, self.source) for path in sorted(absent)], "files are missing")
        more, others = summarise_missing(bad, "episodes cannot be used")
        counts = {
            "videos": len(there) - len(bad),
            "frames": sum(tree.episodes[episode][1] for episode in there),
            "classes": len(tree.classes),
            "segments": sum(len(segment_lengths(ids)) for ids in labels if ids is not None),
        }
        published = {"videos": tree.info.total_episodes, "frames": tree.info.total_frames}
        return Survey(counts, published, (*parts, *more), (*notes, *others, *_notes(tree)))

    def write(self, root: Path, out: Path, problems: Problems) -> None:
        """See `Preparer`. A split is written if ``info.json`` has a test part."""
        require(self.survey(root))
        tree, config = self.tree(root), self.config
        provenance = {"data_set": self.name, "settings": config.model_dump(mode="json")}
        store = FeatureStore(out, config.timeline(parse_rate(tree.info.fps)), "native", provenance).create()
        write_lines(out / "mapping.txt", (f"{label} {name}" for label, name in enumerate(tree.classes)))
        for episode in tree.episodes:
            name = episode_name(episode)
            if not store.has(name):
                problems.attempt(name, lambda episode=episode: self._add(store, tree, episode))  # type: ignore[misc]
        write_splits(out, tree.splits(), problems)
        store.finish()

    def tree(self, root: Path) -> Tree:
        """Read ``meta/info.json``.

        Raises:
            InputError: it is damaged, or of another version than 3.
        """
        path = root / "meta/info.json"
        info = read_record(path, Info)
        if not info.codebase_version.startswith("v3."):
            raise InputError(
                f"{path}: version {named(info.codebase_version)}; version 3 is read; convert it with lerobot's "
                "convert_dataset_v21_to_v30"
            )
        return Tree(root, info, self.config.labels)

    def _add(self, store: FeatureStore, tree: Tree, episode: int) -> None:
        subsampling = Subsampling(self.config.every, self.config.how)
        rows = tree.rows(episode, (*self.config.columns, *tree.label_column))
        columns = [_numbers(tree, episode, name, rows[name]) for name in self.config.columns]
        features, ids = np.concatenate(columns, axis=1), tree.labels(episode, rows)
        labels = None if ids is None else class_names(subsampling.labels(ids, len(tree.classes)), tree.classes)
        kept = pool_mean(features[subsampling.frames(len(features))], subsampling.pool)
        store.add(episode_name(episode), kept.astype(np.float16 if self.config.half else np.float32), labels=labels)


def episode_name(episode: int) -> str:
    """Name of an episode as a video."""
    return f"episode_{episode:06d}"


def _survey_labels(tree: Tree, episode: int) -> np.ndarray | None:
    """The labels of an episode, whose features are not read."""
    return tree.labels(episode, tree.rows(episode, tree.label_column))


def _numbers(tree: Tree, episode: int, name: str, column: np.ndarray) -> np.ndarray:
    """(T, D) float32 of a column with D numbers or one number per frame."""
    if column.dtype.kind not in "fiub":
        raise InputError(f"{tree.episodes[episode][0]}: column {named(name)} does not hold numbers; set columns")
    return column.reshape(len(column), -1).astype(np.float32)


def _span(root: Path, text: str) -> range:
    """The episodes ``first:stop`` of a split."""
    first, _, stop = text.partition(":")
    if not (first.isdecimal() and stop.isdecimal()):
        raise InputError(f"{root / 'meta/info.json'}: a split of {named(text)}; expected 'first:stop'")
    return range(int(first), int(stop))


def _notes(tree: Tree) -> list[str]:
    notes = []
    if not tree.names:
        notes.append(f"no meta/{tree.label}s.parquet: episodes are written without labels")
    if not tree.splits():
        notes.append("info.json has no test part: no split is written; keystep split makes folds")
    return notes
