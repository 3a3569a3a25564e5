"""The authors' linear heads: class probabilities of each frame from the latents of their encoders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from keystep.errors import InputError
from keystep.interop.official.reading import read_payload, tensors_of

PLAIN = ("fc", "classifier")
FOREGROUND, ACTIVITY = "foreground_fc", "activity_fc"


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
    """

    steps: Affine
    activity: Affine | None = None
    background: int = 0

    @property
    def classes(self) -> int:
        """Number of classes, the background included."""
        return len(self.steps.bias) + (self.activity is not None)

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
        """(..., D) -> (...) int64 class ids by the authors' rule: the best step wherever there is one at all.

        (Which need not be the likeliest class: the background may beat each single step and not all together.)
        """
        best = self.steps(self._checked(latents)).argmax(-1)
        if self.activity is None:
            return best
        best = best + (best >= self.background)  # the background has no score among the steps
        return torch.where(self.activity(latents).argmax(-1) == 1, best, self.background)

    def _checked(self, latents: Tensor) -> Tensor:
        width = self.steps.weight.shape[1]
        if latents.shape[-1] != width:
            raise InputError(f"this head reads latents {width} wide, not {latents.shape[-1]}")
        return latents


def load_head(path: Path | str, background: int = 0) -> LinearHead:
    """A linear head from one of the authors' files.

    Args:
        background: class id of the background, for heads that judge activity apart (EgoProceL: 0).

    Raises:
        InputError: no such file, a damaged or unsafe one, or no linear head.
    """
    path = Path(path)
    tensors = tensors_of(path, read_payload(path), "model_state_dict", "state_dict")
    names = sorted({name.rpartition(".")[0] for name in tensors})
    if sorted(tensors) != sorted(f"{name}.{part}" for name in names for part in ("weight", "bias")):
        raise InputError(f"{path}: no linear head: it holds {', '.join(sorted(tensors)[:3])}...")
    layers = {name: _affine(path, name, tensors) for name in names}
    if names == [ACTIVITY, FOREGROUND]:
        head = LinearHead(layers[FOREGROUND], layers[ACTIVITY], background)
        if len(layers[ACTIVITY].bias) != 2 or layers[ACTIVITY].weight.shape[1] != layers[FOREGROUND].weight.shape[1]:
            raise InputError(f"{path}: {ACTIVITY} is {tuple(layers[ACTIVITY].weight.shape)}; expected (2, D)")
        if not 0 <= background < head.classes:
            raise InputError(f"{path}: background {background} is none of its {head.classes} classes")
        return head
    if len(names) == 1 and names[0] in PLAIN:
        return LinearHead(layers[names[0]])
    known = f"{' or '.join(PLAIN)}, or {FOREGROUND} with {ACTIVITY}"
    raise InputError(f"{path}: no linear head that is known: layers {', '.join(names)}; expected {known}")


def _affine(path: Path, name: str, tensors: dict[str, Tensor]) -> Affine:
    weight, bias = (tensors[f"{name}.{part}"].to(torch.float32, copy=True) for part in ("weight", "bias"))
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise InputError(f"{path}: {name} has weight {tuple(weight.shape)} and bias {tuple(bias.shape)}; no affine map")
    return Affine(weight, bias)
