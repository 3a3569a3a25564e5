"""Made-up recordings of an assembly, drawn frame by frame, with features and labels: for tests that look at videos."""

from pathlib import Path

import numpy as np
from clips import write_clip

RATE, FPS = 4, 8
WIDTH, HEIGHT = 320, 180
STEPS = ("pick the part", "place it", "drive the screw", "check", "wait")
COLOURS = np.array([[34, 187, 153], [0, 119, 204], [238, 119, 0], [170, 68, 119], [120, 120, 120]])
FEATURES = 16


def write_drawn(root: Path, *, videos: int = 4, seconds: int = 15, labelled: int = 2, seed: int = 0) -> Path:
    """A feature folder (MS-TCN layout, 4 Hz) and ``root/videos``: each step is a square of its own colour and path.

    The first ``labelled`` videos have labels; the order and length of steps, and where squares are, vary.
    """
    rng = np.random.default_rng(seed)
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
        _write_film(root / "videos" / f"{name}.mp4", np.repeat(steps, FPS // RATE), drift=rng.uniform(0, 2 * np.pi))
    return root


def _steps(rng: np.random.Generator, slots: int) -> np.ndarray:
    order, found = [0, 1, 2, 2, 3, 4], []
    while len(found) < slots:
        for step in order:
            if rng.random() < 0.85:
                found += [step] * int(rng.integers(6, 24))
    return np.array(found[:slots])


def _write_film(path: Path, steps: np.ndarray, drift: float) -> None:
    shown = {"height": HEIGHT, "width": WIDTH, "rate": FPS, "keyframe_every": FPS}
    write_clip(path, frames=len(steps), picture=lambda number: _picture(int(steps[number]), number, drift), **shown)


def _picture(step: int, number: int, drift: float) -> np.ndarray:
    picture = np.full((HEIGHT, WIDTH, 3), (28, 32, 38), np.uint8)
    picture[HEIGHT - 36 :] = (58, 52, 46)
    turn = number / FPS * (0.6 + 0.25 * step) + drift
    across = int((0.5 + 0.36 * np.cos(turn)) * (WIDTH - 48))
    down = int((0.4 + 0.3 * np.sin(turn * (1 + step % 3))) * (HEIGHT - 48))
    picture[HEIGHT - 66 : HEIGHT - 30, 140:180] = (150, 140, 120)
    picture[down : down + 44, across : across + 44] = COLOURS[step]
    picture[down + 12 : down + 32, across + 12 : across + 32] = (245, 245, 240)
    return picture
