"""Made-up procedural videos in the MS-TCN layout: one kind where history matters, one where only the moment does.

A *world*, drawn once from the seed, holds the looks of the steps; a *video* is one noisy run through one task
(`keystep.data.procedures` says what happens in it).

Frames are linear in hidden factors: what is done and how far it has got, the manner of this execution, what else is
shown, the video's appearance and its drift, scenery, correlated noise and bursts. The label is never one of them.

Why what is read linearly from the past hardly tells the names of `SyntheticConfig.demo`: sums and averages hold the
fastenings of several workpieces, not how often the last one was fastened, and everything drowns there in the manner of
every execution between. Why features alone can teach it: a check shows how often the workpiece was fastened, so who
predicts checks has to count, and to keep the count.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, Self

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
"""Goes up whenever the same config gives other labels or features; it is stored with the data."""

Array = NDArray[np.float64]
Video = tuple[NDArray[np.float32], list[str]]
"""Features (T, feature_dim) and T class names."""

_FACTORS = 16  # hidden dimensions in which what happens is drawn before it is mixed into feature_dim
_SCENERY = 6  # further ones, for what stands around
_PHASES = 4  # prototypes that an execution passes on its way from start to end
_DURATION_SPREAD = 0.35  # standard deviation of the log length of a step around its median
_PACE_SPREAD = 0.2  # the same for the pace of a video, which all of its steps share
_BURSTS_PER_MINUTE, _BURST_SECONDS = 1.0, 1.5  # how often and how long the view is disturbed
# sizes, where the looks of steps differ by 1
_OFFSET = 0.5  # a video's own appearance
_DRIFT = 0.4  # how far that appearance moves from one end of the video to the other
_BURST = 1.5  # an occlusion or a camera movement


class SyntheticConfig(BaseModel):
    """What to generate. ``demo``, ``standard`` and ``moment`` are the presets; equal configs give equal bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    seed: int = Field(default=0, ge=0)
    """Fixes the world and every video in it."""
    kind: Literal["history", "moment"] = "history"
    """Whether names depend on what was done before, or on what is in view alone."""
    train_videos: int = Field(default=72, ge=1)
    """Videos in the training split."""
    valid_videos: int = Field(default=10, ge=1)
    """Videos in the validation split."""
    test_videos: int = Field(default=16, ge=1)
    """Videos in the test split."""
    feature_dim: int = Field(default=32, ge=1)
    """Width D of a feature vector."""
    rate: float = Field(default=4.0, gt=0)
    """Feature vectors a second (Hz)."""
    min_frames: int = Field(default=300, ge=200)
    """Length of the shortest videos."""
    max_frames: int = Field(default=900, ge=200)
    """Length of the longest; lengths are uniform in between."""
    step_seconds: float = Field(default=4.0, gt=0)
    """Median length of a work step."""
    brief_seconds: float = Field(default=1.5, gt=0)
    """Median length of all other steps."""
    background_seconds: float = Field(default=1.2, gt=0)
    """Median length of a pause between steps."""
    background_probability: float = Field(default=0.2, ge=0, le=1)
    """How often a step is followed by such a pause."""
    tasks: int = Field(default=3, ge=1)
    """history: tasks; a video shows one of them."""
    work_steps: int = Field(default=5, ge=3)
    """history: work steps, of which a task leaves one out."""
    plain_steps: int = Field(default=2, ge=2)
    """Steps with a look and a name of their own."""
    aside_probability: float = Field(default=0.15, ge=0, le=1)
    """history: how often a work step is followed by a plain one."""
    check_probability: float = Field(default=0.3, ge=0, le=1)
    """history: how often a check takes place before a work step and at the end."""
    check_seconds: float = Field(default=2.0, gt=0)
    """Median length of a check."""
    shown_strength: float = Field(default=2.0, ge=0)
    """Size of what a check shows."""
    skip_probability: float = Field(default=0.1, ge=0, lt=1)
    """history: how often a step is left out, those aside that names depend on."""
    repeat_probability: float = Field(default=0.1, ge=0, lt=1)
    """history: how often a step is done twice."""
    mistake_probability: float = Field(default=0.1, ge=0, lt=1)
    """history: how often a step is broken off and begun anew."""
    habit: float = Field(default=1.0, gt=0)
    """moment: how alike videos are in what is done how often (Dirichlet concentration; small: each has its own)."""
    phase_strength: float = Field(default=0.5, ge=0)
    """Size of what changes within one execution of a step."""
    manner_strength: float = Field(default=0.7, ge=0)
    """Size of what differs between two executions of a step."""
    scenery_strength: float = Field(default=0.0, ge=0)
    """Size of the scenery, which changes slowly, in directions of its own, whatever is done."""
    scenery_seconds: float = Field(default=10.0, gt=0)
    """Correlation time of the scenery."""
    noise_strength: float = Field(default=0.5, ge=0)
    """Size of the temporally correlated noise."""
    noise_seconds: float = Field(default=0.4, gt=0)
    """Correlation time of that noise."""
    white_strength: float = Field(default=0.35, ge=0)
    """Size of the noise that is new in every frame and dimension."""

    @model_validator(mode="after")
    def _lengths_make_an_interval(self) -> Self:
        if self.min_frames > self.max_frames:
            raise ValueError(f"min_frames {self.min_frames} exceeds max_frames {self.max_frames}: swap them")
        return self

    @classmethod
    def demo(cls, seed: int = 0) -> Self:
        """98 videos of 300-900 frames (75-225 s at 4 Hz) where history matters: minutes to learn from."""
        return cls(seed=seed)

    @classmethod
    def standard(cls, seed: int = 0) -> Self:
        """The same at length: 100 videos of 2,000-20,000 frames (3-33 minutes at 10 Hz), about 300 MB."""
        videos = {"train_videos": 60, "valid_videos": 15, "test_videos": 25}
        frames = {"feature_dim": 128, "rate": 10.0, "min_frames": 2_000, "max_frames": 20_000}
        seconds = {"step_seconds": 10.0, "brief_seconds": 4.0, "background_seconds": 4.0, "noise_seconds": 1.0}
        return cls.model_validate({"seed": seed, **videos, **frames, **seconds, "work_steps": 7, "plain_steps": 4})

    @classmethod
    def moment(cls, seed: int = 0) -> Self:
        """40 videos of 300-600 frames where what is in view decides, and what stands around it misleads."""
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
        """Median length of each kind of step."""
        return {
            "work": self.step_seconds,
            "brief": self.brief_seconds,
            "check": self.check_seconds,
            "pause": self.background_seconds,
        }

    @property
    def chances(self) -> Chances:
        """What can go another way in a round."""
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
    """What all videos of one seed have in common."""

    looks: dict[str, Array]
    """Look -> (_PHASES, _FACTORS): the prototypes on the way through a step."""
    paces: dict[str, float]
    """Look -> its length relative to the median; classes that share a look share it too."""
    shown: dict[str, Array]
    """What is shown beside a look -> (_FACTORS,)."""
    tasks: list[Task]
    mixing: Array
    """(_FACTORS + _SCENERY, feature_dim)."""


