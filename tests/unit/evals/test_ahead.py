"""An evaluation whose probes and heads were fitted by workers is that of one process."""

from pathlib import Path

import pytest
import torch
from inline import Inline
from two_classes import write_data

import keystep
from keystep.config import ModelConfig
from keystep.config.base import build
from keystep.errors import InputError
from keystep.evals.judge import Judge
from keystep.evals.probe import ProbeConfig
from keystep.evals.protocol import EvalConfig
from keystep.heads import TrainingConfig

SMALL = {"mstcn": {"maps": 8, "layers": 2, "refinements": 1}}
CONFIG = EvalConfig(
    probe=ProbeConfig(penalties=(0.01,)), training=TrainingConfig(epochs=1), seeds=1, head_settings=SMALL
)


def model(seed: int) -> keystep.PJEPA:
    torch.manual_seed(100 + seed)
    return keystep.PJEPA(build(ModelConfig, {"input_dim": 4, "dim": 16, "depth": 1, "heads": 2})).eval()


def test_workers_fit_everything_once_and_the_results_are_those_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = keystep.open_dataset(write_data(tmp_path / "data"), source_rate=4, rate=2)
    models, fits = {"a": [model(0), model(1)]}, []
    fit = Judge._fit

    def counted(*given: object) -> object:
        fits.append(given)
        return fit(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(Judge, "_fit", counted)
    options = {"modes": ["causal"], "heads": ["linear", "mstcn"], "config": CONFIG}
    one = keystep.evaluate(data, models, **options, out=tmp_path / "one")  # type: ignore[arg-type]
    alone = len(fits)
    engine = Inline()
    other = keystep.evaluate(data, models, **options, out=tmp_path / "other", engine=engine)  # type: ignore[arg-type]
    assert len(fits) == 2 * alone, "workers fit what one process fits, and this process nothing"
    assert {"raw", "controls causal", "model causal 0 True True", "head causal 0 mstcn"} <= set(engine.jobs)
    for key in ("rows", "gate", "head_gains", "geometry"):
        assert one.record[key] == other.record[key]
    assert {path.name for path in (tmp_path / "one" / "probes").glob("*.npz")} == {
        path.name for path in (tmp_path / "other" / "probes").glob("*.npz")
    }
    for path in (tmp_path / "one" / "probes").glob("*.npz"):
        assert path.read_bytes() == (tmp_path / "other" / "probes" / path.name).read_bytes()


def test_workers_need_a_folder(tmp_path: Path) -> None:
    data = keystep.open_dataset(write_data(tmp_path / "data"), source_rate=4, rate=2)
    with pytest.raises(InputError, match="needs out"):
        keystep.evaluate(data, engine=Inline())
