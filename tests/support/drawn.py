"""Made-up recordings of an assembly, drawn frame by frame, with features and labels: for tests that look at videos."""

from functools import cache
from pathlib import Path

import numpy as np
from clips import write_clip

from keystep.evals.palette import DISTINCT, rgb

RATE, FPS = 4, 8
STEPS = ("pick the part", "place it", "drive the screw", "check", "wait")
COLOURS = np.array([rgb(colour) for colour in DISTINCT[: len(STEPS)]])
"""As the page draws the steps."""
FEATURES = 16


def write_drawn(root: Path, *, videos: int = 4, seconds: int = 15, labelled: int = 2, height: int = 90) -> Path:
    """A feature folder (MS-TCN layout, 4 Hz) and ``root/videos``: each step is a square of its own colour and path.

    The first ``labelled`` videos have labels; the order and length of steps, and where squares are, vary.
    """
    rng = np.random.default_rng(0)
    for part in ("features", "groundTruth", "videos"):
        (root / part).mkdir(parents=True)
    (root / "mapping.txt").write_text("".join(f"{index} {name}\n" for index, name in enumerate(STEPS)))
    looks = rng.normal(size=(len(STEPS), FEATURES))
    for index in range(videos):
        name, steps = f"assembly_{index + 1:02d}", _steps(rng, seconds * RATE)
        noise = rng.normal(size=(len(steps), FEATURES))
        phase = np.sin(np.arange(len(steps)) / RATE)[:, None]
        features = looks[steps] + 0.4 * phase * looks[(steps + 1) % len(STEPS)] + 0.5 * noise
        np.save(root / "features" / f"{name}.npy", features.T.astype(np.float32))
        if index < labelled:
            (root / "groundTruth" / f"{name}.txt").write_text("\n".join(STEPS[step] for step in steps))
        _write_film(root / "videos" / f"{name}.mp4", np.repeat(steps, FPS // RATE), rng.uniform(0, 2 * np.pi), height)
    return root


def _steps(rng: np.random.Generator, slots: int) -> np.ndarray:
    order, found = [0, 1, 2, 2, 3, 4], []
    while len(found) < slots:
        for step in order:
            if rng.random() < 0.85:
                found += [step] * int(rng.integers(6, 24))
    return np.array(found[:slots])


def _write_film(path: Path, steps: np.ndarray, drift: float, height: int) -> None:
    shown = {"height": height, "width": height * 16 // 9, "rate": FPS, "keyframe_every": FPS}
    write_clip(
        path, frames=len(steps), picture=lambda number: _picture(int(steps[number]), number, drift, height), **shown
    )


@cache
def _grid(height: int) -> tuple[np.ndarray, np.ndarray]:
    down, across = np.mgrid[:height, : height * 16 // 9].astype(np.float32) / height
    return across, down


def _picture(step: int, number: int, drift: float, height: int) -> np.ndarray:
    """An arm that holds a square in the step's colour over a plate on a bench."""
    across, down = _grid(height)  # 0 to 1.78, 0 to 1
    picture = np.empty((*down.shape, 3), np.uint8)
    picture[:] = np.where((down < 0.62)[..., None], (214, 219, 224), (158, 128, 98))
    picture[(abs(across - 0.89) < 0.34) & (abs(down - 0.70) < 0.06)] = (112, 118, 126)
    turn = number / FPS * (0.6 + 0.25 * step) + drift
    x, y = 0.89 + 0.5 * np.cos(turn), 0.40 + 0.22 * np.sin(turn * (1 + step % 3))
    reach = np.clip(((across - x) * (1.9 - x) + (down - y) * (1.1 - y)) / ((1.9 - x) ** 2 + (1.1 - y) ** 2), 0, 1)
    from_arm = (across - x - reach * (1.9 - x)) ** 2 + (down - y - reach * (1.1 - y)) ** 2
    picture[from_arm < 0.055**2] = (208, 162, 132)
    picture[(abs(across - x) < 0.075) & (abs(down - y) < 0.075)] = COLOURS[step]
    picture[(abs(across - x) < 0.03) & (abs(down - y) < 0.03)] = (245, 245, 240)
    return picture
