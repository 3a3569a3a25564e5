"""A run measures the time scale of its data, works in it, says it, and keeps it."""

import sys
import weakref
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from keystep.cli import main
from keystep.config import RunConfig, run_config
from keystep.config.base import build
from keystep.data.folder import FeatureFolder, open_dataset
from keystep.data.time_scale import decorrelation_time
from keystep.errors import InputError
from keystep.progress import SILENT
from keystep.train.run import pretrain
from keystep.train.setup import settle_config

SMALL = {
    "model": {"dim": 16, "depth": 1, "heads": 2, "predictor_depth": 1, "readout_dim": 24},
    "train": {"steps": 2, "batch_size": 4, "monitor_every": 1000, "save_every": 1000},
}


def settings(root: Path, **changes: object) -> RunConfig:
    return build(RunConfig, SMALL, {"data": {"root": root, "source_rate": 4}}, changes)  # type: ignore[arg-type]


def still_folder(root: Path) -> Path:
    """Two videos whose features never change."""
    (root / "features").mkdir(parents=True)
    (root / "store.json").write_text('{"time_axis": 1}')
    for index in range(2):
        np.save(root / "features" / f"video{index}.npy", np.full((6, 50), index + 1, np.float32))
    return root


def test_times_are_settled_by_the_measured_scale_and_written_down(mstcn: Path, tmp_path: Path) -> None:
    model = pretrain(settings(mstcn), tmp_path / "run")
    folder = open_dataset(mstcn, source_rate=Fraction(4))
    tau = decorrelation_time([folder.features(name) for name in sorted(folder.videos)], 4).tau
    config = run_config(tmp_path / "run")
    assert config.data.tau == pytest.approx(tau) and config.model.tau == pytest.approx(4 * tau)
    offsets = [0.0, *(sign * 0.9 * 2**level * tau for level in range(7) for sign in (-1, 1))]
    assert config.target.offsets == pytest.approx(sorted(offsets), abs=6e-4)
    assert config.train.crop == round(93 * tau * 4)
    assert config.masking.longest == max(1, round(6 * tau * 4))
    assert model.config == config.model and model.encoder.held is not None
    assert list(model.bands()) == ["frame", "around", "memory", "ahead", "steady", "context"]


class Tracked(np.ndarray):
    """An array that can be watched."""


def test_the_scale_is_measured_one_video_at_a_time(mstcn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, alive, counts = FeatureFolder.vectors, set(), []

    def watched(folder: FeatureFolder, name: str) -> np.ndarray:
        array = read(folder, name).view(Tracked)
        alive.add(id(array))
        weakref.finalize(array, alive.discard, id(array))
        counts.append(len(alive))
        return array

    monkeypatch.setattr(FeatureFolder, "vectors", watched)
    folder = open_dataset(mstcn, source_rate=Fraction(4))
    config = settle_config(settings(mstcn), folder, sorted(folder.videos), SILENT)
    assert config.data.tau is not None and len(counts) >= 6 and max(counts) <= 2


def test_a_run_is_the_same_when_the_measured_scale_is_stated(mstcn: Path, tmp_path: Path) -> None:
    measured = pretrain(settings(mstcn), tmp_path / "measured")
    stated = settings(mstcn, data={"tau": run_config(tmp_path / "measured").data.tau})
    again = pretrain(stated, tmp_path / "stated")
    one, two = measured.state_dict(), again.state_dict()
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_another_scale_is_another_run(mstcn: Path, tmp_path: Path) -> None:
    model = pretrain(settings(mstcn, data={"tau": 1.5}), tmp_path / "run")
    assert model.config.tau == 6.0 and run_config(tmp_path / "run").train.crop == 558
    assert run_config(tmp_path / "run").masking.longest == 36


def test_features_that_never_change_are_refused_in_one_line_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = still_folder(tmp_path / "data")
    out = tmp_path / "run"
    monkeypatch.setattr(sys, "argv", ["keystep", "pretrain", str(root), "--source-rate", "4", "--out", str(out)])
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr().err.strip().splitlines()
    assert stopped.value.code == 2 and not out.exists()
    errors = [line for line in said if "are constant within videos" in line]
    assert len(errors) == 1 and str(root) in errors[0] and errors[0].endswith("or state data.tau in seconds")


def test_a_stated_scale_trains_on_features_that_never_change(tmp_path: Path) -> None:
    root = still_folder(tmp_path / "data")
    model = pretrain(settings(root, data={"tau": 2.0}), tmp_path / "run")
    latents = model.encode(open_dataset(root, source_rate=Fraction(4)).features("video0"))
    assert bool(latents.isfinite().all())


def test_settings_in_frames_and_seconds_need_no_scale(tmp_path: Path) -> None:
    """As the paper's: no held bands, single frames, random masks."""
    root = still_folder(tmp_path / "data")
    plain = {
        "model": {"bands": ["context"]},
        "target": {"offsets": [0]},
        "masking": {"kind": "random"},
        "train": {"crop": "5s"},
    }
    pretrain(settings(root, **plain), tmp_path / "run")
    config = run_config(tmp_path / "run")
    assert (config.data.tau, config.model.tau, config.train.crop) == (None, None, 20)
    with pytest.raises(InputError, match="are constant"):
        pretrain(settings(root, **{**plain, "train": {"crop": "93tau"}}), tmp_path / "other")
