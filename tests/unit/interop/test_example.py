"""examples/official_numbers.py does what it says, on small files in the authors' layouts."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import reference
import torch

from keystep.data.store import FeatureStore
from keystep.data.timeline import Timeline
from keystep.files import write_lines
from keystep.interop import official
from keystep.metrics import segmentation_scores

EXAMPLE = Path(__file__).parents[3] / "examples" / "official_numbers.py"
CLASSES = ("background", "cut", "tie")
ORACLE = {"oracle": "true boundaries shaped it"}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """An encoder, a head with activity, and two folders with three test videos, one of them ORACLE."""
    rng = np.random.default_rng(0)
    weights = {name: torch.from_numpy(value) for name, value in reference.random_weights(rng).items()}
    settings = reference.architecture("block_causal", "1d_flat")
    torch.save({"model_state_dict": weights, "architecture": settings}, tmp_path / "encoder.pt")
    head = {}
    for name in ("foreground_fc", "activity_fc"):
        head |= {f"{name}.weight": torch.randn(2, 20), f"{name}.bias": torch.randn(2)}
    torch.save({"state_dict": head}, tmp_path / "head.pt")
    for folder, provenance in (("data", None), ("oracle", ORACLE)):
        store = FeatureStore(tmp_path / folder, Timeline(rate=4), provenance=provenance).create()  # type: ignore[arg-type]
        write_lines(tmp_path / folder / "mapping.txt", [f"{i} {name}" for i, name in enumerate(CLASSES)])
        for number in range(5):
            labels = [CLASSES[i] for i in np.repeat(rng.integers(3, size=6), 5)]
            store.add(f"v{number}", rng.normal(size=(30, 5)).astype(np.float32), labels=labels)
        for part, names in (("train", ["v0", "v1"]), ("test", ["v2", "v3", "v4"])):
            write_lines(tmp_path / folder / "splits" / f"{part}.split1.bundle", names)
    return tmp_path


@pytest.fixture
def run(files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the example beside the files as the shell would: (exit status, standard output, standard error)."""
    monkeypatch.chdir(files)

    def called(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *arguments])
        status, line = 0, ""
        try:
            runpy.run_path(str(EXAMPLE), run_name="__main__")
        except SystemExit as stop:
            status, line = 1, str(stop.code)
        said = capsys.readouterr()
        return status, said.out, said.err + line

    return called


def test_the_scores_are_those_of_encoder_head_and_metrics(files: Path, run: Run) -> None:
    model, head = official.load(files / "encoder.pt"), official.load_head(files / "head.pt")
    predictions, truths = [], []
    for name in ("v2", "v3", "v4"):
        features = torch.from_numpy(np.load(files / "data" / "features" / f"{name}.npy"))[None]
        predictions.append(head.predict(model.encode(features))[0].tolist())
        lines = (files / "data" / "groundTruth" / f"{name}.txt").read_text().split()
        truths.append([CLASSES.index(line) for line in lines])
    scores = segmentation_scores(predictions, truths, [0], protocol="official")
    assert scores["accuracy"] != scores["accuracy_foreground"], "so that another protocol would show"
    status, said, error = run("encoder.pt", "head.pt", "data", "--background", "background")
    assert status == 0, error
    assert said == "3 videos\n" + "  ".join(f"{name} {score:.1f}" for name, score in scores.items()) + "\n"


def test_converted_encoders_are_read_and_oracle_folders_are_marked(files: Path, run: Run) -> None:
    official.load(files / "encoder.pt").save_pretrained(files / "converted")
    plain = run("encoder.pt", "head.pt", "oracle", "--background", "background")
    assert plain == run("converted", "head.pt", "oracle", "--background", "background")
    assert plain[0] == 0 and plain[1].startswith("3 videos, ORACLE\n")


def test_what_does_not_fit_is_one_line(files: Path, run: Run) -> None:
    torch.save({"fc.weight": torch.zeros(9, 20), "fc.bias": torch.zeros(9)}, files / "wide.pt")
    for arguments, line in (
        (("encoder.pt", "wide.pt", "data"), "wide.pt: tells 9 classes; data has 3"),
        (("encoder.pt", "head.pt", "data", "--background", "nothing"), "'nothing' is none of the 3 classes"),
        (("absent.pt", "head.pt", "data"), "absent.pt: no such file"),
    ):
        status, said, error = run(*arguments)
        assert status == 1 and not said and line in error and "Traceback" not in error
