"""Finding models: a run, one of its checkpoints, a model folder, or a hub id."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from keystep.config import RunConfig
from keystep.data.folder import FeatureFolder
from keystep.errors import InputError
from keystep.files import read_json
from keystep.heads import LinearHead
from keystep.persistence import CONFIG, read_metadata
from keystep.pjepa import PJEPA
from keystep.stream.heads import AnyHead
from keystep.temporal import TemporalHead
from keystep.temporal.building import FORMAT as TEMPORAL
from keystep.temporal.building import load_head
from keystep.train.run import run_config
from keystep.train.state import STATE, Checkpoints


@dataclass(frozen=True)
class FoundModel:
    """A loaded model, and the run that made it where that is known."""

    model: PJEPA
    source: str
    run: Path | None = None
    config: RunConfig | None = None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the weights: which model this is, wherever it lies."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def videos(self) -> tuple[str, ...]:
        """The videos it was trained on; empty where that is not known."""
        videos = self._state.get("videos")
        return tuple(videos) if isinstance(videos, list) else ()

    @property
    def data_fingerprint(self) -> str | None:
        """The fingerprint of the folder that it was trained on, boundaries included, where that is known."""
        fingerprint = self._state.get("fingerprint")
        return fingerprint if isinstance(fingerprint, str) else None

    @cached_property
    def _state(self) -> dict[str, Any]:
        states = sorted(self.run.glob(f"checkpoints/*/{STATE}")) if self.run else []
        return read_json(states[-1]) if states else {}

    @property
    def rate(self) -> str | None:
        """The rate in Hz that it was trained at, where that is known."""
        data = self.config.data if self.config else None
        rate = None if data is None else data.rate or data.source_rate
        return None if rate is None else str(rate)


def find_model(text: str) -> FoundModel:
    """Load a model onto the GPU if there is one; of an unfinished run, the newest checkpoint."""
    path = Path(text)
    run = next(
        (folder for folder in (path, path.parent, path.parent.parent) if (folder / "config.yaml").exists()), None
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if run is None or not path.is_dir():
        return FoundModel(PJEPA.from_pretrained(text).to(device), text)
    config = run_config(run)
    folder = _newest(run, config) if path == run else path
    return FoundModel(PJEPA.from_pretrained(folder).to(device), str(folder), run, config)


def _newest(run: Path, config: RunConfig) -> Path:
    """The finished model of a run, or else its newest checkpoint."""
    if (run / "model" / CONFIG).exists():
        return run / "model"
    checkpoints = Checkpoints(run / "checkpoints", config.train.keep)
    if not checkpoints.steps():
        raise InputError(f"{run}: this run has no model and no checkpoint yet")
    return checkpoints.path(checkpoints.steps()[-1])


def head_of(found: FoundModel, path: Path, console: Console) -> AnyHead:
    """The head in a file, linear or temporal, for a live stream of the model that it was fitted on.

    Raises:
        InputError: no head, or one of another model.
    """
    temporal = path.is_file() and read_metadata(path).get("format") == TEMPORAL
    head: AnyHead = load_head(path) if temporal else LinearHead.load(path)
    if isinstance(head, TemporalHead) and head.origin.get("representation") and not head.origin.get("weights"):
        raise InputError(f"{path}: was trained on {head.origin['representation']}, not on latents; take a model's head")
    if head.origin.get("weights") not in (None, found.fingerprint):
        raise InputError(f"{path}: was fitted on another model than {found.source}; 'keystep eval' fits one for it")
    if head.origin.get("mode") == "offline":
        line = f"{path} was fitted on offline latents, which see the future; take the causal head of the same eval"
        console.print(f"warning: {line}", style="yellow", soft_wrap=True, markup=False)
    if head.origin.get("oracle") == "True":
        line = f"ORACLE: {path} was fitted on what true boundaries shaped; a live system has none"
        console.print(f"warning: {line}", style="yellow", soft_wrap=True, markup=False)
    return head


def check_boundaries(found: FoundModel, folder: FeatureFolder) -> None:
    """Refuse a model of discovered boundaries where there are none."""
    if found.model.config.segments == "discovered" and folder.discovered is None:
        raise InputError(
            f"{found.source}: attends by discovered boundaries; give --boundaries DIR, which 'keystep segment' writes"
        )


def check_fits(found: FoundModel, folder: FeatureFolder, console: Console) -> None:
    """Refuse features of another width or number of tokens, and warn of another rate than the model was trained at."""
    if found.model.config.input_dim != folder.width:
        raise InputError(
            f"{found.source}: reads features {found.model.config.input_dim} wide; {folder.root} has {folder.width}"
        )
    tokens = found.model.config.slot_tokens
    if tokens > 1 and folder.tokens not in (1, tokens):  # 1: the folder may just not say
        raise InputError(f"{found.source}: reads {tokens} tokens a slot; {folder.root} has {folder.tokens}")
    rate = str(folder.timeline.rate)
    if found.rate is not None and found.rate != rate:
        line = f"{found.source} was trained at {found.rate} Hz and reads {rate} Hz here; give --rate {found.rate}"
        folder.problems.notes.append(line)
        console.print(f"warning: {line}", style="yellow", soft_wrap=True, markup=False)
