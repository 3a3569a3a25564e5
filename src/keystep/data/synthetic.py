"""Synthetic procedural videos in the MS-TCN layout, where labels depend on the history or on the current frame only.

A *world*, drawn once per seed, contains the appearances of the steps; a *video* is a noisy execution of one task
(`keystep.data.procedures` defines the process).

Frames are linear in hidden factors: step and progress, manner of the execution, what else is shown, appearance of the
video and its drift, scenery, correlated noise and bursts. The label is not a factor.

A linear function of the past hardly predicts the labels of `SyntheticConfig.demo`, because sums and averages contain
the fastenings of several workpieces and the manner of all executions in between. The features alone can teach the
labels, because a check shows how often the workpiece was fastened: predicting it requires counting.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from keystep.data import procedures
from keystep.data.procedures import BACKGROUND, PAUSES, Attempt, Chances, Length, Step, Task
from keystep.data.timeline import Timeline
from keystep.errors import InputError
from keystep.files import replacing, write_json

GENERATOR_VERSION = 2
"""Increases when the same config gives other labels or features; stored with the data."""

Array = NDArray[np.float64]
Video = tuple[NDArray[np.float32], list[str]]
"""Features (T, feature_dim) and T class names."""

_FACTORS = 16  # hidden dimensions, mixed into feature_dim
_SCENERY = 6  # additional hidden dimensions of the scenery
_PHASES = 4  # prototypes of a step between its start and end
_DURATION_SPREAD = 0.35  # standard deviation of the log duration of a step
_PACE_SPREAD = 0.2  # standard deviation of the log pace of a video, common to all its steps
_BURSTS_PER_MINUTE, _BURST_SECONDS = 1.0, 1.5  # frequency and duration of disturbances
# amplitudes, relative to a difference of 1 between the looks of steps
_OFFSET = 0.5  # appearance of a video
_DRIFT = 0.4  # change of that appearance over the video
_BURST = 1.5  # an occlusion or a camera movement


class SyntheticConfig(BaseModel):
    """Settings of a synthetic data set, with presets ``demo``, ``standard`` and ``moment``. Equal configs give equal
    bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    seed: int = Field(default=0, ge=0)
    """Seed of the world and of every video."""
    kind: Literal["history", "moment"] = "history"
    """Whether labels depend on earlier steps, or on the current frame only."""
    train_videos: int = Field(default=72, ge=1)
    """Videos in the training split."""
    valid_videos: int = Field(default=10, ge=1)
    """Videos in the validation split."""
    test_videos: int = Field(default=16, ge=1)
    """Videos in the test split."""
    feature_dim: int = Field(default=32, ge=1)
    """Width D of a feature vector."""
    rate: float = Field(default=4.0, gt=0)
    """Feature vectors per second (Hz)."""
    min_frames: int = Field(default=300, ge=200)
    """Length of the shortest videos."""
    max_frames: int = Field(default=900, ge=200)
    """Length of the longest videos; lengths are uniform in between."""
    step_seconds: float = Field(default=4.0, gt=0)
    """Median duration of a work step."""
    brief_seconds: float = Field(default=1.5, gt=0)
    """Median duration of all other steps."""
    background_seconds: float = Field(default=1.2, gt=0)
    """Median duration of a pause between steps."""
    background_probability: float = Field(default=0.2, ge=0, le=1)
    """Probability of a pause after a step."""
    tasks: int = Field(default=3, ge=1)
    """history: number of tasks; a video shows one of them."""
    work_steps: int = Field(default=5, ge=3)
    """history: number of work steps, of which each task omits one."""
    plain_steps: int = Field(default=2, ge=2)
    """Number of steps with their own look and name."""
    aside_probability: float = Field(default=0.15, ge=0, le=1)
    """history: probability of a plain step after a work step."""
    check_probability: float = Field(default=0.3, ge=0, le=1)
    """history: probability of a check before a work step and at the end of a round."""
    check_seconds: float = Field(default=2.0, gt=0)
    """Median duration of a check."""
    shown_strength: float = Field(default=2.0, ge=0)
    """Amplitude of what a check shows."""
    skip_probability: float = Field(default=0.1, ge=0, lt=1)
    """history: probability that a step is omitted, except steps on which labels depend."""
    repeat_probability: float = Field(default=0.1, ge=0, lt=1)
    """history: probability that a step is done twice."""
    mistake_probability: float = Field(default=0.1, ge=0, lt=1)
    """history: probability that a step is aborted and restarted."""
    habit: float = Field(default=1.0, gt=0)
    """moment: Dirichlet concentration of the step frequencies of a video; small values make videos differ."""
    phase_strength: float = Field(default=0.5, ge=0)
    """Amplitude of the change within one execution of a step."""
    manner_strength: float = Field(default=0.7, ge=0)
    """Amplitude of the difference between executions of a step."""
    scenery_strength: float = Field(default=0.0, ge=0)
    """Amplitude of the scenery, which changes slowly in its own directions, independently of the steps."""
    scenery_seconds: float = Field(default=10.0, gt=0)
    """Correlation time of the scenery."""
    noise_strength: float = Field(default=0.5, ge=0)
    """Amplitude of the temporally correlated noise."""
    noise_seconds: float = Field(default=0.4, gt=0)
    """Correlation time of that noise."""
    white_strength: float = Field(default=0.35, ge=0)
    """Amplitude of the white noise."""

    @model_validator(mode="after")
    def _lengths_make_an_interval(self) -> Self:
        if self.min_frames > self.max_frames:
            raise ValueError(f"min_frames {self.min_frames} exceeds max_frames {self.max_frames}: swap them")
        return self

    @classmethod
    def demo(cls, seed: int = 0) -> Self:
        """98 videos of 300-900 frames (75-225 s at 4 Hz) whose labels depend on history, for trainings of minutes."""
        return cls(seed=seed)

    @classmethod
    def standard(cls, seed: int = 0) -> Self:
        """Longer videos of the same kind: 100 of 2,000-20,000 frames (3-33 minutes at 10 Hz), about 300 MB."""
        videos = {"train_videos": 60, "valid_videos": 15, "test_videos": 25}
        frames = {"feature_dim": 128, "rate": 10.0, "min_frames": 2_000, "max_frames": 20_000}
        seconds = {"step_seconds": 10.0, "brief_seconds": 4.0, "background_seconds": 4.0, "noise_seconds": 1.0}
        return cls.model_validate({"seed": seed, **videos, **frames, **seconds, "work_steps": 7, "plain_steps": 4})

    @classmethod
    def moment(cls, seed: int = 0) -> Self:
        """40 videos of 300-600 frames whose labels depend on the current frame, with a distracting scenery."""
        videos = {"train_videos": 24, "valid_videos": 6, "test_videos": 10, "min_frames": 300, "max_frames": 600}
        seconds = {"brief_seconds": 0.75, "background_seconds": 0.75, "background_probability": 0.1}
        strengths = {"manner_strength": 1.1, "scenery_strength": 5.0}
        return cls.model_validate({"seed": seed, "kind": "moment", "plain_steps": 11, **videos, **seconds, **strengths})

    @property
    def splits(self) -> dict[Literal["train", "valid", "test"], range]:
        """Video indices of each split."""
        ends = np.cumsum([self.train_videos, self.valid_videos, self.test_videos]).tolist()
        return {"train": range(ends[0]), "valid": range(*ends[:2]), "test": range(*ends[1:])}

    @property
    def seconds(self) -> dict[Length, float]:
        """Median duration of each kind of step."""
        return {
            "work": self.step_seconds,
            "brief": self.brief_seconds,
            "check": self.check_seconds,
            "pause": self.background_seconds,
        }

    @property
    def chances(self) -> Chances:
        """Probabilities of variations in a round."""
        return Chances(
            skip=self.skip_probability,
            repeat=self.repeat_probability,
            mistake=self.mistake_probability,
            pause=self.background_probability,
            aside=self.aside_probability,
            check=self.check_probability,
        )


