"""Frames that are there as arrays, as a robot's or a headset's camera gives them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

import numpy as np
import torch

from keystep.errors import InputError
from keystep.extract.backbone import Picture
from keystep.extract.frames import Frame, resized_size


def array_frames(images: Iterable[np.ndarray], times: Iterable[Fraction | float]) -> Iterator[Frame]:
    """Frames of upright (H, W, 3) uint8 RGB arrays and the seconds from which on each is shown.

    They are resized by torch, those of files by FFmpeg: the same picture comes out a little different.

    Raises:
        InputError: an array of another kind, or a time that is not behind the one before.
    """
    before: Fraction | None = None
    for index, (image, time) in enumerate(zip(images, times, strict=True)):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(f"frame {index} is {image.dtype} of shape {image.shape}; expected uint8 (H, W, 3)")
        moment = Fraction(time)
        if before is not None and moment <= before:
            raise InputError(f"frame {index} at {float(moment):g} s does not follow the one at {float(before):g} s")
        before = moment
        height, width = image.shape[:2]
        yield Frame(index, moment, height, width, lambda picture, image=image: _rendered(image, picture))  # type: ignore[misc]


def _rendered(image: np.ndarray, picture: Picture) -> np.ndarray:
    size = resized_size(image.shape[0], image.shape[1], picture)
    if size != image.shape[:2]:
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
        smooth = picture.interpolation != "area"  # which torch knows without it only
        pixels = torch.nn.functional.interpolate(
            pixels, size, mode=picture.interpolation, antialias=smooth, align_corners=False if smooth else None
        )
        image = pixels[0].round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    top, left = (size[0] - picture.height) // 2, (size[1] - picture.width) // 2
    return np.ascontiguousarray(image[top : top + picture.height, left : left + picture.width])
