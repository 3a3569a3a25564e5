"""Folders of latents: what a killed `encode` goes on to is what one that never stopped writes."""

from collections.abc import Callable
from pathlib import Path

import pytest

import keystep
from keystep import encoding
from keystep.data.folder import FeatureFolder
from keystep.errors import InputError

LENGTHS = {f"video{index}": 20 + 7 * index for index in range(9)}


@pytest.fixture
def model(make_model: Callable[..., keystep.PJEPA]) -> keystep.PJEPA:
    return make_model({"kind": "bidirectional"}, input_dim=6)


@pytest.fixture
def data(make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> FeatureFolder:
    """Nine videos, of which a batch holds three or so."""
    monkeypatch.setitem(encoding.BATCH_FRAMES, "cpu", 200)
    return keystep.open_dataset(make_folder(lengths=LENGTHS), source_rate=4)


def latents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "features").glob("*.npy"))}


@pytest.mark.parametrize("kept", [["video8"], ["video0", "video5", "video7"], [*LENGTHS][:8], [*LENGTHS]])
def test_an_encode_that_was_killed_goes_on_to_the_same_bits(
    model: keystep.PJEPA, data: FeatureFolder, tmp_path: Path, kept: list[str]
) -> None:
    """Whatever was there already: the others are computed in the batches that they would have been in."""
    batches, encode_all = list[tuple[int, ...]](), model.encode
    model.encode = lambda x, *rest: batches.append(tuple(x.shape)) or encode_all(x, *rest)  # type: ignore[assignment,func-returns-value,method-assign]
    whole = keystep.encode(model, data, out=tmp_path / "whole")
    all_batches = set(batches)
    cut = keystep.encode(model, data, out=tmp_path / "cut")
    for name in LENGTHS:
        if name not in kept:
            (cut.root / "features" / f"{name}.npy").unlink()
    batches.clear()
    again = keystep.encode(model, data, out=cut.root)
    assert latents(again.root) == latents(whole.root) and again.videos == whole.videos
    assert set(batches) <= all_batches and bool(batches) == (len(kept) < len(LENGTHS))


def test_features_that_are_gone_meanwhile_are_an_error(
    model: keystep.PJEPA, data: FeatureFolder, tmp_path: Path
) -> None:
    encode_all = model.encode

    def losing(features: object, *rest: object) -> object:
        for path in (tmp_path / "out" / "features").glob("*.npy"):
            path.unlink()
        return encode_all(features, *rest)  # type: ignore[arg-type]

    model.encode = losing  # type: ignore[method-assign,assignment]
    with pytest.raises(InputError, match=r"video\d\.npy: was removed while the folder was written; run again"):
        keystep.encode(model, data, out=tmp_path / "out")
    assert '"complete": false' in (tmp_path / "out" / "store.json").read_text()


def test_a_second_encode_into_the_same_folder_is_refused(
    model: keystep.PJEPA, data: FeatureFolder, tmp_path: Path
) -> None:
    encode_all = model.encode

    def beside(features: object, *rest: object) -> object:
        with pytest.raises(InputError, match="is writing there"):
            keystep.encode(model, data, out=tmp_path / "out")
        return encode_all(features, *rest)  # type: ignore[arg-type]

    model.encode = beside  # type: ignore[method-assign,assignment]
    assert len(keystep.encode(model, data, out=tmp_path / "out").videos) == len(LENGTHS)
