from pathlib import Path

import numpy as np
import pytest


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
