"""What a pretrained network has to say of itself so that any video can be turned into its features."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, Protocol

from torch import Tensor

from keystep.errors import InputError

Interpolation = Literal["area", "bilinear", "bicubic"]
LARGEST_SIDE = 8192
"""Pixels of a side of what a backbone sees; more are a slip, or a damaged file."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """How a frame is brought to the size that a backbone was trained at: resized, then cropped in the middle.

    height, width: what the backbone sees. short: the shorter side after resizing, the aspect ratio kept; None squeezes
    the whole frame to (height, width).
    """

    height: int
    width: int
    short: int | None = None
    interpolation: Interpolation = "area"

    def __post_init__(self) -> None:
        if not all(1 <= side <= LARGEST_SIDE for side in (self.height, self.width, self.short or 1)):
            raise InputError(f"pictures of {self.height} x {self.width}; each side has 1 to {LARGEST_SIDE} pixels")
        if self.short is not None and self.short < max(self.height, self.width):
            raise InputError(f"frames resized to {self.short} cannot be cropped to {self.height} x {self.width}")


@dataclass(frozen=True, kw_only=True)
class Clip:
    """What a backbone sees at once, and how many feature vectors it makes of it.

    frames: F pictures a clip. slots: S vectors a clip, each of F / S consecutive pictures (1: one vector of all).
    frame_rate: pictures a second within a clip; None where slots follow each other without a gap, so that the rate of
        the features fixes it (F / S pictures a slot), and for single pictures.
    """

    frames: int = 1
    slots: int = 1
    frame_rate: Fraction | None = None

    def __post_init__(self) -> None:
        if self.frames < 1 or self.slots < 1 or self.frames % self.slots:
            raise InputError(f"a clip of {self.frames} frames cannot have {self.slots} slots")
        if self.slots == 1 and self.frames > 1 and self.frame_rate is None:
            raise InputError(f"a clip of {self.frames} frames needs a frame rate")
        if self.slots > 1 and self.frame_rate is not None:
            raise InputError("the frame rate of a clip with several slots follows from the rate of the features")


class Backbone(Protocol):
    """A pretrained network: pictures in, features out. It normalises colours by itself, on its own device.

    name: as on the command line. weights: which weights, a SHA-256 in hex. width: numbers in one vector, D.
    """

    name: str
    weights: str
    width: int
    picture: Picture
    clip: Clip

    def __call__(self, clips: Tensor) -> Tensor:
        """Clips (n, F, H, W, 3) uint8 RGB, on any device, to features (n, S, D) float32 on the backbone's device.

        Row by row: what a clip gives does not depend on the other clips (but for rounding). Without gradients.
        """
        ...


class BackboneMaker(Protocol):
    """What a name of a backbone stands for: a `Backbone`, or anything that makes one when it is called."""

    def __call__(self, *given: Any, **options: Any) -> Any:
        """A backbone, of clips or of nothing; the latter is given ``device`` if it has a parameter of that name."""
        ...
