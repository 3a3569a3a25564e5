"""Synthetic procedural videos, written in the MS-TCN layout, that position and smoothing alone cannot solve.

A *world* (drawn once from the seed) holds the looks of the steps; a *video* is one noisy run through one task of it.
A task is a partial order: several chains of steps, each in its own order, interleaved at random.

- An appliance is opened, used and closed, a few times over. ``open_k`` and ``close_k`` share one look, so a frame
  of either says only that the appliance is being handled; the label depends on its state before.
- A choice is made once and matters later: ``take_ka`` and ``take_kb`` look different, ``mix_ka`` and ``mix_kb``
  look the same, and ``serve_k`` shows again the object that was taken.
- Plain steps have one look and one label each.

Frames are linear in hidden factors (what is done, how far along it is, which object, which appliance stands open,
this execution's manner, the video's appearance and its drift, correlated noise, bursts), so nothing about the
labels is written into them that a camera would not see.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from keystep.errors import InputError

GENERATOR_VERSION = 1
"""Goes up whenever the same config gives other labels or features; it is stored with the data."""

BACKGROUND = "background"
OPTIONS = "ab"
Array = NDArray[np.float64]

_FACTORS = 24  # hidden dimensions in which everything is drawn before it is mixed into feature_dim
_PHASES = 4  # prototypes that an execution passes on its way from start to end
_BACKGROUND_LOOKS = 4  # ways to do nothing in particular
_WITHIN_UNIT = 0.5  # mean gap between the steps of a unit, relative to that between units
_ABORTED_AT = 0.4  # how far along a mistaken attempt gets


class SyntheticConfig(BaseModel):
    """What to generate. ``demo`` and ``standard`` are the presets; equal configs give equal bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    seed: int = Field(default=0, ge=0)
    """Fixes the world and every video in it."""
    train_videos: int = Field(default=40, ge=1)
    """Videos in the training split."""
    valid_videos: int = Field(default=10, ge=1)
    """Videos in the validation split."""
    test_videos: int = Field(default=16, ge=1)
    """Videos in the test split."""
    feature_dim: int = Field(default=64, ge=1)
    """Width D of a feature vector."""
    rate: float = Field(default=4.0, gt=0)
    """Feature vectors a second (Hz)."""
    min_frames: int = Field(default=300, ge=200)
    """Shorter videos are slowed down to this many frames."""
    max_frames: int = Field(default=900, ge=200)
    """Longer videos are sped up to this many frames."""
    step_seconds: float = Field(default=4.0, gt=0)
    """Median length of a step."""
    background_seconds: float = Field(default=2.0, gt=0)
    """Median length of a pause between steps."""
    background_probability: float = Field(default=0.35, ge=0, le=1)
    """How often a step is followed by such a pause."""
    duration_spread: float = Field(default=0.4, ge=0, le=2)
    """Standard deviation of the log length of a step around its median."""
    pace_spread: float = Field(default=0.3, ge=0, le=2)
    """Standard deviation of the log pace of a video, which all of its steps share."""
    tasks: int = Field(default=3, ge=1)
    """Tasks; a video shows one of them."""
    appliances: int = Field(default=2, ge=1)
    """Things that are opened, used and closed; a task leaves one out when there are more than two."""
    choices: int = Field(default=1, ge=1)
    """Decisions between two objects that later steps depend on; a task leaves one out when there are more than two."""
    plain_steps: int = Field(default=4, ge=2)
    """Steps with a look of their own; a task has two thirds of them."""
    max_cycles: int = Field(default=4, ge=1)
    """An appliance is used, and a choice made, between once and this many times in a video."""
    skip_probability: float = Field(default=0.1, ge=0, lt=1)
    """How often a step is left out; the state that labels depend on always stays consistent."""
    repeat_probability: float = Field(default=0.1, ge=0, lt=1)
    """How often a step is done twice."""
    mistake_probability: float = Field(default=0.1, ge=0, lt=1)
    """How often a step is broken off and begun anew, or the wrong object taken first."""
    object_strength: float = Field(default=1.0, ge=0)
    """Size of the taken object in the frames that show it, where the looks of steps have size 1."""
    state_strength: float = Field(default=0.5, ge=0)
    """Size of the trace that an open appliance leaves in all frames except those of its own opening and closing."""
    phase_strength: float = Field(default=0.7, ge=0)
    """Size of the changes within one execution of a step."""
    manner_strength: float = Field(default=0.4, ge=0)
    """Size of what differs between two executions of a step."""
    offset_strength: float = Field(default=0.7, ge=0)
    """Size of a video's own appearance."""
    drift_strength: float = Field(default=0.5, ge=0)
    """Size of the change of that appearance between a video's two ends."""
    noise_strength: float = Field(default=1.5, ge=0)
    """Size of the temporally correlated noise."""
    noise_seconds: float = Field(default=0.4, gt=0)
    """Correlation time of that noise."""
    white_strength: float = Field(default=1.0, ge=0)
    """Size of the noise that is new in every frame and dimension."""
    bursts_per_minute: float = Field(default=2.0, ge=0)
    """How often an occlusion or a camera movement covers what is seen."""
    burst_seconds: float = Field(default=2.0, gt=0)
    """Mean length of a burst."""
    burst_strength: float = Field(default=2.0, ge=0)
    """Size of a burst."""

    @model_validator(mode="after")
    def _lengths_make_an_interval(self) -> Self:
        if self.min_frames > self.max_frames:
            raise ValueError(
                f"min_frames is {self.min_frames} and max_frames {self.max_frames}: raise one, lower the other"
            )
        return self

    @classmethod
    def demo(cls, seed: int = 0) -> Self:
        """66 videos of 300-900 frames (1-4 minutes at 4 Hz): seconds to generate, minutes to learn from."""
        return cls(seed=seed)

    @classmethod
    def standard(cls, seed: int = 0) -> Self:
        """100 videos of 2,000-20,000 frames (3-33 minutes at 10 Hz), about 300 MB."""
        return cls(
            seed=seed,
            train_videos=60,
            valid_videos=15,
            test_videos=25,
            feature_dim=128,
            rate=10.0,
            min_frames=2_000,
            max_frames=20_000,
            step_seconds=20.0,
            background_seconds=8.0,
            appliances=3,
            choices=2,
            plain_steps=6,
            noise_seconds=1.0,
            burst_seconds=4.0,
        )

    @property
    def splits(self) -> dict[Literal["train", "valid", "test"], range]:
        """Video indices of each split."""
        valid, test = self.train_videos, self.train_videos + self.valid_videos
        return {
            "train": range(valid),
            "valid": range(valid, test),
            "test": range(test, test + self.test_videos),
        }


