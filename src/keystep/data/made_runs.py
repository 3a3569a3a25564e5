"""Made-up runs of one procedure with a known partial order: correct ones to train on, and ones with known mistakes.

The folder is that of `keystep.data.synthetic`, with ``mistakes/<video>.csv`` (`keystep.data.mistakes`) for every video
and the true graph in ``procedure.json``. Training and validation videos are correct runs, and so are half of the test
videos. The frames of an unknown step have no label, because it is not one of the classes. Frames are made as in
`keystep.data.synthetic`, and each step has its own look: a step that is done at the wrong moment looks as usual.
"""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.random import Generator
from pydantic import Field

from keystep.config import Config
from keystep.data.annotation import UNLABELLED
from keystep.data.mistakes import KINDS, Mistake, write_mistakes
from keystep.data.partial_orders import (
    UNKNOWN,
    Act,
    Procedure,
    Run,
    correct_run,
    draw_kinds,
    make_procedure,
    mistaken_run,
)
from keystep.data.procedures import BACKGROUND, PAUSES, Attempt, Step
from keystep.data.synthetic import (
    SyntheticConfig,
    World,
    draw_count,
    draw_looks,
    draw_mixing,
    draw_pace,
    generator,
    new_folder,
    render,
    video_name,
    write_about,
    write_bundle,
    write_video,
)
from keystep.files import write_json

VERSION = 1
"""Increases when the same config gives other labels or features; stored with the data."""
_UNKNOWN_LOOKS = [f"unknown_{k}" for k in range(UNKNOWN)]


class RunsConfig(Config):
    """Settings of made-up runs. Equal configs give equal bytes."""

    seed: int = Field(default=0, ge=0)
    """Seed of the procedure, the looks of its steps, and every video."""
    train_videos: int = Field(default=72, ge=1)
    """Correct runs in the training split."""
    valid_videos: int = Field(default=16, ge=1)
    """Correct runs in the validation split."""
    test_videos: int = Field(default=48, ge=2)
    """Runs in the test split; every second one has mistakes."""
    steps: int = Field(default=12, ge=8)
    """Number of steps of the procedure."""
    optional_steps: int = Field(default=2, ge=0, le=2)
    """Number of these that may be left out."""
    repeatable_steps: int = Field(default=2, ge=0, le=2)
    """Number of these that may be done twice."""
    most_mistakes: int = Field(default=3, ge=1, le=len(KINDS))
    """Maximum number of mistakes of a run, each of another kind."""
    step_seconds: float = Field(default=5.0, gt=0)
    """Median duration of a step."""
    pause_probability: float = Field(default=0.4, ge=0, le=1)
    """Probability of a pause (background) after a step."""
    feature_dim: int = Field(default=32, ge=1)
    """Width D of a feature vector."""
    rate: float = Field(default=4.0, gt=0)
    """Feature vectors per second (Hz)."""

    @property
    def splits(self) -> dict[Literal["train", "valid", "test"], range]:
        """Video indices of each split."""
        return self.scene.splits

    @property
    def scene(self) -> SyntheticConfig:
        """Settings of the frames."""
        same = ("seed", "train_videos", "valid_videos", "test_videos", "feature_dim", "rate", "step_seconds")
        return SyntheticConfig.model_validate({name: getattr(self, name) for name in same})


def true_procedure(config: RunsConfig) -> Procedure:
    """The procedure of a seed."""
    return make_procedure(config.steps, config.optional_steps, config.repeatable_steps, generator(config.seed, 2))


def make_run(config: RunsConfig, index: int, procedure: Procedure | None = None) -> Run:
    """What is done in a video, without pauses: a correct run, or one with mistakes (every second test video)."""
    procedure, rng = procedure or true_procedure(config), generator(config.seed, 3, index)
    test = config.splits["test"]
    if index not in test or (index - test.start) % 2 == 0:
        return correct_run(procedure, rng)
    return mistaken_run(procedure, draw_kinds(KINDS, config.most_mistakes, rng), rng)