def all_steps(config: SyntheticConfig) -> list[Step]:
    """Every step of the world, without the background; one with several things to show stands there as often."""
    if config.kind == "moment":
        return procedures.moment_steps(config.plain_steps)
    return procedures.history_steps(config.work_steps, config.plain_steps)


def class_names(config: SyntheticConfig) -> list[str]:
    """Class names in the order of ``mapping.txt``."""
    return [BACKGROUND, *dict.fromkeys(step.name for step in all_steps(config))]


def make_world(config: SyntheticConfig) -> World:
    rng = _generator(config, 0)
    looks = sorted({*PAUSES, *(step.look for step in all_steps(config))})
    phases = config.phase_strength * rng.normal(size=(len(looks), _PHASES, _FACTORS))
    prototypes = rng.normal(size=(len(looks), 1, _FACTORS)) + phases
    paces = rng.lognormal(0.0, 0.2, size=len(looks)).tolist()
    shown = sorted({step.shows for step in all_steps(config) if step.shows is not None})
    return World(
        looks=dict(zip(looks, prototypes, strict=True)),
        paces=dict(zip(looks, paces, strict=True)),
        shown={name: config.shown_strength * rng.normal(size=_FACTORS) for name in shown},
        tasks=[procedures.make_task(number, config.work_steps, rng) for number in range(config.tasks)],
        mixing=rng.normal(size=(_FACTORS + _SCENERY, config.feature_dim)) / np.sqrt(_FACTORS),
    )


def _generator(config: SyntheticConfig, *key: int) -> Generator:
    """Independent random numbers for every key, so that a video never depends on how many came before it."""
    return np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=key))


def make_video(config: SyntheticConfig, index: int, world: World | None = None) -> Video:
    """Video ``index`` of this config and seed; ``world`` saves drawing it anew for each."""
    world = world or make_world(config)
    rng = _generator(config, 1, index)
    length = int(rng.integers(config.min_frames, config.max_frames + 1))
    attempts, counts = _attempts(config, world, length, rng)
    moments = [_moments(config, world, attempt, count, rng) for attempt, count in zip(attempts, counts, strict=True)]
    scene = np.concatenate(moments)[:length] + _disturbance(config, length, rng)  # (T, _FACTORS)
    scenery = config.scenery_strength * _autoregressive(config.scenery_seconds * config.rate, (length, _SCENERY), rng)
    features = np.concatenate([scene, scenery], axis=1) @ world.mixing  # (T, feature_dim)
    features += config.white_strength * rng.normal(size=features.shape)
    labels = [step.name for (step, _), count in zip(attempts, counts, strict=True) for _ in range(count)]
    return features.astype(np.float32), labels[:length]


