"""Synthetic procedural videos in the MS-TCN layout, which position and smoothing alone cannot solve.

A *world*, drawn once from the seed, holds the looks of the steps; a *video* is one noisy run through one task.
A task is a partial order: several chains of steps, each in its own order, interleaved at random.

- An appliance is opened, used and closed, a few times over. ``open_k`` and ``close_k`` share one look, so their
  frames say only that the appliance is being handled; the label depends on the state it was in.
- A choice is made and matters later: ``take_ka`` and ``take_kb`` look different, ``mix_ka`` and ``mix_kb`` look the
  same (and so do ``rest_ka`` and ``rest_kb``), and ``serve_k`` shows the object again that was taken.
- Plain steps have one look and one label each.

Frames are linear in hidden factors: what is done and how far it has got, the object, the appliances that stand
open, the manner of this execution, the video's appearance and its drift, correlated noise and bursts. The label is
never one of them.
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

from keystep.data.timeline import Timeline
from keystep.errors import InputError
from keystep.files import replacing, write_json

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
_DURATION_SPREAD = 0.4  # standard deviation of the log length of a step around its median
_PACE_SPREAD = 0.3  # the same for the pace of a video, which all of its steps share
_BURSTS_PER_MINUTE, _BURST_SECONDS = 2.0, 2.0  # how often and how long the view is disturbed
# sizes, where the looks of steps differ by 1
_PHASE = 0.7  # what changes within one execution of a step
_MANNER = 0.4  # what differs between two executions of a step
_OBJECT = 1.0  # the taken object in the frames that show it
_OFFSET = 0.7  # a video's own appearance
_DRIFT = 0.5  # how far that appearance moves from one end of the video to the other
_BURST = 2.0  # an occlusion or a camera movement


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
    tasks: int = Field(default=3, ge=1)
    """Tasks; a video shows one of them."""
    appliances: int = Field(default=2, ge=1)
    """Things that are opened, used and closed; a task leaves one out if there are more than two."""
    choices: int = Field(default=1, ge=1)
    """Decisions between two objects, on which later steps depend; of three or more, a task leaves one out."""
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
    state_strength: float = Field(default=0.5, ge=0)
    """Size of the trace of an open appliance, in all frames but those of its own opening and closing."""
    noise_strength: float = Field(default=1.5, ge=0)
    """Size of the temporally correlated noise."""
    noise_seconds: float = Field(default=0.4, gt=0)
    """Correlation time of that noise."""
    white_strength: float = Field(default=1.0, ge=0)
    """Size of the noise that is new in every frame and dimension."""

    @model_validator(mode="after")
    def _lengths_make_an_interval(self) -> Self:
        if self.min_frames > self.max_frames:
            raise ValueError(f"min_frames {self.min_frames} exceeds max_frames {self.max_frames}: swap them")
        return self

    @classmethod
    def demo(cls, seed: int = 0) -> Self:
        """66 videos of 300-900 frames (1-4 minutes at 4 Hz): seconds to generate, minutes to learn from."""
        return cls(seed=seed)

    @classmethod
    def standard(cls, seed: int = 0) -> Self:
        """100 videos of 2,000-20,000 frames (3-33 minutes at 10 Hz), about 300 MB."""
        videos = {"train_videos": 60, "valid_videos": 15, "test_videos": 25}
        frames = {"feature_dim": 128, "rate": 10.0, "min_frames": 2_000, "max_frames": 20_000}
        seconds = {"step_seconds": 20.0, "background_seconds": 8.0, "noise_seconds": 1.0}
        steps = {"appliances": 3, "choices": 2, "plain_steps": 6}
        return cls.model_validate({"seed": seed, **videos, **frames, **seconds, **steps})

    @property
    def splits(self) -> dict[Literal["train", "valid", "test"], range]:
        """Video indices of each split."""
        ends = np.cumsum([self.train_videos, self.valid_videos, self.test_videos]).tolist()
        return {"train": range(ends[0]), "valid": range(*ends[:2]), "test": range(*ends[1:])}


@dataclass(frozen=True)
class Step:
    """One class. Classes that share a ``look`` cannot be told apart by their frames."""

    name: str
    look: str
    shows: str | None = None
    """Object in view."""
    turns: tuple[int, bool] | None = None
    """Appliance that is handled (its trace is gone meanwhile), and whether it is open afterwards."""
    essential: bool = False
    """Later labels depend on it, so it is never left out, repeated or broken off."""


Task = tuple[list[int], list[int], list[list[int]]]
"""Its appliances, its choices, and its chains of plain steps, each chain in a fixed order."""
Unit = list[Step]
"""Steps that belong together and follow in this order: one use of an appliance, one round of a choice."""
Video = tuple[NDArray[np.float32], list[str]]
"""Features (T, feature_dim) and T class names."""
Attempt = tuple[Step, float]
"""One execution of a step, and how far along it gets: 1, or less when it is broken off."""


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
    tasks: list[Task]
    mixing: Array
    """(_FACTORS, feature_dim)."""


def appliance_unit(k: int) -> Unit:
    look = f"toggle_{k}"
    return [
        Step(f"open_{k}", look, turns=(k, True), essential=True),
        Step(f"use_{k}", f"use_{k}"),
        Step(f"close_{k}", look, turns=(k, False), essential=True),
    ]


def choice_unit(k: int, option: str) -> Unit:
    """The first step tells the option by its look, the middle two hide it, the last shows it under one label."""
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
    pauses = [f"{BACKGROUND}_{k}" for k in range(_BACKGROUND_LOOKS)]
    looks = sorted({*pauses, *(step.look for step in all_steps(config))})
    phases = _PHASE * rng.normal(size=(len(looks), _PHASES, _FACTORS))
    prototypes = rng.normal(size=(len(looks), 1, _FACTORS)) + phases
    seconds = [config.background_seconds if look in pauses else config.step_seconds for look in looks]
    medians = (np.array(seconds) * rng.lognormal(0.0, 0.2, size=len(looks))).tolist()
    objects = [f"{k}{option}" for k in range(config.choices) for option in OPTIONS]
    return World(
        looks=dict(zip(looks, prototypes, strict=True)),
        medians=dict(zip(looks, medians, strict=True)),
        objects={name: _OBJECT * rng.normal(size=_FACTORS) for name in objects},
        states=config.state_strength * rng.normal(size=(config.appliances, _FACTORS)),
        tasks=[_make_task(config, number, rng) for number in range(config.tasks)],
        mixing=rng.normal(size=(_FACTORS, config.feature_dim)) / np.sqrt(_FACTORS),
    )


def _make_task(config: SyntheticConfig, number: int, rng: Generator) -> Task:
    """Tasks take turns in what they leave out, so that two tasks or more show every step of the world."""
    count = max(2, config.plain_steps * 2 // 3)
    plain = rng.permutation([(number * count + k) % config.plain_steps for k in range(count)]).tolist()
    sizes = (config.appliances, config.choices)
    appliances, choices = ([k for k in range(of) if of <= 2 or k != number % of] for of in sizes)
    return appliances, choices, [plain[start : start + 2] for start in range(0, count, 2)]


def _generator(config: SyntheticConfig, *key: int) -> Generator:
    """Independent random numbers for every key, so that a video never depends on how many came before it."""
    return np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=key))


def plan(config: SyntheticConfig, task: Task, rng: Generator) -> list[Attempt]:
    """The executions of one video in order, pauses not included."""
    appliances, choices, plain = task
    chains = [[[plain_step(k)] for k in chain] for chain in plain]
    chains += [_appliance_rounds(config, k, rng) for k in appliances]
    for k in choices:
        chains.append([_choice_round(config, k, rng) for _ in range(rng.integers(1, config.max_cycles + 1))])
    placed = [entry for chain in chains for entry in _place(chain, rng)]
    steps = [step for _, step in sorted(placed, key=lambda entry: entry[0])]
    return [attempt for step in steps for attempt in _execute(config, step, rng)]


def _appliance_rounds(config: SyntheticConfig, k: int, rng: Generator) -> list[Unit]:
    """Every other video finds the appliance open, or leaves it so: being early or late does not tell the state."""
    units = [appliance_unit(k) for _ in range(rng.integers(1, config.max_cycles + 1))]
    found_open, left_open = rng.random(2) < 0.5
    units[0] = units[0][1:] if found_open else units[0]
    units[-1] = units[-1][:-1] if left_open and len(units) > 1 else units[-1]
    return units


def _choice_round(config: SyntheticConfig, k: int, rng: Generator) -> Unit:
    option, other = rng.permutation(list(OPTIONS)).tolist()
    wrong = choice_unit(k, other)[:1] if rng.random() < config.mistake_probability else []
    return wrong + choice_unit(k, option)


def _place(chain: list[Unit], rng: Generator) -> list[tuple[float, Step]]:
    """Times in 0-1 for the steps of a chain, in order; units keep together, their position is free."""
    steps = [(step, 1.0 if first == 0 else _WITHIN_UNIT) for unit in chain for first, step in enumerate(unit)]
    gaps = rng.exponential([*(mean for _, mean in steps), 1.0])
    times = (np.cumsum(gaps)[:-1] / gaps.sum()).tolist()
    return list(zip(times, (step for step, _ in steps), strict=True))


def _execute(config: SyntheticConfig, step: Step, rng: Generator) -> list[Attempt]:
    """None, one or more attempts; a step on which later labels depend is done exactly once."""
    chances = (config.skip_probability, config.repeat_probability, config.mistake_probability)
    skipped, repeated, broken_off = rng.random(3) < chances
    if step.essential:
        return [(step, 1.0)]
    if skipped:
        return []
    return [(step, _ABORTED_AT)] * int(broken_off) + [(step, 1.0)] * (2 if repeated else 1)


def make_video(config: SyntheticConfig, index: int, world: World | None = None) -> Video:
    """Video ``index`` of this config and seed; ``world`` saves drawing it anew for each."""
    world = world or make_world(config)
    rng = _generator(config, 1, index)
    attempts = plan(config, world.tasks[rng.integers(len(world.tasks))], rng)
    attempts = _with_pauses(config, attempts, rng)
    frames = _frame_counts(config, world, attempts, rng)
    scene = np.concatenate(list(_scene(world, attempts, frames, rng)))  # (T, _FACTORS)
    scene += _disturbance(config, len(scene), rng)
    features = scene @ world.mixing  # (T, feature_dim)
    features += config.white_strength * rng.normal(size=features.shape)
    labels = [step.name for (step, _), count in zip(attempts, frames, strict=True) for _ in range(count)]
    return features.astype(np.float32), labels


def _with_pauses(config: SyntheticConfig, attempts: list[Attempt], rng: Generator) -> list[Attempt]:
    """Background at both ends, after a broken-off attempt, and at random between steps."""
    looks = rng.integers(_BACKGROUND_LOOKS, size=len(attempts) + 1)
    pauses = [(Step(BACKGROUND, f"{BACKGROUND}_{look}"), 1.0) for look in looks]
    result = [pauses[0]]
    for attempt, pause in zip(attempts, pauses[1:], strict=True):
        paused = attempt[1] < 1 or rng.random() < config.background_probability
        result += [attempt, pause] if paused else [attempt]
    return result if result[-1] is pauses[-1] else [*result, pauses[-1]]


def _frame_counts(config: SyntheticConfig, world: World, attempts: list[Attempt], rng: Generator) -> list[int]:
    """Log-normal lengths at the video's pace, all stretched alike if the total leaves the allowed range."""
    medians = np.array([world.medians[step.look] * reaches for step, reaches in attempts])
    pace = float(rng.lognormal(0.0, _PACE_SPREAD))
    ends = np.cumsum(medians * pace * rng.lognormal(0.0, _DURATION_SPREAD, size=len(medians)))
    total = int(np.clip(round(ends[-1] * config.rate), config.min_frames, config.max_frames))
    return [int(count) for count in np.diff(np.round(ends / ends[-1] * total), prepend=0)]