def make_looks(config: RunsConfig, procedure: Procedure) -> World:
    """Draw the looks of the steps, of pauses and of unknown steps."""
    rng, scene = generator(config.seed, 0), config.scene
    looks, paces = draw_looks(scene, [*PAUSES, *sorted(procedure.steps), *_UNKNOWN_LOOKS], rng)
    return World(looks, paces, shown={}, tasks=[], mixing=draw_mixing(scene, rng))


def make_run_video(
    config: RunsConfig, index: int, procedure: Procedure, world: World
) -> tuple[np.ndarray, list[str], list[Mistake]]:
    """Features (T, feature_dim) float32, T labels (class names, or `UNLABELLED`), and the mistakes of a video."""
    rng, scene = generator(config.seed, 1, index), config.scene
    acts = list(_with_pauses(make_run(config, index, procedure), config.pause_probability, rng))
    attempts = [_attempt(act, rng) for act in acts]
    pace = draw_pace(rng)
    counts = [draw_count(scene, world, attempt, pace, rng) for attempt in attempts]
    features = render(scene, world, attempts, counts, sum(counts), rng)
    labels = [attempt[0].name for attempt, count in zip(attempts, counts, strict=True) for _ in range(count)]
    stops = list(accumulate(counts))
    mistakes = [
        found
        for act, count, stop in zip(acts, counts, stops, strict=True)
        for found in _mistakes_of(act, stop - count, stop)
    ]
    return features, labels, mistakes


def generate_runs(root: Path, config: RunsConfig) -> None:
    """Write the data set to ``root`` atomically.

    Args:
        root: a new or empty folder.
        config: settings.

    Raises:
        InputError: ``root`` exists and is not an empty folder.
    """
    procedure = true_procedure(config)
    world = make_looks(config, procedure)
    with new_folder(root) as folder:
        for split, indices in config.splits.items():
            write_bundle(folder, split, indices)
            for index in indices:
                features, labels, mistakes = make_run_video(config, index, procedure, world)
                write_video(folder, index, features, labels)
                write_mistakes(folder, video_name(index), mistakes)
        about = {"generator": __name__, "version": VERSION, "seed": config.seed}
        classes = [BACKGROUND, *sorted(procedure.steps, key=_number)]
        write_about(folder, classes, config.rate, {**about, "config": config.model_dump(mode="json")})
        write_json(folder / "procedure.json", _as_json(procedure))


def _as_json(procedure: Procedure) -> dict[str, Any]:
    return {
        "steps": list(procedure.steps),
        "precedence": sorted(map(list, procedure.precedence)),
        "optional": sorted(procedure.optional),
        "repeatable": sorted(procedure.repeatable),
    }


def _number(step: str) -> int:
    return int(step.rpartition("_")[2])


def _with_pauses(run: Run, probability: float, rng: Generator) -> list[Act]:
    """The acts of a run, with pauses: acts whose step is the background."""
    acts = [Act(BACKGROUND)]
    for act in run:
        acts.append(act)
        if rng.random() < probability or act.share < 1:
            acts.append(Act(BACKGROUND))
    return acts


def _attempt(act: Act, rng: Generator) -> Attempt:
    if act.step == BACKGROUND:
        return Step(BACKGROUND, PAUSES[int(rng.integers(len(PAUSES)))], "pause"), 1.0
    if not act.step:
        return Step(UNLABELLED, _UNKNOWN_LOOKS[int(rng.integers(UNKNOWN))], "work"), 1.0
    return Step(act.step, act.step, "work"), act.share


def _mistakes_of(act: Act, start: int, stop: int) -> list[Mistake]:
    found = [] if act.mistake is None else [Mistake(start, stop, act.mistake, act.step)]
    return found + ([Mistake(start, start, "omitted", act.omitted)] if act.omitted else [])
