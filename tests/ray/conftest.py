"""The cluster that all of these tests share."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clips import write_clip
from two_machines import TwoMachines


@pytest.fixture(scope="session")
def _machines() -> Iterator[TwoMachines]:
    ray = pytest.importorskip("ray", reason="needs the extra 'ray': make test-ray")
    machines = TwoMachines()
    yield machines
    ray.shutdown()
    machines.cluster.shutdown()


@pytest.fixture
def machines(_machines: TwoMachines) -> TwoMachines:
    """The cluster, with both machines."""
    _machines.ensure_second()
    return _machines


@pytest.fixture
def make_clip(tmp_path: Path) -> Callable[..., Path]:
    """Writes small videos into the test's folder, see `write_clip`."""
    pytest.importorskip("av", reason="needs the extra 'video'")

    def make(name: str, **options: Any) -> Path:
        return write_clip(tmp_path / name, **options)

    return make