@dataclass(frozen=True)
class Step:
    """One class. Classes that share a ``look`` cannot be told apart by their frames."""

    name: str
    look: str
    shows: str | None = None
    """Object in view."""
    opens: int | None = None
    """Appliance that stands open from the end of this step on."""
    closes: int | None = None
    """Appliance that is closed from the start of this step on."""

    essential: bool = False
    """Later labels depend on it, so it is never left out, repeated or broken off."""


Unit = list[Step]
"""Steps that belong together and follow in this order: one use of an appliance, one round of a choice."""


@dataclass(frozen=True)
class World:
    """What all videos of one seed have in common."""

    looks: dict[str, Array]
    """Look -> (_PHASES, _FACTORS): the prototypes on the way through a step."""
    medians: dict[str, float]
    """Look -> median length in seconds; classes that share a look share it too."""
    objects: dict[str, Array]
    """Object -> (_FACTORS,)."""
    states: Array
    """(appliances, _FACTORS): the trace of each appliance while it is open."""
    tasks: list["Task"]
    mixing: Array
    """(_FACTORS, feature_dim)."""


@dataclass(frozen=True)
class Task:
    appliances: list[int]
    choices: list[int]
    plain: list[list[int]]
    """Chains of plain steps; within a chain the order is fixed."""


@dataclass(frozen=True)
class Video:
    features: NDArray[np.float32]
    """(T, feature_dim)."""
    labels: list[str]
    """T class names."""


@dataclass(frozen=True)
class Attempt:
    """One execution of a step, before it has a length."""

    step: Step
    reaches: float = 1.0
    """How far along the step it gets before it is broken off."""


