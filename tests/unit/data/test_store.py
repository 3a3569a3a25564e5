import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from keystep.data.folder import open_dataset
from keystep.data.store import NAMES, FeatureStore
from keystep.data.timeline import Timeline
from keystep.errors import InputError

MakeFolder = Callable[..., Path]
TIMELINE = Timeline(rate=Fraction(30000, 1001), window=Fraction(64, 25), alignment="right")


def features(length: int = 12, width: int = 5) -> np.ndarray:
    return np.random.default_rng(length).normal(size=(length, width)).astype(np.float32)


def test_what_is_written_is_read_again_with_its_timeline(tmp_path: Path) -> None:
    for layout in ("native", "mstcn"):
        store = FeatureStore(tmp_path / layout, TIMELINE, layout, {"model": "x"}).create()
        for name, length in (("P1.cam 1", 12), ("P2", 5)):
            store.add(name, features(length), {"source": "P.mp4"})
        folder = open_dataset(tmp_path / layout)
        assert folder.source == TIMELINE and sorted(folder.videos) == ["P1.cam 1", "P2"]
        assert np.array_equal(folder.features("P1.cam 1"), features(12))
    assert np.load(tmp_path / "mstcn" / "features" / "P2.npy").shape == (5, 5)
    assert np.load(tmp_path / "mstcn" / "features" / "P1.cam 1.npy").shape == (5, 12), "(D, T) for other people's code"
    assert np.load(tmp_path / "native" / "features" / "P1.cam 1.npy").shape == (12, 5)
    record = json.loads((tmp_path / "native" / "features" / "P2.json").read_text())
    assert (record["slots"], record["width"], record["source"]) == (5, 5, "P.mp4")
    assert [path.name for path in (tmp_path / "mstcn" / "features").glob("*.json")] == []


def test_a_killed_run_may_go_on_but_other_settings_are_never_mixed_in(tmp_path: Path) -> None:
    FeatureStore(tmp_path, TIMELINE, "native", {"model": "a"}).create().add("v", features())
    before = (tmp_path / "store.json").read_bytes()
    FeatureStore(tmp_path, TIMELINE, "native", {"model": "a"}).create()
    with pytest.raises(
        InputError, match=r"store\.json: written with provenance \{'model': 'a'\}, now \{'model': 'b'\}"
    ):
        FeatureStore(tmp_path, TIMELINE, "native", {"model": "b"}).create()
    with pytest.raises(InputError, match="written with time_axis 0, now 1"):
        FeatureStore(tmp_path, TIMELINE, "mstcn", {"model": "a"}).create()
    with pytest.raises(InputError, match="written with timeline"):
        FeatureStore(tmp_path, TIMELINE.pooled(2), "native", {"model": "a"}).create()
    assert (tmp_path / "store.json").read_bytes() == before


def test_features_that_keystep_did_not_write_are_left_alone(make_folder: MakeFolder) -> None:
    root = make_folder()
    with pytest.raises(InputError, match="has features that keystep did not write"):
        FeatureStore(root, TIMELINE).create()
    assert not (root / "store.json").exists()


@pytest.mark.parametrize(
    "bad", [np.ones(5), np.ones((5, 2), dtype=int), np.ones((0, 5)), np.full((3, 2), np.nan), np.full((3, 2), np.inf)]
)
def test_features_that_could_not_be_read_again_are_not_written(tmp_path: Path, bad: np.ndarray) -> None:
    store = FeatureStore(tmp_path, TIMELINE).create()
    with pytest.raises(InputError, match=r"features of 'v', shape \("):
        store.add("v", bad)
    assert not (tmp_path / "features").exists()


@pytest.mark.parametrize("name", ["../v", "a/b", "/v", ""])
def test_a_video_name_never_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="leads out of the folder"):
        FeatureStore(tmp_path / "store", TIMELINE).create().add(name, features())


def test_the_array_comes_last_so_that_its_presence_means_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise InputError("no space")

    store = FeatureStore(tmp_path, TIMELINE).create()
    monkeypatch.setattr("keystep.data.store.write_array", refuse)
    with pytest.raises(InputError):
        store.add("v", features())
    monkeypatch.undo()
    monkeypatch.setattr("keystep.data.store.write_json", refuse)
    with pytest.raises(InputError):
        store.add("v", features())
    assert not (tmp_path / "features" / "v.npy").exists()


