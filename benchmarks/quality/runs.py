"""The study's training runs: each in a folder of its own, never done twice, and taken up where it was stopped."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml

from keystep.config import RunConfig
from keystep.config.base import build, read_yaml
from keystep.errors import InputError

Thing = TypeVar("Thing")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Job:
    """One variant on one fold with one seed."""

    variant: str
    fold: str
    seed: int
    folder: Path
    layers: tuple[Mapping[str, Any], ...]
    """Settings, later ones on top."""

    @property
    def done(self) -> bool:
        return (self.folder / "model" / "config.json").exists()

    def run(self) -> None:
        """Train, or go on with a run that was stopped.

        Raises:
            InputError: the folder holds a run with other settings; the training failed.
        """
        wanted, asked = build(RunConfig, *self.layers), self.folder.with_suffix(".yaml")
        if (self.folder / "config.yaml").exists():
            if not asked.exists() or build(RunConfig, read_yaml(asked)) != wanted:
                raise InputError(f"{self.folder}: holds a run with other settings; choose another --out")
            if self.done:
                return
            command = ["--resume", str(self.folder)]
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            asked.write_text(yaml.safe_dump(wanted.model_dump(mode="json"), sort_keys=False))
            command = ["--config", str(asked), "--out", str(self.folder)]
        run_keystep("pretrain", *command)


def run_keystep(*command: object) -> None:
    """Run a command on one thread of its own.

    Raises:
        InputError: it failed; the last line that it said.
    """
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    words = [sys.executable, "-m", "keystep", *map(str, command)]
    done = subprocess.run(words, capture_output=True, text=True, env=one_thread)
    if done.returncode:
        raise InputError(f"{' '.join(words[2:])}: {done.stderr.strip().splitlines()[-1]}")


def side_by_side(work: Callable[[Thing], Made], things: Sequence[Thing], at_once: int) -> Iterator[tuple[Thing, Made]]:
    """(thing, what was made of it), so many at a time on one thread each, in the order of the things."""
    torch.set_num_threads(1 if at_once > 1 else torch.get_num_threads())
    with ThreadPoolExecutor(at_once) as pool:
        yield from zip(things, pool.map(work, things), strict=True)
