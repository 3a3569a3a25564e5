import io
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

import keystep
from keystep.config import ModelConfig
from keystep.config.base import build

keystep.plugins.allow(
    *(
        f"toy_backbones:{name}"
        for name in ("colours", "moving", "broken", "huge", "dying", "stuck", "slow", "dying_of_long")
    )
)
os.environ["COLUMNS"] = "200"  # what the command line prints does not depend on who imported it first
settings.register_profile("ci", derandomize=True, deadline=None)  # the same examples each time
if os.environ.get("CI"):
    settings.load_profile("ci")

CLASSES = ("wait", "cut", "tie a knot")
MakeFolder = Callable[..., Path]
Run = Callable[..., tuple[int, str, str]]
GOLDEN = Path(__file__).parents[2] / "shared" / "golden"
CASES = json.loads((GOLDEN / "manifest.json").read_text())["cases"] if GOLDEN.exists() else []
"""The authors' code run on random weights; its README says how, and how near another implementation comes."""


@pytest.fixture(scope="session")
def shared() -> Path:
    """Other people's data and the golden files, which lie beside the repository where they are at all."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}: its data may not be shipped with the project")
    return folder


@pytest.fixture(name="keystep")
def keystep_command(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command as the shell would: (exit status, standard output, standard error)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main_of(*arguments)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture(scope="session")
def once() -> Run:
    """The same for what a module or a session shares."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            status = main_of(*arguments)
        return status, out.getvalue(), err.getvalue()

    return run


def main_of(*arguments: object) -> int:
    """The exit status of a command in this process."""
    from keystep.cli import main

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["keystep", *(str(argument) for argument in arguments)])
        patch.setenv("COLUMNS", "200")
        try:
            main()
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else 1
    return 0


@pytest.fixture(scope="session")
def make_model() -> Callable[..., keystep.PJEPA]:
    """A small random model, the same each time, with the given attention and no second mode.

    Its latents are as wide as the blocks, without held bands, unless ``readout_dim`` and ``tau`` are given.
    """

    def make(pattern: dict, **changes: object) -> keystep.PJEPA:
        settings = {"input_dim": 5, "dim": 16, "depth": 2, "heads": 2, "readout_dim": None}
        settings |= {"live_attention": None, "attention": pattern}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = keystep.PJEPA(build(ModelConfig, settings, changes)).eval()
            if model.config.input_norm == "channel":
                model.encoder.proj[0].mean.normal_()
            if model.encoder.held is not None:
                model.encoder.held.norm.mean.normal_()
        return model

    return make


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Writes small feature folders in the MS-TCN layout, see `write_folder`."""

    def make(name: str = "data", **options: object) -> Path:
        return write_folder(tmp_path / name, **options)  # type: ignore[arg-type]

    return make


def write_folder(
    root: Path,
    *,
    lengths: Mapping[str, int] | None = None,
    width: int = 6,
    time_axis: int = 1,
    dtype: str = "float32",
    classes: Sequence[str] = CLASSES,
    labelled: bool = True,
    splits: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Random features, labels in runs of five frames, a mapping, and splits.

    Args:
        lengths: frames of each video; by default six videos of 40 to 65 frames.
        splits: ``{"train.split1": names}``; by default four videos train and the rest test.
    """
    rng = np.random.default_rng(0)
    lengths = {f"video{i}": 40 + 5 * i for i in range(6)} if lengths is None else lengths
    for part in ("features", "splits", *(("groundTruth",) if labelled else ())):
        (root / part).mkdir(parents=True)
    for name, length in lengths.items():
        features = rng.normal(size=(length, width)).astype(dtype)
        np.save(root / "features" / f"{name}.npy", features if time_axis == 0 else np.ascontiguousarray(features.T))
        if labelled:
            ids = np.repeat(rng.integers(len(classes), size=length // 5 + 1), 5)[:length]
            (root / "groundTruth" / f"{name}.txt").write_text("".join(f"{classes[i]}\n" for i in ids))
    if labelled:
        (root / "mapping.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(classes)))
    names = list(lengths)
    for part, chosen in (splits or {"train.split1": names[:4], "test.split1": names[4:]}).items():
        (root / "splits" / f"{part}.bundle").write_text("".join(f"{name}.txt\n" for name in chosen))
    return root


@pytest.fixture
def mstcn(tmp_path: Path) -> Path:
    """A small folder of its own for a test that changes it."""
    return write_mstcn(tmp_path / "data")


@pytest.fixture(scope="session")
def shared_mstcn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder for tests that leave it alone."""
    return write_mstcn(tmp_path_factory.mktemp("mstcn") / "data")


def write_mstcn(root: Path) -> Path:
    """Six labelled videos of 20 to 45 frames with 6 numbers each, in the MS-TCN layout."""
    rng = np.random.default_rng(0)
    for part in ("features", "groundTruth", "splits"):
        (root / part).mkdir(parents=True)
    (root / "mapping.txt").write_text("0 wait\n1 cut\n2 tie a knot\n")
    names = [f"video.{index}" for index in range(6)]
    for index, name in enumerate(names):
        length = 20 + 5 * index
        labels = np.sort(rng.integers(0, 3, length))
        features = np.eye(3)[labels] @ rng.normal(size=(3, 6)) + rng.normal(size=(length, 6))
        np.save(root / "features" / f"{name}.npy", features.T.astype(np.float32))
        classes = ("wait", "cut", "tie a knot")
        (root / "groundTruth" / f"{name}.txt").write_text("\n".join(classes[label] for label in labels))
    for part, chosen in (("train", names[:3]), ("valid", names[3:4]), ("test", names[4:])):
        (root / "splits" / f"{part}.split1.bundle").write_text("\n".join(f"{name}.txt" for name in chosen))
    return root


@pytest.fixture(scope="session")
def golden() -> Path:
    if not CASES:
        pytest.skip(f"no folder {GOLDEN}: the authors' reference tensors are not part of this repository")
    return GOLDEN


@pytest.fixture(scope="session")
def cases(golden: Path) -> list[dict]:
    return CASES


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that take a ``case`` run on each of the authors' ten, or once, to say that these are not here."""
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", CASES or [{"name": "no golden files"}], ids=lambda case: case["name"])
