"""Linear heads: class probabilities of each frame from its latent. What `keystep eval` fits and a live stream reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from keystep.errors import InputError
from keystep.persistence import check_format, load_tensors, read_metadata, save_tensors

FORMAT = "keystep-head"
FORMAT_VERSION = "1"


@dataclass(frozen=True, eq=False)
class Affine:
    """``x @ weight.T + bias``; weight (K, D), bias (K,)."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., K)"""
        return torch.nn.functional.linear(x, self.weight, self.bias)


@dataclass(frozen=True, eq=False)
class LinearHead:
    """One affine map for the classes, or one for the steps beside one for "is there a step at all" (``activity``).

    steps: scores of all classes; with ``activity``, of all but the background, in the order of their ids.
    activity: scores of (no step, a step), or None.
    background: class id of the background, with ``activity`` only.
    names: of the classes by id; empty where they are not known.
    origin: what it was fitted on: ``weights`` (hash of the model), ``mode``, ``attention``, ``rate`` in Hz.
    """

    steps: Affine
    activity: Affine | None = None
    background: int = 0
    names: tuple[str, ...] = ()
    origin: Mapping[str, str] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """D"""
        return int(self.steps.weight.shape[1])

    @property
    def classes(self) -> int:
        """Number of classes, the background included."""
        return len(self.steps.bias) + (self.activity is not None)

    @property
    def signature(self) -> str:
        """A hash of the weights, which tells heads apart."""
        parts = [self.steps, self.activity] if self.activity else [self.steps]
        tensors = [tensor for part in parts for tensor in (part.weight, part.bias)]
        return hashlib.sha256(b"".join(tensor.cpu().contiguous().numpy().tobytes() for tensor in tensors)).hexdigest()

    def name(self, identifier: int) -> str:
        """The name of a class."""
        return self.names[identifier] if self.names else f"class {identifier}"

    def probabilities(self, latents: Tensor) -> Tensor:
        """(..., D) -> (..., classes), each frame's summing to 1."""
        steps = self.steps(self._checked(latents)).softmax(-1)
        if self.activity is None:
            return steps
        nothing, something = self.activity(latents).softmax(-1).unbind(-1)
        steps = steps * something[..., None]
        before, after = steps[..., : self.background], steps[..., self.background :]
        return torch.cat([before, nothing[..., None], after], dim=-1)

    def predict(self, latents: Tensor) -> Tensor:
        """(..., D) -> (...) int64 class ids; with ``activity``, the best step wherever there is one at all.

        (Which need not be the likeliest class: the background may beat each single step and not all together.)
        """
        return self.choose(self.probabilities(latents))

    def choose(self, probabilities: Tensor) -> Tensor:
        """(..., classes) -> (...) int64 class ids by the same rule, from probabilities that may have been smoothed."""
        if self.activity is None:
            return probabilities.argmax(-1)
        background = torch.tensor([self.background], device=probabilities.device)
        steps = probabilities.index_fill(-1, background, -1.0)
        return torch.where(probabilities[..., self.background] < 0.5, steps.argmax(-1), self.background)

    def save(self, path: Path | str) -> None:
        """Write one safetensors file, whole or not at all."""
        tensors = {"steps.weight": self.steps.weight, "steps.bias": self.steps.bias}
        if self.activity is not None:
            tensors |= {"activity.weight": self.activity.weight, "activity.bias": self.activity.bias}
        record = {"background": self.background, "names": self.names, "origin": dict(self.origin)}
        save_tensors(Path(path), tensors, {"format": FORMAT, "version": FORMAT_VERSION, "head": json.dumps(record)})

    @classmethod
    def load(cls, path: Path | str) -> LinearHead:
        """A head that `save` wrote.

        Raises:
            InputError: no such file, a damaged one, or one of another format or version.
        """
        path = Path(path)
        header = read_metadata(path)
        check_format(path, header, FORMAT, FORMAT_VERSION, "a head that 'keystep eval' wrote")
        tensors = load_tensors(path)
        record = json.loads(header["head"])
        layers = {
            name: Affine(tensors[f"{name}.weight"], tensors[f"{name}.bias"])
            for name in ("steps", "activity")
            if f"{name}.weight" in tensors
        }
        return cls(
            layers["steps"], layers.get("activity"), record["background"], tuple(record["names"]), record["origin"]
        )

    def _checked(self, latents: Tensor) -> Tensor:
        if latents.shape[-1] != self.width:
            raise InputError(f"this head reads latents {self.width} wide, not {latents.shape[-1]}")
        return latents
