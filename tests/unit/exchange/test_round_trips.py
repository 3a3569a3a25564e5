"""What goes out in a format comes back the same, to the slot, at odd rates and with a start offset."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from keystep.data.annotation import IGNORED, UNLABELLED
from keystep.data.folder import FeatureFolder, open_dataset
from keystep.data.timeline import Timeline
from keystep.exchange import FORMATS, export_annotations, import_annotations
from keystep.exchange.formats import class_name, format_of

READABLE = [name for name in FORMATS.own if format_of(name).read is not None]
RATES = [Fraction(30000, 1001), Fraction(4), Fraction(15, 4)]
STARTS = [Fraction(0), Fraction(1, 8), Fraction(37, 100)]
TRICKY = ('say "cheese", please', "a < b & c --> d", "&amp;", "naïve ✂ 切る", "=1+1", "NOTE to self", "-100", "#x")
LABELS = st.lists(st.sampled_from([IGNORED, 0, 1, 2]), min_size=1, max_size=60).filter(lambda own: max(own) >= 0)
NAMES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12).map(class_name).filter(bool)


@pytest.fixture(autouse=True, scope="module")
def unsynced() -> Iterator[None]:
    """Nobody pulls the plug of these folders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


def write(root: Path, lengths: Mapping[str, int], timeline: Timeline) -> Path:
    """A folder without labels."""
    (root / "features").mkdir(parents=True)
    for name, length in lengths.items():
        np.save(root / "features" / f"{name}.npy", np.zeros((length, 2), np.float32))
    store = {"format": "keystep-features", "version": 1, "time_axis": 0, "timeline": timeline.to_json()}
    (root / "store.json").write_text(json.dumps(store))
    return root


def write_labels(root: Path, labels: Mapping[str, Sequence[int]], classes: Sequence[str]) -> None:
    """Labels by class id."""
    (root / "groundTruth").mkdir()
    for name, own in labels.items():
        lines = [UNLABELLED if label == IGNORED else classes[label] for label in own]
        (root / "groundTruth" / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    (root / "mapping.txt").write_text("".join(f"{index} {label}\n" for index, label in enumerate(classes)))


def labels_of(folder: FeatureFolder, name: str) -> list[str | None]:
    """Class names."""
    return [None if label == IGNORED else folder.classes[label] for label in folder.labels(name).tolist()]


@pytest.mark.parametrize("kind", READABLE)
@settings(max_examples=12, deadline=None, phases=[Phase.generate])
@given(
    labels=st.lists(LABELS, min_size=1, max_size=3),
    classes=st.lists(st.one_of(st.sampled_from(TRICKY), NAMES), min_size=3, max_size=3, unique=True),
    rate=st.sampled_from(RATES),
    start=st.sampled_from(STARTS),
)
def test_every_slot_comes_back_with_its_label(
    kind: str, labels: list[list[int]], classes: list[str], rate: Fraction, start: Fraction
) -> None:
    timeline, videos = Timeline(rate=rate, start=start), {f"video.{index}": own for index, own in enumerate(labels)}
    lengths = {name: len(own) for name, own in videos.items()}
    with tempfile.TemporaryDirectory() as place:
        data, bare = (write(Path(place) / name, lengths | {"another": 7}, timeline) for name in ("data", "bare"))
        write_labels(data, videos, classes)
        done = export_annotations(open_dataset(data), kind, Path(place) / "out", frame_rate="30000/1001")
        files = [path for path in done.paths if path.suffix == format_of(kind).ending and path.name != "mapping.txt"]
        taken = import_annotations(open_dataset(bare), files, kind, frame_rate="30000/1001")
        back, there = open_dataset(bare), open_dataset(data)
        for name in videos:
            assert labels_of(back, name) == labels_of(there, name)
        assert not any("come back" in note for note in done.notes), done.notes
        assert not any("moved" in note or "without a slot" in note for note in taken.notes), taken.notes
        assert back.videos["another"].labels is None
