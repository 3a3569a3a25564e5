"""FiftyOne's FiftyOneTemporalDetectionDataset: labels.json (https://docs.voxel51.com/user_guide/import_datasets.html)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keystep.exchange.formats import Recording
from keystep.files import write_json


class FiftyOne:
    """Detections with the first and the last frame, from 1, or with seconds where frames are not known."""

    ending = ""
    loses = "fiftyone holds whole frames, both ends included"
    needs_frames = needs_video = False
    read = None

    def files(self, names: Sequence[str]) -> list[str]:
        """One for all videos."""
        return ["labels.json"]

    def write(self, recordings: Sequence[Recording], classes: Sequence[str], folder: Path) -> None:
        """Labels are numbers of the list of classes."""
        ids = {name: index for index, name in enumerate(classes)}
        labels = {recording.name: _detections(recording, ids) for recording in recordings}
        write_json(folder / "labels.json", {"classes": list(classes), "labels": labels})


def _detections(recording: Recording, ids: dict[str, int]) -> list[dict[str, Any]]:
    if recording.frames is None:
        return [
            {"label": ids[label], "timestamps": [float(start), float(end)]} for start, end, label in recording.stretches
        ]
    return [
        {"label": ids[label], "support": [first + 1, stop]}
        for first, stop, label in recording.in_frames(recording.frames)
    ]
