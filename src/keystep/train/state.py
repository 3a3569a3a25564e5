"""Checkpoints of a training run, written atomically.

A checkpoint is a folder with the model in its public format, the tensors of target and optimiser, and the step. Data
order, masks, learning rates and momenta are functions of the step, so nothing else needs to be saved.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from keystep import persistence
from keystep.errors import InputError, named
from keystep.files import replacing, write_json
from keystep.persistence import CONFIG, WEIGHTS
from keystep.pjepa import PJEPA
from keystep.reading import Record, checked, read_json, whole_number
from keystep.target import Target

OPTIONAL = "encoder.around."
"""Prefix of parameters that a step may not use, so that the optimiser may have no state for them."""
TARGET, OPTIMISER, STATE = "target.safetensors", "optimizer.safetensors", "state.json"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""AdamW's state of a parameter."""
BEST = "best.safetensors"
"""Weights of the best evaluation so far, if the training may stop early."""


class _CheckpointRecord(Record):
    """Schema of ``state.json``, as far as a resume reads it."""

    step: Annotated[int, Field(ge=0)]
    skipped_steps: Annotated[int, Field(ge=0)] = 0
    looks: list[Annotated[list[float], Field(min_length=2, max_length=2)]] = Field(default_factory=list)
    videos: list[str] = Field(default_factory=list)


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run, ``folder/step-00000500`` and so on.

    Attributes:
        folder: the folder that contains them.
        keep: how many of the newest are kept.
    """

    folder: Path
    keep: int

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, ascending."""
        names = (path.parent.name.removeprefix("step-") for path in self.folder.glob("step-*/" + STATE))
        return sorted(int(name) for name in names if whole_number(name) is not None)

    def path(self, step: int) -> Path:
        """The folder of a step's checkpoint."""
        return self.folder / f"step-{step:08d}"

    def save(
        self,
        step: int,
        model: PJEPA,
        target: Target,
        optimizer: Optimizer,
        record: dict[str, Any],
        best: Mapping[str, Tensor],
    ) -> None:
        """Write the state after ``step`` optimiser steps, then remove the oldest checkpoints.

        Args:
            step: number of optimiser steps done.
            model: the model that is trained.
            target: its target.
            optimizer: its optimiser.
            record: more entries for ``state.json``.
            best: weights of the best evaluation so far; empty if there is none.

        Raises:
            InputError: the folder is not writable.
        """
        with replacing(self.path(step), (CONFIG, WEIGHTS, TARGET, OPTIMISER, STATE, BEST)) as temporary:
            persistence.save_model(temporary, model)
            persistence.save_tensors(temporary / TARGET, target.state_dict())
            persistence.save_tensors(temporary / OPTIMISER, optimizer_tensors(model, optimizer))
            if best:
                persistence.save_tensors(temporary / BEST, best)
            write_json(temporary / STATE, {"step": step, **record})
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self.path(old))

    def load_best(self, step: int, model: PJEPA) -> dict[str, Tensor]:
        """Weights of the best evaluation up to a checkpoint; empty if it has none.

        Raises:
            InputError: they are damaged, or do not fit the model.
        """
        path = self.path(step) / BEST
        if not path.exists():
            return {}
        found = persistence.load_tensors(path)
        persistence.check_fit(persistence.shapes_of(model.state_dict()), persistence.shapes_of(found), str(path))
        return found

    def load(self, step: int, model: PJEPA, target: Target, optimizer: Optimizer) -> dict[str, Any]:
        """Restore model, target and optimiser in place to the state after ``step`` steps.

        Returns:
            The content of ``state.json``.

        Raises:
            InputError: a file is missing, damaged, or of another model.
        """
        folder = self.path(step)
        saved = persistence.read_config(folder / persistence.CONFIG)
        if saved != model.config:
            raise InputError(f"{folder}: was written for another model than that in the run's config.yaml")
        for module, name in ((model, persistence.WEIGHTS), (target, TARGET)):
            persistence.load_strict(module, persistence.load_tensors(folder / name), str(folder / name))
        load_optimizer_tensors(model, optimizer, persistence.load_tensors(folder / OPTIMISER), folder / OPTIMISER)
        record = read_json(folder / STATE)
        checked(_CheckpointRecord, record, str(folder / STATE))
        return record


def checkpoint_bytes(model: nn.Module, target: nn.Module) -> tuple[int, int]:
    """Sizes in bytes of a model's weights and of a checkpoint: weights, target, and AdamW's two moments."""

    def size(tensors: Iterable[Tensor]) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    weights = size(model.state_dict().values())
    return weights, weights + size(target.state_dict().values()) + 2 * size(model.parameters())


def optimizer_tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Collect the optimiser's tensors under the names ``<parameter>/<quantity>``."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"{names[id(parameter)]}/{quantity}": value
        for group in optimizer.param_groups
        for parameter in group["params"]
        for quantity, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(model: nn.Module, optimizer: Optimizer, tensors: dict[str, Tensor], source: Path) -> None:
    """Inverse of `optimizer_tensors`; moves each tensor to its parameter's device.

    Args:
        model: the model whose parameters are optimised.
        optimizer: gets the state.
        tensors: as `optimizer_tensors` returns them.
        source: the file, for messages.

    Raises:
        InputError: a tensor of another parameter or shape, or missing ones.
    """
    parameters = dict(model.named_parameters())
    states: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, quantity = key.rpartition("/")
        if name not in parameters:
            raise InputError(f"{source}: holds a state for {named(name)}, which this model does not have")
        shape = torch.Size() if quantity == "step" else parameters[name].shape
        if quantity not in MOMENTS or value.shape != shape:
            raise InputError(f"{source}: {named(key)} is {tuple(value.shape)}; the optimiser does not keep that")
        # Adam counts its steps on the CPU
        states.setdefault(name, {})[quantity] = value if quantity == "step" else value.to(parameters[name].device)
    for name, state in states.items():
        optimizer.state[parameters[name]] = state
    used = [name for name in parameters if not name.startswith(OPTIONAL) or name in states]
    if len(states) not in (0, len(used)):
        raise InputError(f"{source}: has states for {len(states)} of {len(used)} parameters")