def _attempts(config: SyntheticConfig, world: World, length: int, rng: Generator) -> tuple[list[Attempt], list[int]]:
    """What is done until ``length`` frames are full, and for how many frames each; the last may reach beyond."""
    attempts, counts = [], []
    pace = float(rng.lognormal(0.0, _PACE_SPREAD))
    for step, reaches in _plan(config, world, rng):
        median = config.seconds[step.length] * world.paces[step.look] * pace * reaches
        attempts.append((step, reaches))
        counts.append(max(1, round(config.rate * median * rng.lognormal(0.0, _DURATION_SPREAD))))
        if sum(counts) >= length:
            break
    return attempts, counts


def _plan(config: SyntheticConfig, world: World, rng: Generator) -> Iterator[Attempt]:
    if config.kind == "moment":
        return procedures.moments(rng.dirichlet([config.habit] * config.plain_steps), config.chances, rng)
    task = world.tasks[rng.integers(len(world.tasks))]
    return procedures.rounds(task, config.plain_steps, config.chances, rng)


def _moments(config: SyntheticConfig, world: World, attempt: Attempt, count: int, rng: Generator) -> Array:
    """(count, _FACTORS): what is done, how far it has got and how it is done, and what is shown."""
    step, reaches = attempt
    # progress through the step, at an uneven speed that differs between executions
    progress = reaches * ((np.arange(count) + 0.5) / count) ** rng.lognormal(0.0, 0.3)
    prototypes = world.looks[step.look] + config.manner_strength * rng.normal(size=_FACTORS)
    knots = np.linspace(0, 1, _PHASES)
    moment = np.stack([np.interp(progress, knots, values) for values in prototypes.T], axis=1)
    return moment if step.shows is None else moment + world.shown[step.shows]


def _disturbance(config: SyntheticConfig, frames: int, rng: Generator) -> Array:
    """(T, _FACTORS): the video's offset and drift, first-order autoregressive noise, and bursts."""
    drift: Array = _DRIFT * np.cumsum(rng.normal(size=(frames, _FACTORS)), axis=0) / np.sqrt(frames)
    offset = _OFFSET * rng.normal(size=_FACTORS)
    noise = config.noise_strength * _autoregressive(config.noise_seconds * config.rate, (frames, _FACTORS), rng)
    for start in rng.integers(frames, size=rng.poisson(_BURSTS_PER_MINUTE * frames / config.rate / 60)):
        length = max(1, round(rng.exponential(_BURST_SECONDS) * config.rate))
        noise[start : start + length] += _BURST * rng.normal(size=_FACTORS)
    return noise + offset + drift


def _autoregressive(frames: float, shape: tuple[int, int], rng: Generator) -> Array:
    """(T, K) of variance 1 that forgets exponentially within so many ``frames``."""
    memory = float(np.exp(-1 / frames))
    noise: Array = rng.normal(size=shape)
    for now in range(1, len(noise)):
        noise[now] = memory * noise[now - 1] + np.sqrt(1 - memory**2) * noise[now]
    return noise


def generate(root: Path, config: SyntheticConfig) -> None:
    """Write the data set into ``root``, which appears only when complete; InputError if something is there."""
    root = root.resolve()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root} exists and is not an empty folder: choose another path or remove it")
    with replacing(root) as temporary:
        temporary.mkdir()
        _write(temporary, config)


def _write(folder: Path, config: SyntheticConfig) -> None:
    for name in ("features", "groundTruth", "splits"):
        (folder / name).mkdir()
    world = make_world(config)
    for split, indices in config.splits.items():
        _write_lines(folder / "splits" / f"{split}.split1.bundle", [f"{video_name(i)}.txt" for i in indices])
        for index in indices:
            features, labels = make_video(config, index, world)
            np.save(folder / "features" / f"{video_name(index)}.npy", np.ascontiguousarray(features.T))
            _write_lines(folder / "groundTruth" / f"{video_name(index)}.txt", labels)
    _write_lines(folder / "mapping.txt", [f"{i} {name}" for i, name in enumerate(class_names(config))])
    about = {"generator": __name__, "version": GENERATOR_VERSION, "seed": config.seed}
    timeline = Timeline(rate=Fraction(str(config.rate))).to_json()
    provenance = {**about, "config": config.model_dump(mode="json")}
    write_json(folder / "store.json", {"time_axis": 1, "timeline": timeline, "provenance": provenance})


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def video_name(index: int) -> str:
    return f"video{index:04d}"
