"""Every ``next:`` line runs as it is printed, from a folder of features to a result, and dead ends name the way on."""

import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small import QUICK, SMALL

Run = Callable[..., tuple[int, str, str]]
MORE = {"pretrain": SMALL, "eval": (*QUICK, "--quick")}


def onward(said: str) -> list[str]:
    (line,) = [line for line in said.splitlines() if line.startswith("next: ")]
    program, *words = shlex.split(line.removeprefix("next: "))
    assert program == "keystep"
    return words


def followed(keystep: Run, said: str) -> tuple[str, str]:
    """The command that a ``next:`` line names, and what it says; it has to end well."""
    words = onward(said)
    status, said, error = keystep(*words, *MORE.get(words[0], ()))
    assert status == 0, f"{words}: {error}"
    return words[0], said


@pytest.fixture
def plain(data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data without splits."""
    monkeypatch.chdir(data.parent)
    for path in (data / "splits").iterdir():
        path.unlink()
    return data


def test_from_features_and_labels_to_a_result_by_what_is_printed(keystep: Run, plain: Path) -> None:
    said, names = keystep("inspect", plain, "--source-rate", 4, "--rate", 2)[1], []
    while "next: " in said:
        name, said = followed(keystep, said)
        names.append(name)
    assert names == ["split", "pretrain", "eval"]


def test_a_training_without_splits_goes_on_by_making_them(keystep: Run, plain: Path) -> None:
    status, said, error = keystep("pretrain", plain, "--source-rate", 4, "--out", "runs/pjepa", *SMALL)
    assert status == 0, error
    name, said = followed(keystep, said)
    assert name == "split" and onward(said)[-1] == "runs/pjepa-2", "a folder that is taken is not offered again"


def test_a_training_without_labels_goes_on_by_encoding(keystep: Run, plain: Path) -> None:
    for path in (plain / "groundTruth").iterdir():
        path.unlink()
    (plain / "groundTruth").rmdir()
    assert onward(keystep("inspect", plain, "--source-rate", 4)[1])[0] == "pretrain"
    options = ("--source-rate", 4, "--rate", 2, "--seeds", 2, "--out", "runs/pjepa")
    status, said, error = keystep("pretrain", plain, *options, *SMALL)
    assert status == 0, error
    assert followed(keystep, said)[0] == "encode"


def test_an_evaluation_without_splits_says_how_to_make_them(keystep: Run, plain: Path) -> None:
    status, _, error = keystep("eval", plain, "--source-rate", 4)
    assert status == 2 and error.count("\n") == 1
    command = error.strip().partition("make folds of the videos: ")[2]
    assert keystep(*shlex.split(command)[1:])[0] == 0


def test_persons_given_by_a_pattern_stay_together_in_all_that_follows(keystep: Run, plain: Path) -> None:
    pattern = "^video([0-7])"
    status, said, error = keystep("split", plain, "--groups", pattern, "--source-rate", 4)
    assert status == 0 and "5 folds of 8 videos (2, 2, 2, 1, 1" in said and "each of the 8 groups" in said, error
    said = keystep("inspect", plain, "--source-rate", 4)[1]
    assert "8 groups (persons or sites)" in said
    assert followed(keystep, said)[0] == "pretrain"


@pytest.mark.parametrize("command", ["inspect", "pretrain", "eval"])
def test_a_folder_of_videos_is_sent_to_extract(keystep: Run, tmp_path: Path, command: str) -> None:
    videos = tmp_path / "my videos"
    videos.mkdir()
    (videos / "a.MP4").touch()
    out = () if command == "inspect" else ("--out", tmp_path / "out")
    status, _, error = keystep(command, videos, *out)
    assert status == 2 and "videos, not features" in error
    assert shlex.split(error.strip().partition("first: ")[2]) == [
        *("keystep", "extract", str(videos), "--out", str(tmp_path / "my videos-features"))
    ]


def test_a_transposed_file_is_called_transposed(keystep: Run, plain: Path) -> None:
    path = plain / "features" / "video3.npy"
    np.save(path, np.ascontiguousarray(np.load(path).T))
    status, said, _ = keystep("inspect", plain, "--source-rate", 4)
    assert status == 1 and "video3.npy: transposed: its shape is (65, 6), the others are (D, T)" in said