@dataclass(frozen=True)
class World:
    """The common parameters of all videos of one seed.

    Attributes:
        looks: look -> (_PHASES, _FACTORS) prototypes from the start to the end of a step.
        paces: look -> duration relative to the median, the same for all classes with this look.
        shown: what a step shows -> (_FACTORS,) vector that is added to its look.
        tasks: chains of work steps.
        mixing: (_FACTORS + _SCENERY, feature_dim) from factors to features.
    """

    looks: dict[str, Array]
    paces: dict[str, float]
    shown: dict[str, Array]
    tasks: list[Task]
    mixing: Array


def all_steps(config: SyntheticConfig) -> list[Step]:
    """All steps of the world except the background; steps that show several things occur once for each."""
    if config.kind == "moment":
        return procedures.moment_steps(config.plain_steps)
    return procedures.history_steps(config.work_steps, config.plain_steps)


def class_names(config: SyntheticConfig) -> list[str]:
    """Class names in the order of ``mapping.txt``."""
    return [BACKGROUND, *dict.fromkeys(step.name for step in all_steps(config))]


def make_world(config: SyntheticConfig) -> World:
    """Draw the world of a seed."""
    rng = generator(config.seed, 0)
    looks, paces = draw_looks(config, sorted({*PAUSES, *(step.look for step in all_steps(config))}), rng)
    shown = sorted({step.shows for step in all_steps(config) if step.shows is not None})
    return World(
        looks=looks,
        paces=paces,
        shown={name: config.shown_strength * rng.normal(size=_FACTORS) for name in shown},
        tasks=[procedures.make_task(number, config.work_steps, rng) for number in range(config.tasks)],
        mixing=draw_mixing(config, rng),
    )


