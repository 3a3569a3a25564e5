"""A small made-up data set that several tests of judging share."""

from pathlib import Path

import numpy as np


def write_data(root: Path, videos: int = 8) -> Path:
    """Two classes; the second half of each video is the second class, and its frames say so through noise."""
    rng = np.random.default_rng(0)
    for part in ("features", "groundTruth", "splits"):
        (root / part).mkdir(parents=True)
    (root / "mapping.txt").write_text("0 early\n1 late\n")
    names = [f"v{index}" for index in range(videos)]
    for name in names:
        length = int(rng.integers(60, 90))
        labels = (np.arange(length) >= length // 2).astype(int)
        features = rng.normal(size=(length, 4)) + labels[:, None]
        np.save(root / "features" / f"{name}.npy", features.T.astype(np.float32))
        (root / "groundTruth" / f"{name}.txt").write_text("\n".join(("early", "late")[label] for label in labels))
    for part, chosen in (("train", names[:4]), ("valid", names[4:5]), ("test", names[5:])):
        (root / "splits" / f"{part}.split1.bundle").write_text("\n".join(f"{name}.txt" for name in chosen))
    return root
