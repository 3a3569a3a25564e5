from pathlib import Path

import numpy as np
import pytest
from small import SMALL

from keystep.config import RunConfig
from keystep.config.base import assignments, build
from keystep.train.run import pretrain


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The videos of `write_videos`, for a test that may change them."""
    return write_videos(tmp_path / "mydata")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the training videos of the same data, trained with `SMALL`; nobody changes it."""
    folder = tmp_path_factory.mktemp("trained")
    data = {"data": {"root": write_videos(folder / "mydata"), "source_rate": 4, "split": "1"}}
    pretrain(build(RunConfig, data, assignments([*SMALL[1::2]])), folder / "run")
    return folder / "run"


def write_videos(root: Path) -> Path:
    """Eight labelled videos of 50 to 85 frames with 6 numbers each at 4 Hz, in the MS-TCN layout."""
    rng = np.random.default_rng(0)
    for part in ("features", "groundTruth", "splits"):
        (root / part).mkdir(parents=True)
    (root / "mapping.txt").write_text("0 wait\n1 cut\n2 tie a knot\n")
    names = [f"video{index}" for index in range(8)]
    looks = rng.normal(size=(3, 6))
    for index, name in enumerate(names):
        labels = np.repeat(rng.integers(0, 3, 20), 5)[: 50 + 5 * index]
        features = looks[labels] + 0.5 * rng.normal(size=(len(labels), 6))
        np.save(root / "features" / f"{name}.npy", features.T.astype(np.float32))
        classes = ("wait", "cut", "tie a knot")
        (root / "groundTruth" / f"{name}.txt").write_text("\n".join(classes[label] for label in labels))
    for part, chosen in (("train", names[:4]), ("valid", names[4:5]), ("test", names[5:])):
        (root / "splits" / f"{part}.split1.bundle").write_text("\n".join(f"{name}.txt" for name in chosen))
    return root
