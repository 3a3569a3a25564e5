"""LeRobot's subtask columns, as in its v3 layout (https://huggingface.co/docs/lerobot/main/dataset_subtask)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from keystep.data.annotation import UNLABELLED
from keystep.exchange.formats import Frames, Recording, missing_extra

SUBTASKS, DATA, EPISODES = (
    "meta/subtasks.parquet",
    "data/chunk-000/file-000.parquet",
    "meta/episodes/chunk-000/file-000.parquet",
)


class LeRobot:
    """A subtask_index for each frame of each episode; a video is an episode, in the order of names."""

    ending = ""
    loses = "lerobot has a subtask for every frame: frames without a label get one of that name"
    needs_frames = needs_video = False
    read = None

    def files(self, names: Sequence[str]) -> list[str]:
        """Names of the subtasks, columns by frame, and which episode is which video."""
        return [SUBTASKS, DATA, EPISODES]

    def write(self, recordings: Sequence[Recording], classes: Sequence[str], folder: Path) -> None:
        """Only the columns that subtasks need: they are joined to a data set by episode and frame."""
        arrow = _pyarrow()
        none = len(classes)  # an index of -1 would be read as the last subtask
        columns = [
            _frames(recording, {name: index for index, name in enumerate(classes)}, none) for recording in recordings
        ]
        lengths = [len(labels) for _, labels in columns]
        names = [*classes, UNLABELLED] if any((labels == none).any() for _, labels in columns) else [*classes]
        frames = np.concatenate([np.arange(length) for length in lengths])
        rates = np.repeat([float(rate) for rate, _ in columns], lengths)
        tables = {
            SUBTASKS: _indexed(arrow, names),
            DATA: arrow.table(
                {
                    "index": np.arange(sum(lengths)),
                    "episode_index": np.repeat(np.arange(len(lengths)), lengths),
                    "frame_index": frames,
                    "timestamp": (frames / rates).astype(np.float32),
                    "subtask_index": np.concatenate([labels for _, labels in columns]),
                }
            ),
            EPISODES: arrow.table(
                {
                    "episode_index": np.arange(len(lengths)),
                    "video": [recording.name for recording in recordings],
                    "length": np.array(lengths),
                    "fps": [float(rate) for rate, _ in columns],
                }
            ),
        }
        for file, table in tables.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            arrow.parquet.write_table(table, folder / file)


def _frames(recording: Recording, ids: dict[str, int], none: int) -> tuple[Any, np.ndarray]:
    """(frames a second, (frames,) subtasks): of the video, or of the slots where its frames are not known."""
    frames = recording.frames or Frames(recording.rate)
    labels = np.full(frames.count or frames.shown(recording.end), none, np.int64)
    for first, stop, label in recording.in_frames(frames):
        labels[first:stop] = ids[label]
    return frames.rate, labels


def _indexed(arrow: ModuleType, names: Sequence[str]) -> Any:
    """The table of subtasks as pandas writes it, with their names as its index."""
    kinds = {"subtask_index": ("int64", "int64"), "subtask": ("unicode", "object")}
    columns = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy_type, "metadata": None}
        for name, (kind, numpy_type) in kinds.items()
    ]
    about = {"index_columns": ["subtask"], "column_indexes": [], "columns": columns, "pandas_version": "2.0.0"}
    table = arrow.table({"subtask_index": np.arange(len(names)), "subtask": list(names)})
    return table.replace_schema_metadata({"pandas": json.dumps(about)})


def _pyarrow() -> ModuleType:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_extra("writing LeRobot's columns", "pyarrow") from error
    found: ModuleType = pyarrow
    return found
