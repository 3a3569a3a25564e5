"""What goes out in a format comes back the same, to the slot, at odd rates and with a start offset."""

import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from keystep.data.annotation import IGNORED
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
ONCE = settings(max_examples=12, deadline=None, phases=[Phase.generate])  # each example writes two folders
Write = Callable[..., Path]


def labels_of(folder: FeatureFolder, name: str) -> list[str | None]:
    """Class names."""
    return [None if label == IGNORED else folder.classes[label] for label in folder.labels(name).tolist()]


def annotation_files(kind: str, paths: list[Path]) -> list[Path]:
    """Those of an export that are imported."""
    return [path for path in paths if path.suffix == format_of(kind).ending and path.name != "mapping.txt"]


@pytest.mark.parametrize("kind", READABLE)
@ONCE
@given(
    labels=st.lists(LABELS, min_size=1, max_size=3),
    classes=st.lists(st.one_of(st.sampled_from(TRICKY), NAMES), min_size=3, max_size=3, unique=True),
    rate=st.sampled_from(RATES),
    start=st.sampled_from(STARTS),
)
def test_every_slot_comes_back_with_its_label(
    kind: str, write: Write, labels: list[list[int]], classes: list[str], rate: Fraction, start: Fraction
) -> None:
    timeline, videos = Timeline(rate=rate, start=start), {f"video.{index}": own for index, own in enumerate(labels)}
    lengths = {name: len(own) for name, own in videos.items()} | {"another": 7}
    with tempfile.TemporaryDirectory() as place:
        data = open_dataset(write(Path(place) / "data", timeline, lengths, videos, classes))
        bare = write(Path(place) / "bare", timeline, lengths)
        done = export_annotations(data, kind, Path(place) / "out", frame_rate="30000/1001")
        files = annotation_files(kind, done.paths)
        taken = import_annotations(open_dataset(bare), files, kind, frame_rate="30000/1001")
        back = open_dataset(bare)
        for name in videos:
            assert labels_of(back, name) == labels_of(data, name)
        assert not any("come back" in note for note in done.notes), done.notes
        assert not any("moved" in note or "without a slot" in note for note in taken.notes), taken.notes
        assert back.videos["another"].labels is None


@pytest.mark.parametrize("kind", READABLE)
def test_slots_hours_into_a_video_and_with_times_of_their_own_come_back(
    kind: str, write: Write, tmp_path: Path
) -> None:
    timeline, lengths = Timeline(rate=Fraction(30000, 1001), start=Fraction(40_000, 3)), {"late": 50, "odd": 50}
    labels = {"late": [0, 1] * 25, "odd": [0, 1] * 25}
    folders = [write(tmp_path / "data", timeline, lengths, labels), write(tmp_path / "bare", timeline, lengths)]
    for folder in folders:
        (folder / "times").mkdir()
        np.save(folder / "times" / "odd.npy", np.arange(50.0) ** 1.5 / 7 + 0.11)
    data = open_dataset(folders[0])
    done = export_annotations(data, kind, tmp_path / "out", frame_rate=60)
    import_annotations(open_dataset(folders[1]), annotation_files(kind, done.paths), frame_rate=60)
    back = open_dataset(folders[1])
    assert all(labels_of(back, name) == labels_of(data, name) for name in lengths)


@pytest.mark.parametrize("kind", [name for name in READABLE if name != "mstcn"])
def test_neighbours_with_one_label_stay_two_segments(kind: str, write: Write, tmp_path: Path) -> None:
    timeline, lengths = Timeline(rate=Fraction(4)), {"a": 12}
    data = write(tmp_path / "data", timeline, lengths, {"a": [0] * 8 + [1] * 4})
    (data / "segments").mkdir()
    (data / "segments" / "a.txt").write_text("3\n5\n4\n")
    bare = write(tmp_path / "bare", timeline, lengths)
    done = export_annotations(open_dataset(data), kind, tmp_path / "out", frame_rate=25)
    import_annotations(open_dataset(bare), annotation_files(kind, done.paths), frame_rate=25)
    assert open_dataset(bare).segment_lengths("a") == [3, 5, 4]


def test_what_a_coarser_format_would_change_is_said(write: Write, tmp_path: Path) -> None:
    data = write(tmp_path / "data", Timeline(rate=Fraction(30)), {"a": 40}, {"a": [0, 1] * 20})
    done = export_annotations(open_dataset(data), "cvat", tmp_path / "out", frame_rate=10)
    assert any("a: " in note and "of 40 slots would come back with another label" in note for note in done.notes)