def appliance_unit(k: int) -> Unit:
    look = f"toggle_{k}"
    return [
        Step(f"open_{k}", look, opens=k, essential=True),
        Step(f"use_{k}", f"use_{k}"),
        Step(f"close_{k}", look, closes=k, essential=True),
    ]


def choice_unit(k: int, option: str) -> Unit:
    """Only the first step tells the option by its label's look; the last shows the object under one label."""
    own = f"{k}{option}"
    return [
        Step(f"take_{own}", f"take_{own}", essential=True),
        Step(f"mix_{own}", f"mix_{k}"),
        Step(f"rest_{own}", f"rest_{k}"),
        Step(f"serve_{k}", f"serve_{k}", shows=own),
    ]


def plain_step(k: int) -> Step:
    return Step(f"plain_{k}", f"plain_{k}")


def all_steps(config: SyntheticConfig) -> list[Step]:
    """Every step of the world once by name, without the background."""
    units = [appliance_unit(k) for k in range(config.appliances)]
    units += [choice_unit(k, option) for k in range(config.choices) for option in OPTIONS]
    units += [[plain_step(k)] for k in range(config.plain_steps)]
    return list({step.name: step for unit in units for step in unit}.values())


def class_names(config: SyntheticConfig) -> list[str]:
    """Class names in the order of ``mapping.txt``."""
    return [BACKGROUND, *(step.name for step in all_steps(config))]


def make_world(config: SyntheticConfig) -> World:
    rng = _generator(config, 0)
    looks = {step.look for step in all_steps(config)} | {f"{BACKGROUND}_{k}" for k in range(_BACKGROUND_LOOKS)}
    phases = config.phase_strength * rng.normal(size=(len(looks), _PHASES, _FACTORS))
    prototypes = rng.normal(size=(len(looks), 1, _FACTORS)) + phases
    typical = [
        (config.background_seconds if look.startswith(BACKGROUND) else config.step_seconds)
        * float(rng.lognormal(0.0, 0.2))
        for look in sorted(looks)
    ]
    objects = [f"{k}{option}" for k in range(config.choices) for option in OPTIONS]
    return World(
        looks=dict(zip(sorted(looks), prototypes, strict=True)),
        medians=dict(zip(sorted(looks), typical, strict=True)),
        objects={name: config.object_strength * rng.normal(size=_FACTORS) for name in objects},
        states=config.state_strength * rng.normal(size=(config.appliances, _FACTORS)),
        tasks=[_make_task(config, rng) for _ in range(config.tasks)],
        mixing=rng.normal(size=(_FACTORS, config.feature_dim)) / np.sqrt(_FACTORS),
    )


def _make_task(config: SyntheticConfig, rng: np.random.Generator) -> Task:
    def some(count: int, of: int) -> list[int]:
        return [int(k) for k in rng.permutation(of)[:count]]

    plain = some(max(2, config.plain_steps * 2 // 3), config.plain_steps)
    return Task(
        appliances=some(config.appliances - (config.appliances > 2), config.appliances),
        choices=some(config.choices - (config.choices > 2), config.choices),
        plain=[plain[start : start + 2] for start in range(0, len(plain), 2)],
    )


def _generator(config: SyntheticConfig, *key: int) -> np.random.Generator:
    """Independent random numbers for every key, so that a video never depends on how many came before it."""
    return np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=key))


def plan(config: SyntheticConfig, task: Task, rng: np.random.Generator) -> list[Attempt]:
    """The executions of one video in order, pauses not included."""
    chains: list[list[Unit]] = [[[plain_step(k)] for k in chain] for chain in task.plain]
    for k in task.appliances:
        chains.append(_appliance_rounds(config, k, rng))
    for k in task.choices:
        chains.append([_choice_round(config, k, rng) for _ in range(rng.integers(1, config.max_cycles + 1))])
    placed = [entry for chain in chains for entry in _place(chain, rng)]
    steps = [step for _, step in sorted(placed, key=lambda entry: entry[0])]
    return [attempt for step in steps for attempt in _execute(config, step, rng)]


