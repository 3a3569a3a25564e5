"""`pool`, without the command line."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from keystep.data.folder import FeatureFolder, open_dataset
from keystep.data.store import FeatureStore
from keystep.data.timeline import Timeline
from keystep.errors import InputError
from keystep.extraction.pooling import pool


@pytest.fixture
def folder(tmp_path: Path) -> FeatureFolder:
    """Two videos of three tokens a slot, each four numbers wide."""
    store = FeatureStore(tmp_path / "tokens", Timeline(rate=Fraction(4)), provenance={"tokens": 3}).create()
    for index in range(2):
        tokens = np.random.default_rng(index).normal(size=(5 + index, 12)).astype(np.float32)
        store.add(f"video{index}", tokens)
    store.finish()
    return open_dataset(tmp_path / "tokens")


def test_a_typed_result_names_the_folder_of_means(folder: FeatureFolder, tmp_path: Path):
    done = pool(folder, out=tmp_path / "out", mean=True, half=True)
    assert (done.root, done.videos, done.tokens, done.labels) == (tmp_path / "out", ("video0", "video1"), 3, "")
    assert done.skipped == {} and done.warnings == ()
    assert repr(done) == f"Pooled({str(tmp_path / 'out')!r}, 2 videos)"
    stored = np.load(tmp_path / "out" / "features" / "video1.npy")
    expected = folder.features("video1").reshape(6, 3, 4).mean(axis=1)
    assert stored.dtype == np.float16
    np.testing.assert_allclose(stored, expected, atol=2e-3)  # half precision


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "choose one of --mean"),
        ({"mean": True, "labels": True, "split": "1"}, "choose one of --mean"),
        ({"mean": True, "split": "1"}, "the other methods take no split"),
        ({"mean": True, "settings": {"dim": 8}}, "--set is only for --labels"),
        ({"mean": True, "tokens": 5}, "cannot hold 5 tokens"),
        ({"mean": True, "tokens": 1}, "one token per slot"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(
    folder: FeatureFolder, tmp_path: Path, options, says: str
):
    with pytest.raises(InputError, match=says):
        pool(folder, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
