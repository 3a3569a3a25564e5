"""Small folders to export from and to import into."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from keystep.data.annotation import IGNORED, UNLABELLED
from keystep.data.timeline import Timeline


@pytest.fixture(autouse=True, scope="session")
def unsynced() -> Iterator[None]:
    """Nobody pulls the plug of these folders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session")
def write() -> Callable[..., Path]:
    """Writes feature folders, see `write_folder`."""
    return write_folder


def write_folder(
    root: Path,
    timeline: Timeline,
    lengths: Mapping[str, int],
    labels: Mapping[str, Sequence[int]] | None = None,
    classes: Sequence[str] = ("cut", "stir", "pour"),
) -> Path:
    """Videos of so many slots, and class ids of some of them."""
    (root / "features").mkdir(parents=True)
    for name, length in lengths.items():
        np.save(root / "features" / f"{name}.npy", np.zeros((length, 2), np.float32))
    store = {"format": "keystep-features", "version": 1, "time_axis": 0, "timeline": timeline.to_json()}
    (root / "store.json").write_text(json.dumps(store))
    if labels is not None:
        (root / "groundTruth").mkdir()
        for name, own in labels.items():
            lines = [UNLABELLED if label == IGNORED else classes[label] for label in own]
            (root / "groundTruth" / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
        (root / "mapping.txt").write_text("".join(f"{index} {label}\n" for index, label in enumerate(classes)))
    return root