def _appliance_rounds(config: SyntheticConfig, k: int, rng: np.random.Generator) -> list[Unit]:
    """Every other video finds the appliance open, or leaves it so: being early or late does not tell the state."""
    units = [appliance_unit(k) for _ in range(rng.integers(1, config.max_cycles + 1))]
    found_open, left_open = rng.random(2) < 0.5
    if found_open:
        units[0] = units[0][1:]
    if left_open and len(units) > 1:
        units[-1] = units[-1][:-1]
    return units


def _choice_round(config: SyntheticConfig, k: int, rng: np.random.Generator) -> Unit:
    option, other = rng.permutation(list(OPTIONS)).tolist()
    unit = choice_unit(k, option)
    wrong = choice_unit(k, other)[:1] if rng.random() < config.mistake_probability else []
    return wrong + unit


def _place(chain: list[Unit], rng: np.random.Generator) -> list[tuple[float, Step]]:
    """Times in 0-1 for the steps of a chain, in order; units keep together, their position is free."""
    steps = [(step, 1.0 if first == 0 else _WITHIN_UNIT) for unit in chain for first, step in enumerate(unit)]
    gaps = rng.exponential([*(mean for _, mean in steps), 1.0])
    times = np.cumsum(gaps)[:-1] / gaps.sum()
    return [(float(time), step) for time, (step, _) in zip(times, steps, strict=True)]


def _execute(config: SyntheticConfig, step: Step, rng: np.random.Generator) -> list[Attempt]:
    """None, one or more attempts; a step on which later labels depend is done exactly once."""
    skipped, repeated, broken_off = rng.random(3) < (
        config.skip_probability,
        config.repeat_probability,
        config.mistake_probability,
    )
    if step.essential:
        return [Attempt(step)]
    if skipped:
        return []
    failed = [Attempt(step, reaches=_ABORTED_AT)] if broken_off else []
    return [*failed, Attempt(step), *([Attempt(step)] if repeated else [])]


def make_video(config: SyntheticConfig, index: int, world: World | None = None) -> Video:
    """Video ``index`` of the config's seed; ``world`` saves drawing it anew for every video."""
    world = world or make_world(config)
    rng = _generator(config, 1, index)
    attempts = plan(config, world.tasks[rng.integers(len(world.tasks))], rng)
    attempts = _with_pauses(config, attempts, rng)
    frames = _frame_counts(config, world, attempts, rng)
    scene = np.concatenate(list(_scene(config, world, attempts, frames, rng)))  # (T, _FACTORS)
    scene += _appearance(config, len(scene), rng) + _disturbance(config, len(scene), rng)
    features = scene @ world.mixing  # (T, feature_dim)
    features += config.white_strength * rng.normal(size=features.shape)
    labels = [attempt.step.name for attempt, count in zip(attempts, frames, strict=True) for _ in range(count)]
    return Video(features.astype(np.float32), labels)


def _with_pauses(config: SyntheticConfig, attempts: list[Attempt], rng: np.random.Generator) -> list[Attempt]:
    """Background at both ends, after a broken-off attempt, and at random between steps."""

    def pause() -> Attempt:
        return Attempt(Step(BACKGROUND, f"{BACKGROUND}_{rng.integers(_BACKGROUND_LOOKS)}"))

    result = [pause()]
    for attempt in attempts:
        result.append(attempt)
        if attempt.reaches < 1 or rng.random() < config.background_probability:
            result.append(pause())
    return result if result[-1].step.name == BACKGROUND else [*result, pause()]


def _frame_counts(
    config: SyntheticConfig, world: World, attempts: list[Attempt], rng: np.random.Generator
) -> list[int]:
    """Log-normal lengths at the video's pace, then all stretched alike if the total leaves the allowed range."""
    medians = np.array([world.medians[attempt.step.look] * attempt.reaches for attempt in attempts])
    pace = float(rng.lognormal(0.0, config.pace_spread))
    ends = np.cumsum(medians * pace * rng.lognormal(0.0, config.duration_spread, size=len(medians)))
    total = int(np.clip(round(ends[-1] * config.rate), config.min_frames, config.max_frames))
    counts: list[int] = np.diff(np.round(ends / ends[-1] * total).astype(int), prepend=0).tolist()
    return counts


