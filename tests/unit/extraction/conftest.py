from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import read_number, write_clip

MakeClip = Callable[..., Path]


@pytest.fixture
def make_clip(tmp_path: Path) -> MakeClip:
    """Writes small videos into the test's folder, see `write_clip`."""
    pytest.importorskip("av", reason="needs the extra 'video'")

    def make(name: str = "clip.mp4", **options: Any) -> Path:
        return write_clip(tmp_path / name, **options)

    return make


@pytest.fixture(scope="session")
def number_of() -> Callable[[np.ndarray], int]:
    """Which frame a picture (H, W, 3) shows, see `read_number`."""
    return read_number
