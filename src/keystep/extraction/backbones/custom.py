"""Backbones from your own functions and modules."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from keystep.errors import InputError, named, quoted
from keystep.extraction.backbone import Backbone, ClipSpec, Picture
from keystep.extraction.backbones.weights import tensors_hash
from keystep.plugins import BACKBONES

Function = Callable[[Tensor], Tensor]
"""Clips (n, F, H, W, 3) uint8 RGB to features (n, S, D), or (n, D) for one vector per clip."""


class FunctionBackbone:
    """A `Backbone` that calls a function without gradients, checks the shapes, and returns float32.

    Args:
        function: from clips to features.
        name: of the backbone.
        weights: identifies the weights.
        width: D, size of a feature vector.
        picture: preprocessing of frames.
        clip: layout of clips.
        device: where the function expects clips.
    """

    def __init__(
        self,
        function: Function,
        *,
        name: str,
        weights: str,
        width: int,
        picture: Picture,
        clip: ClipSpec,
        device: torch.device | str = "cpu",
    ) -> None:
        self.name, self.weights, self.width = name, weights, width
        self.picture, self.clip = picture, clip
        self.function, self.device = function, torch.device(device)

    @torch.no_grad()
    def __call__(self, clips: Tensor) -> Tensor:
        """Compute features: (n, F, H, W, 3) uint8 RGB -> (n, S, D) float32.

        Raises:
            InputError: other clips, or the function returned another shape.
        """
        size = (self.clip.frames, self.picture.height, self.picture.width, 3)
        if clips.dtype != torch.uint8 or clips.shape[1:] != size:
            raise InputError(
                f"backbone {named(self.name)}: clips of shape {tuple(clips.shape)} and {clips.dtype}; expected "
                f"(n, {', '.join(str(number) for number in size)}) and torch.uint8"
            )
        return self.checked(_called(self.function, clips.to(self.device), self.name), clips)

    def checked(self, found: Tensor, clips: Tensor) -> Tensor:
        """Convert the result of the function for clips to (n, S, D) float32.

        Raises:
            InputError: another shape.
        """
        if found.ndim == 2 and self.clip.slots == 1:
            found = found[:, None]
        expected = (len(clips), self.clip.slots, self.width)
        if found.shape != expected:
            raise InputError(
                f"backbone {named(self.name)}: returned features of shape {tuple(found.shape)} for clips of shape "
                f"{tuple(clips.shape)}; expected {expected}: clips, slots, width"
            )
        return found.float()


def from_callable(
    function: Function,
    *,
    name: str,
    picture: Picture,
    clip: ClipSpec | None = None,
    width: int | None = None,
    weights: str | None = None,
    device: torch.device | str = "cpu",
) -> FunctionBackbone:
    """Make a backbone from a function or module.

    The function has to normalise colours (`backbones.colours.Colours`). Its own exceptions are not caught.

    Args:
        function: from clips (n, F, H, W, 3) uint8 RGB to features (n, S, D), or (n, D) for one slot. A module is set to
            evaluation mode and moved to the device.
        name: of the backbone.
        picture: preprocessing of frames.
        clip: layout of clips; by default a single picture.
        width: D; by default determined with a black clip.
        weights: identifies the weights, such as the hash of a file, so that features of different weights are never
            mixed. By default, for a module or its method, the hash of the state dict.
        device: where the function expects clips.

    Raises:
        InputError: the weights cannot be identified, or the function does not return features for a black clip.
    """
    clip = ClipSpec() if clip is None else clip
    module = function if isinstance(function, nn.Module) else getattr(function, "__self__", None)
    if isinstance(module, nn.Module):
        module.eval().to(device)
        weights = tensors_hash(module.state_dict()) if weights is None else weights
    if not weights:
        raise InputError(
            f"backbone {named(name)}: pass weights=... to identify its weights; that is only automatic for modules"
        )
    black = torch.zeros(1, clip.frames, picture.height, picture.width, 3, dtype=torch.uint8)
    with torch.no_grad():
        found = _called(function, black.to(device), name)
    backbone = FunctionBackbone(
        function,
        name=name,
        weights=weights,
        width=int(found.shape[-1]) if width is None else width,
        picture=picture,
        clip=clip,
        device=device,
    )
    backbone.checked(found, black)
    return backbone


def _called(function: Function, clips: Tensor, name: str) -> Tensor:
    """Call the function, and check that it returns a tensor of features. Its exceptions are not caught."""
    found: object = function(clips)
    if not isinstance(found, Tensor) or found.ndim not in (2, 3):
        kind = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise InputError(f"backbone {named(name)}: returned {kind}; expected features: clips, slots, width")
    return found


def from_name(name: str, device: torch.device | str = "cpu") -> Backbone:
    """Load the backbone of an installed package or of ``package.module:name``.

    Args:
        name: of a backbone, or of a factory, which is called with ``device`` if it has such a parameter.
        device: to compute on.

    Raises:
        InputError: no such name, one named only by a file (`keystep.plugins`), or not a backbone.
    """
    found: Any = BACKBONES.find(name)
    if isinstance(found, type) or not is_backbone(found):
        takes_device = "device" in inspect.signature(found).parameters
        found = found(device=device) if takes_device else found()
    if not is_backbone(found):
        raise InputError(
            f"backbone {quoted(name)}: an object of type {type(found).__name__} is not a backbone; make one with "
            "keystep.extraction.backbones.custom.from_callable"
        )
    backbone: Backbone = found
    return backbone


def is_backbone(value: object) -> bool:
    """Whether a value follows the protocol `Backbone`."""
    kinds = {"name": str, "weights": str, "width": int, "picture": Picture, "clip": ClipSpec}
    return callable(value) and all(isinstance(getattr(value, name, None), kind) for name, kind in kinds.items())
