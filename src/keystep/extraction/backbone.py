"""Protocol of pretrained backbones, and the pictures and clips they take."""

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
    """Preprocessing of a frame: resize, then centre crop.

    Attributes:
        height: of the result, in pixels.
        width: of the result, in pixels.
        short: shorter side after resizing with the aspect ratio kept; None: resize the whole frame to (height, width).
        interpolation: method for resizing.

    Raises:
        InputError: ``short`` is smaller than the crop.
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
class ClipSpec:
    """Input and output of a backbone call: the pictures of a clip, and the feature vectors computed from it.

    Attributes:
        frames: F, pictures per clip.
        slots: S, feature vectors per clip, each for F / S consecutive pictures (1: one vector for all pictures).
        frame_rate: pictures per second within a clip. None for single pictures, and for clips of several slots, where
            it follows from the feature rate (F / S pictures per slot).

    Raises:
        InputError: a combination that is not possible.
    """

    frames: int = 1
    slots: int = 1
    frame_rate: Fraction | None = None

    def __post_init__(self) -> None:
        if self.frames < 1 or self.slots < 1 or self.frames % self.slots:
            raise InputError(
                f"a clip of {self.frames} frames cannot have {self.slots} slots; frames must be a multiple of slots"
            )
        if self.slots == 1 and self.frames > 1 and self.frame_rate is None:
            raise InputError(f"a clip of {self.frames} frames and one slot needs a frame_rate")
        if self.slots > 1 and self.frame_rate is not None:
            raise InputError(
                f"frame_rate {self.frame_rate}: with several slots per clip, it follows from the feature rate; omit it"
            )


class Backbone(Protocol):
    """A pretrained network from clips to features, including colour normalisation, on its own device.

    Attributes:
        name: as on the command line.
        weights: SHA-256 in hex that identifies the weights.
        width: D, size of a feature vector.
        picture: preprocessing of frames.
        clip: layout of clips.
    """

    name: str
    weights: str
    width: int
    picture: Picture
    clip: ClipSpec

    def __call__(self, clips: Tensor) -> Tensor:
        """Compute features without gradients.

        Args:
            clips: (n, F, H, W, 3) uint8 RGB, on any device.

        Returns:
            (n, S, D) float32 on the backbone's device. The features of a clip do not depend on the other clips, except
            for rounding.
        """
        ...


class BackboneMaker(Protocol):
    """Object that a backbone name refers to: a `Backbone`, or a factory of one."""

    def __call__(self, *given: Any, **options: Any) -> Any:
        """Either a backbone called with clips, or a factory called with ``device`` if it has such a parameter."""
        ...
