"""The study's record: one JSON for each finished piece, and what tells whether it still stands for what is asked.

A piece is named ``<row>-fold<fold>[-seed<seed>][-<part>].json``. It holds right frames for each test video and
nothing of the weights, so tables need no more than these files, on any machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keystep
from keystep.errors import InputError
from keystep.files import replacing

FORMAT, VERSION = "keystep-study", 1
MAIN = "main"
CONTROLS = "controls"
"""Row name of what needs no training."""
UNTRAINED = "untrained"
"""End of the row name of fresh weights."""
TRAINING_CODE = (
    *("nn", "train", "config", "data/crops.py", "data/time_scale.py", "data/statistics.py"),
    *("target.py", "objectives.py", "masking.py", "pjepa.py"),
)
"""What decides which weights a training ends with."""
WATCHING = ("log_every", "monitor_every", "stop_early", "save_every", "keep", "workers", "tensorboard")
"""Settings of a training that leave its weights as they are; of a run that was stopped early its piece says so."""
JUDGING_CODE = ("evals", "heads", "metrics.py", "encoding.py")
Piece = Mapping[str, Any]


@dataclass(frozen=True)
class Name:
    """Which piece of the study: a row on a fold, with a seed where it has one, and what was asked of it."""

    row: str
    fold: str
    seed: int | None = None
    part: str = MAIN

    def __str__(self) -> str:
        return f"{self.row}-fold{self.fold}" + ("" if self.seed is None else f"-seed{self.seed}")

    @property
    def file(self) -> str:
        return f"{self}{'' if self.part == MAIN else f'-{self.part}'}.json"


def label_part(share: float, draw: int) -> str:
    """The part of a piece that is judged with labels for a share of the videos."""
    return f"labels{100 * share:g}-draw{draw}"


def code_hash(parts: Iterable[str]) -> str:
    """SHA-256 over source files of the package, given as files and folders within it; what is not there is left out."""
    root, digest = Path(keystep.__file__).parent, hashlib.sha256()
    for part in sorted(parts):
        path = root / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path] if path.exists() else []:
            digest.update(f"{file.relative_to(root).as_posix()}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def settings_hash(settings: Mapping[str, Any]) -> str:
    """SHA-256 over a run's settings, those left out that only watch it."""
    return hashlib.sha256(json.dumps(deciding(settings), sort_keys=True).encode()).hexdigest()[:16]


def deciding(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A run's settings without those of `WATCHING`."""
    train = {name: value for name, value in settings["train"].items() if name not in WATCHING}
    return {**settings, "train": train}


def write_piece(folder: Path, name: Name, content: Mapping[str, Any]) -> None:
    """Write a finished piece, a line for each row, which reads well in a diff."""
    which = {"format": FORMAT, "version": VERSION, "row": name.row, "fold": name.fold, "seed": name.seed}
    items = {**which, "part": name.part, **content}
    rows = ",\n".join(json.dumps(row) for row in items.pop("rows"))
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in items.items()]
    with replacing(folder / name.file) as temporary:
        temporary.write_text("{\n" + ",\n".join([*lines, f'"rows": [\n{rows}\n]']) + "\n}\n", encoding="utf-8")


def read_piece(path: Path) -> Piece:
    """One piece.

    Raises:
        InputError: no JSON of this format.
    """
    try:
        piece = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: unreadable ({error}); remove it to have it made again") from error
    if not isinstance(piece, dict) or (piece.get("format"), piece.get("version")) != (FORMAT, VERSION):
        raise InputError(f"{path}: no {FORMAT} file of version {VERSION}; remove it, or give another --results")
    return piece


def read_pieces(folder: Path) -> list[Piece]:
    """All pieces of a folder, by name.

    Raises:
        InputError: none there, or one that cannot be read.
    """
    pieces = [read_piece(path) for path in sorted(folder.glob("*.json"))]
    if not pieces:
        raise InputError(f"{folder}: no finished piece of a study")
    return pieces
