"""Features in tar files: read as those in a folder, whatever is cut off."""

import json
import tarfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import keystep
from keystep.data import sharding
from keystep.data.slots import open_array
from keystep.data.store import FeatureStore, Sink
from keystep.data.timeline import Timeline
from keystep.errors import InputError

LENGTHS = {"a": 30, "b.times": 41, "a name that is longer than the hundred bytes of a header " + 60 * "x": 25}


def write(root: Path, sink: Sink, **options: object) -> FeatureStore:
    random = np.random.default_rng(0)
    store = FeatureStore(root, Timeline(rate=Fraction(4)), sink=sink, **options).create()  # type: ignore[arg-type]
    for name, length in LENGTHS.items():
        features = random.normal(size=(length, 6)).astype(np.float32)
        store.add(name, features, {"notes": [f"{name} is odd"]}, times=np.arange(length) / 4 + 0.01 * (name == "a"))
    store.finish()
    return store


def test_tar_files_are_read_as_a_folder_is(tmp_path: Path) -> None:
    write(tmp_path / "folder", "folder")
    write(tmp_path / "tar", "tar")
    assert not list((tmp_path / "tar").glob("features/*")) and len(list((tmp_path / "tar/shards").iterdir())) == 1
    one, other = (keystep.open_dataset(tmp_path / sink) for sink in ("folder", "tar"))
    assert one.fingerprint() == other.fingerprint() and list(one.videos) == list(other.videos)
    for name in LENGTHS:
        np.testing.assert_array_equal(one.features(name, 3, 20), other.features(name, 3, 20))
        np.testing.assert_array_equal(one.times(name), other.times(name))


def test_the_tar_files_are_those_of_webdataset(tmp_path: Path) -> None:
    write(tmp_path / "tar", "tar")
    (path,) = (tmp_path / "tar/shards").iterdir()
    with tarfile.open(path) as file:
        assert [member.name for member in file][:3] == ["a.json", "a.times.npy", "a.features.npy"]
        record = file.extractfile("a.json")
        assert record is not None and json.load(record)["notes"] == ["a is odd"]


def test_a_video_that_is_cut_off_is_missing_and_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = write(tmp_path / "tar", "tar")
    (path,) = (tmp_path / "tar/shards").iterdir()
    last = list(LENGTHS)[-1]
    for cut in (300, 512, 1024):  # 296 bytes at the end are padding
        path.write_bytes(path.read_bytes()[:-cut])
        assert store.videos() == LENGTHS.keys() - {last}
    monkeypatch.setattr(sharding, "_open", {})  # as another process
    later = FeatureStore(tmp_path / "tar", store.timeline, sink="tar").create()
    later.add(last, np.ones((7, 6), np.float32))
    folder = keystep.open_dataset(tmp_path / "tar")
    assert folder.length(last) == 7 and folder.length("a") == 30


def test_of_a_video_that_was_written_twice_the_last_counts_and_nothing_of_the_first(tmp_path: Path) -> None:
    store = write(tmp_path / "tar", "tar")
    store.add("a", np.ones((9, 6), np.float32))
    folder = keystep.open_dataset(tmp_path / "tar")
    assert folder.length("a") == 9 and not folder.has_times("a")


def test_a_folder_keeps_its_sink(tmp_path: Path) -> None:
    for was, now in (("folder", "tar"), ("tar", "folder")):
        write(tmp_path / was, was)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"written with sink .*; choose another folder"):
            write(tmp_path / was, now)  # type: ignore[arg-type]


def test_latents_go_from_tar_files_to_tar_files(make_model: Callable, make_folder: Callable[..., Path]) -> None:
    data, model = make_folder(width=5), make_model({"kind": "causal"})
    one = keystep.encode(model, keystep.open_dataset(data, source_rate=4), out=data / "one")
    other = keystep.encode(model, keystep.open_dataset(data, source_rate=4), out=data / "other", sink="tar")
    assert one.videos == other.videos
    read = keystep.open_dataset(data / "other")
    for name in one.videos:
        np.testing.assert_array_equal(read.features(name), np.load(data / "one/features" / f"{name}.npy"))
    again = keystep.encode(model, keystep.open_dataset(data, source_rate=4), out=data / "other", sink="tar")
    assert again.videos == one.videos and len(list((data / "other/shards").iterdir())) == 1


def test_damage_anywhere_leaves_videos_out_and_raises_nothing_else(tmp_path: Path) -> None:
    store = write(tmp_path / "tar", "tar")
    (path,) = (tmp_path / "tar/shards").iterdir()
    whole, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(whole)
        for place in random.integers(len(whole), size=4):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged[: random.integers(len(whole))])
        for name in store.videos():
            try:
                open_array(tmp_path / "tar/features" / f"{name}.npy").sum()
            except InputError as error:
                assert str(error).startswith(str(tmp_path / "tar/features"))
