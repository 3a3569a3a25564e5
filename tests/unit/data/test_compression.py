"""Feature folders in float16 and int8: how far from the original, what is kept, what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from two_classes import write_data

from keystep.cli import main
from keystep.data.compression import compress
from keystep.data.folder import FeatureFolder, open_dataset
from keystep.data.mistakes import Mistake, read_mistakes, write_mistakes
from keystep.data.slots import dequantise, quantise
from keystep.data.store import FeatureStore
from keystep.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> FeatureFolder:
    return open_dataset(write_data(tmp_path_factory.mktemp("compress") / "data"), source_rate=4)


def test_eight_bits_are_off_by_half_a_step_of_each_channel_at_most() -> None:
    random = np.random.default_rng(0)
    features = (random.normal(size=(500, 6)) * [1e-3, 1, 50, 1, 0, 1] + [0, 5, -3, 100, 7, 0]).astype(np.float32)
    features[:, 5] = features[:, 5].clip(0)  # rectified: no level is wasted on negative numbers
    levels, scale = quantise(features)
    assert levels.dtype == np.int8 and levels.min() == -128 and levels[:, 5].max() == 127
    step = np.ptp(features, axis=0) / 255
    assert (np.abs(dequantise(levels, scale) - features) <= 0.501 * step + 1e-6 * np.abs(features).max(axis=0)).all()
    np.testing.assert_array_equal(dequantise(levels, scale)[:, 4], 7)


@pytest.mark.parametrize(("kind", "error"), [("float32", 0), ("float16", 1e-3), ("int8", 4e-3)])
def test_a_smaller_folder_is_read_as_the_same_data(
    folder: FeatureFolder, tmp_path: Path, kind: str, error: float
) -> None:
    done = compress(folder, tmp_path / "small", kind)
    small = open_dataset(done.root)
    assert done.videos == tuple(folder.videos) and (small.classes, small.splits) == (folder.classes, folder.splits)
    assert small.timeline == folder.timeline and not small.problems.notes
    for name in folder.videos:
        before = folder.features(name)
        assert np.abs(small.features(name) - before).max() <= error * np.abs(before).max()
        np.testing.assert_array_equal(small.features(name)[2:5], small.features(name, 2, 5))
        np.testing.assert_array_equal(small.labels(name), folder.labels(name))
    written = {path: path.stat().st_mtime_ns for path in (done.root / "features").iterdir()}
    compress(folder, done.root, kind)
    assert {path: path.stat().st_mtime_ns for path in written} == written, "finished videos are skipped"
    with pytest.raises(InputError, match="written with provenance"):
        compress(folder, done.root, "float16" if kind == "int8" else "int8")


def test_levels_without_their_scale_are_refused(folder: FeatureFolder, tmp_path: Path) -> None:
    root = compress(folder, tmp_path / "small", "int8").root
    name = next(iter(folder.videos))
    before = open_dataset(root).fingerprint()
    np.save(root / "scales" / f"{name}.npy", np.ones((2, 3), np.float32))
    with pytest.raises(InputError, match=r"shape \(2, 3\); expected finite float32 \(2, 4\)"):
        open_dataset(root).features(name)
    assert open_dataset(root).fingerprint() != before
    (root / "scales" / f"{name}.npy").unlink()
    with pytest.raises(InputError, match="no such file"):
        open_dataset(root).features(name)


def test_where_the_features_come_from_is_kept(folder: FeatureFolder, tmp_path: Path) -> None:
    root = compress(folder, tmp_path / "half").root
    (root / "store.json").write_text(
        json.dumps(json.loads((root / "store.json").read_text()) | {"provenance": {"oracle": "true boundaries"}})
    )
    assert open_dataset(compress(open_dataset(root), tmp_path / "small", "int8").root).oracle == "true boundaries"


def test_the_command_says_what_was_saved(
    folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(kind: str) -> int | str | None:
        asked = ["compress", str(folder.root), "--source-rate", "4", "--out", str(tmp_path / "small"), "--type", kind]
        monkeypatch.setattr("sys.argv", ["keystep", *asked])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code

    assert not command("int8") and f"{len(folder.videos)} videos in int8" in capsys.readouterr().out
    assert command("int4") == 2
    assert "unknown --type 'int4'; expected one of float32, float16, int8" in capsys.readouterr().err


def test_a_folder_of_tar_files_is_compressed_with_its_mistakes(folder: FeatureFolder, tmp_path: Path) -> None:
    packed = FeatureStore(tmp_path / "packed", folder.source, sink="tar").create()
    for name in folder.videos:
        packed.add(name, folder.features(name))
    packed.finish()
    write_mistakes(tmp_path / "packed", next(iter(folder.videos)), [Mistake(0, 2, "unknown")])
    done = compress(open_dataset(tmp_path / "packed"), tmp_path / "small", "int8")
    assert 0 < done.size < done.size_before
    assert read_mistakes(open_dataset(done.root), done.videos[0]) == [Mistake(0, 2, "unknown")]


def test_a_tar_file_that_was_removed_is_not_written_to(folder: FeatureFolder, tmp_path: Path) -> None:
    name = next(iter(folder.videos))
    for _ in range(2):
        packed = FeatureStore(tmp_path / "packed", folder.source, sink="tar").create()
        packed.add(name, folder.features(name))
        packed.finish()
        assert list(open_dataset(tmp_path / "packed").videos) == [name]
        shutil.rmtree(tmp_path / "packed")
