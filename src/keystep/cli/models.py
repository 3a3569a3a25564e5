"""Finding models: a run, one of its checkpoints, a model folder, or a hub id."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from keystep.config import RunConfig
from keystep.errors import InputError
from keystep.persistence import CONFIG
from keystep.pjepa import PJEPA
from keystep.train.run import run_config
from keystep.train.state import Checkpoints


@dataclass(frozen=True)
class FoundModel:
    """A loaded model, and the run that made it where that is known."""

    model: PJEPA
    source: str
    run: Path | None = None
    config: RunConfig | None = None


def find_model(text: str) -> FoundModel:
    """Load a model; of an unfinished run, the newest checkpoint."""
    path = Path(text)
    if (path / "config.yaml").exists():
        config = run_config(path)
        checkpoints = Checkpoints(path / "checkpoints", config.train.keep)
        if (path / "model" / CONFIG).exists():
            folder = path / "model"
        elif checkpoints.steps():
            folder = checkpoints.path(checkpoints.steps()[-1])
        else:
            raise InputError(f"{path}: this run has no model and no checkpoint yet")
        return FoundModel(PJEPA.from_pretrained(folder), str(folder), path, config)
    return FoundModel(PJEPA.from_pretrained(text), text)