def draw_looks(config: SyntheticConfig, names: list[str], rng: Generator) -> tuple[dict[str, Array], dict[str, float]]:
    """Draw `World.looks` and `World.paces` of the given looks."""
    phases = config.phase_strength * rng.normal(size=(len(names), _PHASES, _FACTORS))
    prototypes = rng.normal(size=(len(names), 1, _FACTORS)) + phases
    paces = rng.lognormal(0.0, 0.2, size=len(names)).tolist()
    return dict(zip(names, prototypes, strict=True)), dict(zip(names, paces, strict=True))


def draw_mixing(config: SyntheticConfig, rng: Generator) -> Array:
    """Draw `World.mixing`."""
    mixing: Array = rng.normal(size=(_FACTORS + _SCENERY, config.feature_dim)) / np.sqrt(_FACTORS)
    return mixing


def generator(seed: int, *key: int) -> Generator:
    """An independent random generator per key, so that a video does not depend on earlier ones."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def make_video(config: SyntheticConfig, index: int, world: World | None = None) -> Video:
    """Generate a video.

    Args:
        config: settings, including the seed.
        index: number of the video.
        world: result of `make_world`, to avoid computing it for each video.

    Returns:
        Features (T, feature_dim) float32 and T class names.
    """
    world = world or make_world(config)
    rng = generator(config.seed, 1, index)
    length = int(rng.integers(config.min_frames, config.max_frames + 1))
    attempts, counts = _attempts(config, world, length, rng)
    features = render(config, world, attempts, counts, length, rng)
    labels = [step.name for (step, _), count in zip(attempts, counts, strict=True) for _ in range(count)]
    return features, labels[:length]


def render(
    config: SyntheticConfig, world: World, attempts: list[Attempt], counts: list[int], length: int, rng: Generator
) -> NDArray[np.float32]:
    """Features (length, feature_dim) of attempts that take ``counts`` frames each; what exceeds the length is cut."""
    moments = [_moments(config, world, attempt, count, rng) for attempt, count in zip(attempts, counts, strict=True)]
    scene = np.concatenate(moments)[:length] + _disturbance(config, length, rng)  # (T, _FACTORS)
    scenery = config.scenery_strength * _autoregressive(config.scenery_seconds * config.rate, (length, _SCENERY), rng)
    features = np.concatenate([scene, scenery], axis=1) @ world.mixing  # (T, feature_dim)
    features += config.white_strength * rng.normal(size=features.shape)
    return features.astype(np.float32)


def _attempts(config: SyntheticConfig, world: World, length: int, rng: Generator) -> tuple[list[Attempt], list[int]]:
    """Attempts that fill ``length`` frames, and the number of frames of each; the last one may exceed the length."""
    attempts, counts = [], []
    pace = draw_pace(rng)
    for step, reaches in _plan(config, world, rng):
        attempts.append((step, reaches))
        counts.append(draw_count(config, world, attempts[-1], pace, rng))
        if sum(counts) >= length:
            break
    return attempts, counts


def draw_pace(rng: Generator) -> float:
    """Duration of the steps of a video, relative to the median."""
    return float(rng.lognormal(0.0, _PACE_SPREAD))


def draw_count(config: SyntheticConfig, world: World, attempt: Attempt, pace: float, rng: Generator) -> int:
    """Number of frames of an attempt in a video of the given pace."""
    step, reaches = attempt
    median = config.seconds[step.length] * world.paces[step.look] * pace * reaches
    return max(1, round(config.rate * median * rng.lognormal(0.0, _DURATION_SPREAD)))


def _plan(config: SyntheticConfig, world: World, rng: Generator) -> Iterator[Attempt]:
    if config.kind == "moment":
        return procedures.moments(rng.dirichlet([config.habit] * config.plain_steps), config.chances, rng)
    task = world.tasks[rng.integers(len(world.tasks))]
    return procedures.rounds(task, config.plain_steps, config.chances, rng)


def _moments(config: SyntheticConfig, world: World, attempt: Attempt, count: int, rng: Generator) -> Array:
    """(count, _FACTORS): look of an attempt, with its progress, manner, and what it shows."""
    step, reaches = attempt
    # progress with a nonlinear speed that differs between executions
    progress = reaches * ((np.arange(count) + 0.5) / count) ** rng.lognormal(0.0, 0.3)
    prototypes = world.looks[step.look] + config.manner_strength * rng.normal(size=_FACTORS)
    knots = np.linspace(0, 1, _PHASES)
    moment = np.stack([np.interp(progress, knots, values) for values in prototypes.T], axis=1)
    return moment if step.shows is None else moment + world.shown[step.shows]


def _disturbance(config: SyntheticConfig, frames: int, rng: Generator) -> Array:
    """(T, _FACTORS): offset and drift of the video, first-order autoregressive noise, and bursts."""
    drift: Array = _DRIFT * np.cumsum(rng.normal(size=(frames, _FACTORS)), axis=0) / np.sqrt(frames)
    offset = _OFFSET * rng.normal(size=_FACTORS)
    noise = config.noise_strength * _autoregressive(config.noise_seconds * config.rate, (frames, _FACTORS), rng)
    for start in rng.integers(frames, size=rng.poisson(_BURSTS_PER_MINUTE * frames / config.rate / 60)):
        length = max(1, round(rng.exponential(_BURST_SECONDS) * config.rate))
        noise[start : start + length] += _BURST * rng.normal(size=_FACTORS)
    return noise + offset + drift


def _autoregressive(frames: float, shape: tuple[int, int], rng: Generator) -> Array:
    """(T, K) first-order autoregressive noise of variance 1 with a correlation time of ``frames``."""
    memory = float(np.exp(-1 / frames))
    noise: Array = rng.normal(size=shape)
    for now in range(1, len(noise)):
        noise[now] = memory * noise[now - 1] + np.sqrt(1 - memory**2) * noise[now]
    return noise


def generate(root: Path, config: SyntheticConfig) -> None:
    """Write the data set to ``root`` atomically.

    Args:
        root: a new or empty folder.
        config: settings.

    Raises:
        InputError: ``root`` exists and is not an empty folder.
    """
    world = make_world(config)
    about = {"generator": __name__, "version": GENERATOR_VERSION, "seed": config.seed}
    with new_folder(root) as folder:
        for split, indices in config.splits.items():
            write_bundle(folder, split, indices)
            for index in indices:
                write_video(folder, index, *make_video(config, index, world))
        write_about(folder, class_names(config), config.rate, {**about, "config": config.model_dump(mode="json")})


@contextmanager
def new_folder(root: Path) -> Iterator[Path]:
    """A temporary folder with empty ``features/``, ``groundTruth/`` and ``splits/``, which becomes ``root``.

    Raises:
        InputError: ``root`` exists and is not an empty folder.
    """
    root = root.resolve()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root} exists and is not an empty folder: choose another path or remove it")
    with replacing(root) as temporary:
        for name in ("features", "groundTruth", "splits"):
            (temporary / name).mkdir(parents=True)
        yield temporary


def write_bundle(folder: Path, split: str, indices: Iterable[int]) -> None:
    """Write a part of split 1."""
    _write_lines(folder / "splits" / f"{split}.split1.bundle", [f"{video_name(index)}.txt" for index in indices])


def write_video(folder: Path, index: int, features: NDArray[np.float32], labels: list[str]) -> None:
    """Write the features, as (feature_dim, T), and the labels of a video."""
    np.save(folder / "features" / f"{video_name(index)}.npy", np.ascontiguousarray(features.T))
    _write_lines(folder / "groundTruth" / f"{video_name(index)}.txt", labels)


def write_about(folder: Path, classes: list[str], rate: float, provenance: dict[str, Any]) -> None:
    """Write ``mapping.txt`` and ``store.json``."""
    _write_lines(folder / "mapping.txt", [f"{i} {name}" for i, name in enumerate(classes)])
    timeline = Timeline(rate=Fraction(str(rate))).to_json()
    write_json(folder / "store.json", {"time_axis": 1, "timeline": timeline, "provenance": provenance})


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def video_name(index: int) -> str:
    """Name of the video with number ``index``."""
    return f"video{index:04d}"
