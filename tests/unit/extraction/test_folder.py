"""One video into a feature folder: its labels, what it was made of, and when it has to be done again."""

import json
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from keystep.data.store import FeatureStore
from keystep.errors import InputError
from keystep.extraction.config import ExtractionConfig
from keystep.extraction.extractor import Extractor
from keystep.extraction.folder import Writing
from keystep.extraction.labels import FrameLabels
from keystep.extraction.loading import load_extractor

av = pytest.importorskip("av", reason="needs the extra 'video'")

MakeClip = Callable[..., Path]


def extractor(backbone: str = "colours", rate: int = 25) -> Extractor:
    return load_extractor(ExtractionConfig(backbone=f"toy_backbones:{backbone}", rate=Fraction(rate)), None, "cpu")


@pytest.fixture
def writing(tmp_path: Path) -> Writing:
    return Writing(FeatureStore(tmp_path / "out", extractor().timeline).create())


@pytest.fixture
def numbered_labels(tmp_path: Path) -> FrameLabels:
    """40 lines for "clip", each a class of its own."""
    root = tmp_path / "labels"
    (root / "groundTruth").mkdir(parents=True)
    (root / "groundTruth" / "clip.txt").write_text("".join(f"step {number}\n" for number in range(40)))
    (root / "mapping.txt").write_text("".join(f"{number} step {number}\n" for number in range(40)))
    return FrameLabels(root)


def write(writing: Writing, path: Path) -> list[str]:
    return writing.write(extractor(), path.stem, path, lambda seconds, frames: None).notes


def labels_of(writing: Writing) -> list[str]:
    return (writing.store.root / "groundTruth" / "clip.txt").read_text().split("\n")[:-1]


def wipe_out(path: Path, first: int, last: int) -> None:
    """Zeros in place of some of a Motion JPEG's pictures, each of which stands alone."""
    with av.open(str(path)) as file:
        hit = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size][first:last]
    with path.open("r+b") as stream:
        for place, size in hit:
            stream.seek(place)
            stream.write(bytes(size))


@pytest.mark.parametrize("lost", [(10, 13), (0, 3)])
def test_labels_behind_frames_that_cannot_be_decoded_stay_with_their_pictures(
    make_clip: MakeClip, writing: Writing, numbered_labels: FrameLabels, lost: tuple[int, int]
):
    path = make_clip("clip.mov", codec="mjpeg", pixel_format="yuvj420p", frames=40)
    wipe_out(path, *lost)
    labelled = Writing(writing.store, labels=numbered_labels)
    notes = write(labelled, path)
    frames = range(lost[1] if lost[0] == 0 else 0, 40)
    assert labels_of(writing) == [f"step {lost[0] - 1 if lost[0] <= frame < lost[1] else frame}" for frame in frames]
    assert "37 of 40 frames could be decoded" in notes[0] and "3 frames are missing" in notes[1]
    (writing.store.root / "groundTruth" / "clip.txt").unlink()
    assert labelled.label("clip") == notes[1:], "what stands on disk says the same"


def test_a_finished_video_gets_the_labels_that_come_later(
    make_clip: MakeClip, writing: Writing, numbered_labels: FrameLabels
):
    path = make_clip("clip.mkv", frames=40, start=Fraction(1), audio=1)
    write(writing, path)
    assert not (writing.store.root / "groundTruth").exists()
    labelled = Writing(writing.store, labels=numbered_labels)
    assert labelled.label("clip") == []
    late = labels_of(writing)
    assert late == [f"step {number}" for number in range(40)]
    changed = (writing.store.root / "groundTruth" / "clip.txt").stat().st_mtime_ns
    labelled.label("clip")
    assert (writing.store.root / "groundTruth" / "clip.txt").stat().st_mtime_ns == changed
    write(labelled, path)
    assert labels_of(writing) == late


def test_a_video_is_done_again_when_its_file_changes(make_clip: MakeClip, writing: Writing):
    whole = make_clip("clip.mkv", frames=100).read_bytes()
    path = make_clip("clip.mkv", frames=100, start=Fraction(1, 2), audio=2)
    path.write_bytes(whole[: int(0.6 * len(whole))])
    assert writing.state("clip", path) == "missing"
    assert write(writing, path)
    assert writing.state("clip", path) == "done"
    path.write_bytes(whole)
    assert writing.state("clip", path) == "changed"
    assert write(writing, path) == []
    assert writing.state("clip", path) == "done"
    assert len(np.load(writing.store.root / "features" / "clip.npy")) == 100
    assert json.loads((writing.store.root / "features" / "clip.json").read_text())["status"] == "complete"


def test_a_copy_of_a_video_is_the_same_and_another_of_its_name_is_refused(
    make_clip: MakeClip, writing: Writing, tmp_path: Path
):
    path = make_clip("clip.mp4")
    write(writing, path)
    os.utime(path, ns=(0, 0))
    assert writing.state("clip", path) == "done"
    (tmp_path / "elsewhere").mkdir()
    other = tmp_path / "elsewhere" / "clip.mp4"
    other.write_bytes(path.read_bytes())
    assert writing.state("clip", other) == "done"
    make_clip("elsewhere/clip.mp4", frames=20)
    with pytest.raises(InputError, match=r"has the same name as .*; use another folder"):
        writing.state("clip", other)
    path.unlink()
    assert writing.state("clip", other) == "changed"


@pytest.mark.filterwarnings("error")
def test_features_beyond_float16_are_named_with_the_first_batch(make_clip: MakeClip, writing: Writing):
    half = Writing(writing.store, half=True)
    with pytest.raises(InputError, match=r"features of up to 6e\+07 exceed the range of float16; omit --half"):
        half.write(extractor("huge"), "clip", make_clip(), lambda seconds, frames: None)
    assert not list((writing.store.root / "features").glob("*"))
