"""Checkpoints of a head's training, written atomically."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.optim import Optimizer

from keystep.errors import InputError
from keystep.files import replacing, write_json
from keystep.persistence import check_fit, load_strict, load_tensors, save_tensors, shapes_of
from keystep.reading import Record, checked, read_json
from keystep.train.state import load_optimizer_tensors, optimizer_tensors

HEAD, BEST, OPTIMISER, STATE = "head.safetensors", "best.safetensors", "optimizer.safetensors", "state.json"


class _Record(Record):
    """Schema of ``state.json``."""

    identity: dict[str, Any]
    history: list[dict[str, float]]
    best_epoch: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _best_is_measured(self) -> Self:
        if self.best_epoch > len(self.history) or any("selection" not in epoch for epoch in self.history):
            raise ValueError(f"best_epoch {self.best_epoch} is none of the {len(self.history)} epochs measured")
        return self


@dataclass(frozen=True, eq=False)
class State:
    """The state of a training except head and optimiser.

    Attributes:
        best: the head's state dict after the best epoch.
        history: measurements of each epoch.
        best_epoch: its number, from 1.
    """

    best: dict[str, Tensor]
    history: list[dict[str, float]]
    best_epoch: int


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The newest checkpoint of a training, ``folder/checkpoint``.

    Attributes:
        folder: the training's folder.
        identity: settings, seed and data as plain values; a checkpoint with others is refused.
    """

    folder: Path
    identity: Mapping[str, Any]

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.folder / "checkpoint"

    def save(
        self,
        head: nn.Module,
        optimizer: Optimizer,
        best: Mapping[str, Tensor],
        history: list[dict[str, float]],
        best_epoch: int,
    ) -> None:
        """Replace the checkpoint by the current state.

        Raises:
            InputError: the folder is not writable.
        """
        with replacing(self.path, (HEAD, BEST, OPTIMISER, STATE)) as temporary:
            save_tensors(temporary / HEAD, head.state_dict())
            save_tensors(temporary / BEST, best)
            save_tensors(temporary / OPTIMISER, optimizer_tensors(head, optimizer))
            record = {"identity": dict(self.identity), "history": history, "best_epoch": best_epoch}
            write_json(temporary / STATE, record)

    def load(self, head: nn.Module, optimizer: Optimizer) -> State | None:
        """Restore head and optimiser in place. None: there is no checkpoint yet.

        Raises:
            InputError: the checkpoint is damaged, or of another training.
        """
        if not (self.path / STATE).exists():
            return None
        record = checked(_Record, read_json(self.path / STATE), str(self.path / STATE))
        if record.identity != self.identity:
            was = record.identity
            other = [name for name, value in self.identity.items() if was.get(name) != value]
            raise InputError(f"{self.path}: of another training ({', '.join(other)} differ); choose another folder")
        load_strict(head, load_tensors(self.path / HEAD), str(self.path / HEAD))
        source = self.path / OPTIMISER
        load_optimizer_tensors(head, optimizer, load_tensors(source), source)
        best = load_tensors(self.path / BEST)
        check_fit(shapes_of(head.state_dict()), shapes_of(best), str(self.path / BEST))
        return State(best, record.history, record.best_epoch)
