"""Backbones made of somebody's own function or module."""

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
"""Clips (n, F, H, W, 3) uint8 RGB to features (n, S, D), or (n, D) where a clip gives one vector."""


class FunctionBackbone:
    """A `Backbone` around a function; without gradients, in float32, and with its shapes checked at each call."""

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
        """Clips (n, F, H, W, 3) uint8 RGB to features (n, S, D) float32.

        Raises:
            InputError: other clips, or the function gives something else than it was said to.
        """
        size = (self.clip.frames, self.picture.height, self.picture.width, 3)
        if clips.dtype != torch.uint8 or clips.shape[1:] != size:
            raise InputError(
                f"backbone {named(self.name)}: clips of shape {tuple(clips.shape)} and {clips.dtype}; expected "
                f"(n, {', '.join(str(number) for number in size)}) and torch.uint8"
            )
        return self.checked(_called(self.function, clips.to(self.device), self.name), clips)

    def checked(self, found: Tensor, clips: Tensor) -> Tensor:
        """What the function gave for the clips as (n, S, D) float32.

        Raises:
            InputError: it is not that.
        """
        if found.ndim == 2 and self.clip.slots == 1:
            found = found[:, None]
        expected = (len(clips), self.clip.slots, self.width)
        if found.shape != expected:
            raise InputError(
                f"backbone {named(self.name)}: gave features of shape {tuple(found.shape)} for clips of shape "
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
    """A backbone of any function from clips (n, F, H, W, 3) uint8 RGB to features (n, S, D), or (n, D) for one slot.

    The function normalises colours by itself (`backbones.colours.Colours`). A module is put into evaluation mode and
    onto the device; for anything else, ``device`` says where it expects the clips.

    Args:
        clip: by default a single picture.
        width: D; by default found by trying a black clip.
        weights: what tells these weights from others, such as a file's hash: features of different weights must never
            be mixed up. By default the hash of the state dict of a module or of a module's method.

    Raises:
        InputError: there is nothing to tell the weights by, or the function gives something else than features on a
            black clip. What the function raises by itself comes through as it is.
    """
    clip = ClipSpec() if clip is None else clip
    module = function if isinstance(function, nn.Module) else getattr(function, "__self__", None)
    if isinstance(module, nn.Module):
        module.eval().to(device)
        weights = tensors_hash(module.state_dict()) if weights is None else weights
    if not weights:
        raise InputError(
            f"backbone {named(name)}: give weights=..., which tells its weights from others; only that of modules is "
            "found by itself"
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
    """What the function gives, if it is a tensor of features at all.

    What goes wrong inside of the function is its author's to see with its traceback: nothing is caught.
    """
    found: object = function(clips)
    if not isinstance(found, Tensor) or found.ndim not in (2, 3):
        kind = f"of shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise InputError(f"backbone {named(name)}: gave {kind} instead of features: clips, slots, width")
    return found


def from_name(name: str, device: torch.device | str = "cpu") -> Backbone:
    """The backbone of an installed package or of ``package.module:name``, which may also be a callable that makes one.

    The callable gets ``device`` if it has a parameter of that name, and nothing else.

    Raises:
        InputError: there is none of that name, nobody named it but a file (`keystep.plugins`), or it is no backbone.
    """
    found: Any = BACKBONES.find(name)
    if isinstance(found, type) or not is_backbone(found):
        takes_device = "device" in inspect.signature(found).parameters
        found = found(device=device) if takes_device else found()
    if not is_backbone(found):
        raise InputError(
            f"backbone {quoted(name)}: an object of type {type(found).__name__} is no backbone; make one with "
            "keystep.extraction.backbones.custom.from_callable"
        )
    backbone: Backbone = found
    return backbone


def is_backbone(value: object) -> bool:
    """Whether a value has all that `Backbone` asks for."""
    kinds = {"name": str, "weights": str, "width": int, "picture": Picture, "clip": ClipSpec}
    return callable(value) and all(isinstance(getattr(value, name, None), kind) for name, kind in kinds.items())
