"""Frames as the rest of extraction sees them, from wherever they come: a file, a camera, arrays in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
import torch

from keystep.errors import InputError
from keystep.extract.backbone import Picture


class Frame(Protocol):
    """One frame of a video.

    index: its place in the order of presentation, from 0. time: seconds since the video's start, exact.
    """

    @property
    def index(self) -> int: ...
    @property
    def time(self) -> Fraction: ...
    def rgb(self, picture: Picture) -> np.ndarray:
        """(H, W, 3) uint8: upright, resized and cropped as ``picture`` says."""
        ...


class FrameSource(Protocol):
    """A video, or something live, that gives its frames in the order of their times."""

    def frames(self) -> Iterator[Frame]:
        """One after the other; nothing is kept, so hours of video stay out of memory."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayFrame:
    """A frame that is there as an array, as a robot's or a headset's camera gives it."""

    image: np.ndarray
    index: int
    time: Fraction

    def rgb(self, picture: Picture) -> np.ndarray:
        """(H, W, 3) uint8; resized in floating point, so up to a step or two from what a video file's frame gets."""
        height, width = self.image.shape[:2]
        pixels = torch.from_numpy(np.ascontiguousarray(self.image)).permute(2, 0, 1)[None].float()
        size = resized(height, width, picture)
        if size != (height, width):
            if picture.interpolation == "area":
                pixels = torch.nn.functional.interpolate(pixels, size, mode="area")
            else:
                pixels = torch.nn.functional.interpolate(pixels, size, mode=picture.interpolation, antialias=True)
        whole = pixels[0].round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
        return cropped(whole, picture)


def array_frames(images: Iterable[np.ndarray], times: Iterable[Fraction | float]) -> Iterator[ArrayFrame]:
    """Frames of (H, W, 3) uint8 RGB arrays and their times in seconds.

    Raises:
        InputError: an array of another kind, or a time that is not after the one before.
    """
    before: Fraction | None = None
    for index, (image, time) in enumerate(zip(images, times, strict=True)):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(f"frame {index} is {image.dtype} of shape {image.shape}; expected uint8 (H, W, 3)")
        moment = Fraction(time)
        if before is not None and moment <= before:
            raise InputError(f"frame {index} at {float(moment):g} s does not follow the one at {float(before):g} s")
        before = moment
        yield ArrayFrame(image, index, moment)


def resized(height: int, width: int, picture: Picture) -> tuple[int, int]:
    """Height and width of a frame after resizing, before cropping."""
    if picture.short is None:
        return picture.height, picture.width
    shorter = min(height, width)
    return max(picture.height, round(height * picture.short / shorter)), max(
        picture.width, round(width * picture.short / shorter)
    )


def cropped(image: np.ndarray, picture: Picture) -> np.ndarray:
    """The middle (H, W) of an image."""
    top, left = (image.shape[0] - picture.height) // 2, (image.shape[1] - picture.width) // 2
    return np.ascontiguousarray(image[top : top + picture.height, left : left + picture.width])