def _scene(world: World, attempts: list[Attempt], frames: list[int], rng: Generator) -> Iterator[Array]:
    """For each attempt (frames, _FACTORS): what is done and how, the object, and the traces of what stands open."""
    is_open = np.zeros(len(world.states))
    for step, _ in reversed(attempts):  # what is closed before it is ever opened stood open from the start
        if step.turns is not None:
            is_open[step.turns[0]] = not step.turns[1]
    for (step, reaches), count in zip(attempts, frames, strict=True):
        if step.turns is not None:
            is_open[step.turns[0]] = False
        # progress through the step, at an uneven speed that differs between executions
        progress = reaches * ((np.arange(count) + 0.5) / count) ** rng.lognormal(0.0, 0.3)
        prototypes = world.looks[step.look] + _MANNER * rng.normal(size=_FACTORS)
        knots = np.linspace(0, 1, _PHASES)
        moment = np.stack([np.interp(progress, knots, values) for values in prototypes.T], axis=1)
        if step.shows is not None:
            moment += world.objects[step.shows]
        yield moment + is_open @ world.states
        if step.turns is not None:
            is_open[step.turns[0]] = step.turns[1]


def _disturbance(config: SyntheticConfig, frames: int, rng: Generator) -> Array:
    """(T, _FACTORS): the video's offset and drift, first-order autoregressive noise, and bursts."""
    drift: Array = _DRIFT * np.cumsum(rng.normal(size=(frames, _FACTORS)), axis=0) / np.sqrt(frames)
    offset = _OFFSET * rng.normal(size=_FACTORS)
    memory = float(np.exp(-1 / (config.noise_seconds * config.rate)))
    noise = config.noise_strength * rng.normal(size=(frames, _FACTORS))
    for now in range(1, frames):
        noise[now] = memory * noise[now - 1] + np.sqrt(1 - memory**2) * noise[now]
    for start in rng.integers(frames, size=rng.poisson(_BURSTS_PER_MINUTE * frames / config.rate / 60)):
        length = max(1, round(rng.exponential(_BURST_SECONDS) * config.rate))
        noise[start : start + length] += _BURST * rng.normal(size=_FACTORS)
    return noise + offset + drift


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
