"""Predictions of whole recordings, by the function and by the command."""

from pathlib import Path

import numpy as np
import pytest
import torch

import keystep
from keystep.config import ModelConfig
from keystep.encoding import Mode, mode_pattern
from keystep.errors import InputError
from keystep.evals.probe import LinearProbe

NAMES = ("pour", "stir", "wait")


@pytest.fixture
def model() -> keystep.PJEPA:
    torch.manual_seed(0)
    return keystep.PJEPA(ModelConfig(input_dim=6, dim=16, depth=2, heads=2, tau=2.5)).eval()


def head_of(model: keystep.PJEPA, path: Path, mode: Mode = "offline", **origin: str) -> Path:
    """A head of latents of this mode, which have widths of their own."""
    rng, origin = np.random.default_rng(0), {"mode": mode, **origin}
    width = model.latent_dim(mode_pattern(model, mode))
    weight, bias = rng.normal(size=(width, 3)).astype(np.float32), np.zeros(3, np.float32)
    facts = {"weights": model.fingerprint, "rate": "4"} | origin
    LinearProbe(weight, bias, 0.1, 50.0).head(NAMES, facts).save(path)
    return path


@pytest.fixture
def videos(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(1)
    paths = [tmp_path / f"v{index}.npy" for index in range(2)]
    for path, length in zip(paths, (30, 50), strict=True):
        np.save(path, rng.normal(size=(length, 6)).astype(np.float32))
    return paths


def test_a_head_of_offline_latents_sees_the_whole_video_and_one_of_causal_ones_does_not(
    model: keystep.PJEPA, tmp_path: Path
) -> None:
    features = np.random.default_rng(2).normal(size=(40, 6)).astype(np.float32)
    changed = features.copy()
    changed[30:] += 5
    for mode, sees in (("offline", True), ("causal", False)):
        head = head_of(model, tmp_path / f"{mode}.safetensors", mode=mode)  # type: ignore[arg-type]
        first, second = (keystep.predict(model, head, video)[0].probabilities[:30] for video in (features, changed))
        assert bool(np.abs(first - second).max() > 1e-3) is sees
        latents = keystep.encode(model, features, mode=mode)  # type: ignore[call-overload]
        expected = keystep.load_head(head).probabilities(torch.from_numpy(latents)).numpy()
        np.testing.assert_allclose(first, expected[:30], atol=1e-6)


def test_the_folder_holds_labels_probabilities_and_ribbons(
    model: keystep.PJEPA, videos: list[Path], tmp_path: Path
) -> None:
    head, out = head_of(model, tmp_path / "head.safetensors"), tmp_path / "out"
    found = keystep.predict(model, head, videos, out=out, source_rate="4")
    assert [each.name for each in found] == ["v0", "v1"] and [len(each.ids) for each in found] == [30, 50]
    for each in found:
        assert (out / "labels" / f"{each.name}.txt").read_text().split() == each.labels
        np.testing.assert_array_equal(np.load(out / "probabilities" / f"{each.name}.npy"), each.probabilities)
        assert (out / "ribbons" / f"{each.name}.png").read_bytes().startswith(b"\x89PNG")
        assert sum(end - start for _, start, end in each.segments()) == len(each.ids)
    with pytest.raises(InputError, match="holds predictions already; give --overwrite"):
        keystep.predict(model, head, videos, out=out, source_rate="4")
    keystep.predict(model, head, videos[:1], out=out, source_rate="4", overwrite=True)
    assert not (out / "labels" / "v1.txt").exists()


def test_what_cannot_be_predicted_is_refused_in_one_line(
    model: keystep.PJEPA, videos: list[Path], tmp_path: Path
) -> None:
    foreign = head_of(model, tmp_path / "foreign.safetensors", weights="0" * 64)
    with pytest.raises(InputError, match="fitted on another model"):
        keystep.predict(model, foreign, videos)
    with pytest.raises(InputError, match="no such file"):
        keystep.predict(model, head_of(model, tmp_path / "h.safetensors"), tmp_path / "none.npy")
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        keystep.predict(model, head_of(model, tmp_path / "h.safetensors"), videos, out=blocked / "out")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((0, 6), np.float32), r"features have shape \(0, 6\); expected \(T, D\)"),
        (np.zeros((1, 5, 6), np.float32), r"features have shape \(1, 5, 6\); expected \(T, D\)"),
        ([], "expected an array"),
        ([np.zeros((5, 6), np.float32)], "expected an array"),
        ("nowhere.npy", "nowhere.npy: no such file or folder"),
        (".", "a folder; give files"),
        ("https://host/video.mp4", "https://host/video.mp4"),
    ],
)
def test_what_is_no_recording_is_one_line(model: keystep.PJEPA, tmp_path: Path, given: object, said: str) -> None:
    head = head_of(model, tmp_path / "head.safetensors")
    with pytest.raises(InputError, match=said):
        keystep.predict(model, head, given)  # type: ignore[arg-type]
