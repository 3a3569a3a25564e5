"""Latents on a cluster: the bytes of this process."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from two_machines import TwoMachines, files_of

import keystep
from keystep.engines.ray import Ray

LENGTHS = {f"video{number}": 2100 + 37 * number for number in range(6)}
"""Frames, so many that each batch holds one video."""


@pytest.mark.parametrize("layout", ["native", "mstcn"])
def test_latents_are_those_of_this_process(
    machines: TwoMachines, make_model: Callable, make_folder: Callable[..., Path], tmp_path: Path, layout: str
) -> None:
    data = make_folder(lengths=LENGTHS, width=5, dtype="float32")
    damaged = np.load(data / "features" / "video3.npy")
    damaged[0, 70] = np.nan
    np.save(data / "features" / "video3.npy", damaged)
    model = make_model({"kind": "causal", "window": 16})
    for out, engine in (("here", None), ("there", Ray(machines.address))):
        folder = keystep.open_dataset(data, source_rate=4, rate=2, problems="skip")
        done = keystep.encode(model, folder, out=tmp_path / out, layout=layout, engine=engine)
        assert len(done.videos) == 5 and "NaN or infinite" in done.skipped["video3"]
    assert files_of(tmp_path / "there") == files_of(tmp_path / "here")