def _scene(
    config: SyntheticConfig,
    world: World,
    attempts: list[Attempt],
    frames: list[int],
    rng: np.random.Generator,
) -> Iterator[Array]:
    """For each attempt (frames, _FACTORS): what is done and how, with which object, next to what stands open."""
    is_open = _open_at_start(config, attempts)
    for attempt, count in zip(attempts, frames, strict=True):
        step = attempt.step
        if step.closes is not None:
            is_open[step.closes] = 0
        # progress through the step, at an uneven speed that differs between executions
        progress = attempt.reaches * ((np.arange(count) + 0.5) / count) ** rng.lognormal(0.0, 0.3)
        prototypes = world.looks[step.look] + config.manner_strength * rng.normal(size=_FACTORS)
        knots = np.linspace(0, 1, _PHASES)
        moment = np.stack([np.interp(progress, knots, values) for values in prototypes.T], axis=1)
        if step.shows is not None:
            moment += world.objects[step.shows]
        yield moment + is_open @ world.states
        if step.opens is not None:
            is_open[step.opens] = 1


def _open_at_start(config: SyntheticConfig, attempts: list[Attempt]) -> Array:
    """(appliances,) of 0 and 1: an appliance is open from the start if it is closed before it is ever opened."""
    is_open = np.zeros(config.appliances)
    for step in (attempt.step for attempt in reversed(attempts)):
        if step.closes is not None:
            is_open[step.closes] = 1
        if step.opens is not None:
            is_open[step.opens] = 0
    return is_open


def _appearance(config: SyntheticConfig, frames: int, rng: np.random.Generator) -> Array:
    """(T, _FACTORS): an offset for the whole video and a random walk that drifts away from it."""
    walk = np.cumsum(rng.normal(size=(frames, _FACTORS)), axis=0) / np.sqrt(frames)
    return config.offset_strength * rng.normal(size=_FACTORS) + config.drift_strength * walk


def _disturbance(config: SyntheticConfig, frames: int, rng: np.random.Generator) -> Array:
    """(T, _FACTORS): first-order autoregressive noise, and bursts in which one random direction takes over."""
    memory = float(np.exp(-1 / (config.noise_seconds * config.rate)))
    noise = config.noise_strength * rng.normal(size=(frames, _FACTORS))
    for now in range(1, frames):
        noise[now] = memory * noise[now - 1] + np.sqrt(1 - memory**2) * noise[now]
    for start in rng.integers(frames, size=rng.poisson(config.bursts_per_minute * frames / config.rate / 60)):
        length = max(1, round(rng.exponential(config.burst_seconds) * config.rate))
        noise[start : start + length] += config.burst_strength * rng.normal(size=_FACTORS)
    return noise


def generate(root: Path, config: SyntheticConfig) -> None:
    """Write the data set into ``root``, which appears only when it is complete.

    Raises:
        InputError: ``root`` is a file, or a folder that is not empty.
    """
    root = root.resolve()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root} exists and is not an empty folder: choose another path or remove it")
    root.parent.mkdir(parents=True, exist_ok=True)
    partial = root.with_name(f".{root.name}.partial-{os.getpid()}")
    partial.mkdir()
    try:
        _write(partial, config)
        partial.replace(root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(folder: Path, config: SyntheticConfig) -> None:
    for name in ("features", "groundTruth", "splits"):
        (folder / name).mkdir()
    world = make_world(config)
    for split, indices in config.splits.items():
        _write_lines(folder / "splits" / f"{split}.split1.bundle", [f"{video_name(i)}.txt" for i in indices])
        for index in indices:
            video = make_video(config, index, world)
            np.save(folder / "features" / f"{video_name(index)}.npy", np.ascontiguousarray(video.features.T))
            _write_lines(folder / "groundTruth" / f"{video_name(index)}.txt", video.labels)
    _write_lines(folder / "mapping.txt", [f"{i} {name}" for i, name in enumerate(class_names(config))])
    about = {"generator": __name__, "version": GENERATOR_VERSION, "seed": config.seed, "rate_hz": config.rate}
    text = json.dumps({**about, "config": config.model_dump(mode="json")}, indent=2)
    (folder / "synthetic.json").write_text(text + "\n", encoding="utf-8")


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def video_name(index: int) -> str:
    """File stem of a video."""
    return f"video{index:04d}"