def test_annotation_is_copied_byte_for_byte_and_stays_writable(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder()
    for path in (root / "splits", root / "mapping.txt", root / "splits" / "train.split1.bundle"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    source = open_dataset(root, source_rate=Fraction(30))
    store = FeatureStore(tmp_path / "out", source.source).create()
    for _ in range(2):
        store.copy_annotation(source)
    for path in [*(root / "groundTruth").iterdir(), *(root / "splits").iterdir(), root / "mapping.txt"]:
        copy = tmp_path / "out" / path.relative_to(root)
        assert copy.read_bytes() == path.read_bytes() and copy.stat().st_mode & 0o200
    assert (tmp_path / "out" / "splits").stat().st_mode & 0o200
    for name in source.videos:
        store.add(name, features(source.length(name)))
    assert open_dataset(tmp_path / "out").split("1") == source.split("1")


def test_labels_at_another_rate_are_not_copied(make_folder: MakeFolder, tmp_path: Path) -> None:
    source = open_dataset(make_folder(), source_rate=Fraction(30), rate=Fraction(10))
    with pytest.raises(InputError, match=r"features at 10 Hz do not fit the labels of .* at 30 Hz"):
        FeatureStore(tmp_path / "out", source.timeline).create().copy_annotation(source)


def test_labels_segments_and_times_are_written_beside_the_features_and_read_again(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, TIMELINE).create()
    (tmp_path / "mapping.txt").write_text("0 wait\n1 tie a knot\n")
    labels, times = ["tie a knot"] * 7 + ["(unlabelled)"] * 2 + ["wait"] * 3, np.arange(12) ** 2 / 7
    store.add("v", features(), labels=labels, segments=[3, 4, 2, 3], times=times)
    folder = open_dataset(tmp_path)
    assert folder.labels("v").tolist() == [1] * 7 + [-100] * 2 + [0] * 3
    assert folder.segment_lengths("v") == [3, 4, 2, 3] and np.array_equal(folder.times("v"), times)


def test_nothing_is_written_beside_features_that_are_refused(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, TIMELINE).create()
    with pytest.raises(InputError, match="not finite"):
        store.add("v", np.full((3, 2), np.nan), labels=["wait"] * 3, segments=[3], times=np.zeros(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store.json"]


def test_segments_are_copied_with_the_labels(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder()
    (root / "segments").mkdir()
    (root / "segments" / "video0.txt").write_text("15\n25\n")
    source = open_dataset(root, source_rate=TIMELINE.rate)
    FeatureStore(tmp_path / "out", TIMELINE).create().copy_annotation(source)
    assert (tmp_path / "out" / "segments" / "video0.txt").read_text() == "15\n25\n"


def test_a_folder_in_which_nothing_was_finished_is_begun_anew(tmp_path: Path) -> None:
    FeatureStore(tmp_path, TIMELINE, "native", {"model": "a"}).create()
    for name in ("groundTruth/v.txt", "segments/v.txt", "features/v.json", "mapping.txt", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("of a run that was killed within its first video\n")
    FeatureStore(tmp_path, TIMELINE, "native", {"model": "b"}).create().add("w", features())
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["features/w.json", "features/w.npy", "notes.txt", "store.json"]
    with pytest.raises(InputError, match=r"written with provenance \{'model': 'b'\}, now \{'model': 'a'\}"):
        FeatureStore(tmp_path, TIMELINE, "native", {"model": "a"}).create()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "store.json").write_text('{"time_axis": 1}')
    with pytest.raises(InputError, match="choose another folder"):
        FeatureStore(tmp_path / "other", TIMELINE).create()


def test_names_of_files_are_kept_but_not_compared(tmp_path: Path) -> None:
    FeatureStore(tmp_path, TIMELINE, "native", {"hash": "1", NAMES: ["a.pt"]}).create().add("v", features())
    FeatureStore(tmp_path, TIMELINE, "native", {"hash": "1", NAMES: ["b.pt"]}).create()
    assert json.loads((tmp_path / "store.json").read_text())["provenance"] == {"hash": "1", "files": ["a.pt"]}
    with pytest.raises(InputError, match=r"written with provenance \{'hash': '1'\}, now \{'hash': '2'\}"):
        FeatureStore(tmp_path, TIMELINE, "native", {"hash": "2", NAMES: ["a.pt"]}).create()


def test_a_folder_says_that_it_is_not_complete_until_it_is_finished(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, TIMELINE, "native", {"oracle": "true bounds"}).create()
    store.add("v", features())
    assert open_dataset(tmp_path).problems.notes == [
        "ORACLE: true bounds; the command that wrote this folder was stopped; run it again to finish"
    ]
    store.finish()
    assert open_dataset(tmp_path).problems.notes == ["ORACLE: true bounds"]
    written = (tmp_path / "store.json").stat().st_mtime_ns
    FeatureStore(tmp_path, TIMELINE, "native", {"oracle": "true bounds"}).create().finish()
    assert (tmp_path / "store.json").stat().st_mtime_ns == written


def test_times_are_copied_for_the_slots_that_are_used(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder()
    (root / "times").mkdir()
    times = np.arange(40) ** 2 / 7
    np.save(root / "times" / "video0.npy", times)
    labels = (root / "groundTruth" / "video0.txt").read_text().splitlines()[:37]
    (root / "groundTruth" / "video0.txt").write_text("\n".join(labels) + "\n")
    source = open_dataset(root, source_rate=TIMELINE.rate, rate=TIMELINE.rate / 2)
    FeatureStore(tmp_path / "out", TIMELINE, "mstcn").create().copy_annotation(source)
    assert np.array_equal(np.load(tmp_path / "out" / "times" / "video0.npy"), times[:37])
    assert [path.name for path in (tmp_path / "out" / "times").iterdir()] == ["video0.npy"]
