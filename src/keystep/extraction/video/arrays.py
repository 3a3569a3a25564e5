"""Frames from arrays, such as those of a robot's or a headset's camera."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import partial
from math import inf, isfinite, ulp

import numpy as np
import torch

from keystep.errors import InputError
from keystep.extraction.backbone import Picture
from keystep.extraction.video.frames import Frame, check_size, resized_size


def array_frames(images: Iterable[np.ndarray], times: Iterable[Fraction | float]) -> Iterator[Frame]:
    """Make frames of arrays.

    Arrays are resized by torch and files by FFmpeg, so the results for the same picture differ slightly.

    Args:
        images: upright (H, W, 3) uint8 RGB arrays.
        times: seconds from which each is shown. Floats cannot represent 1/30, so they are taken as accurate to a
            microsecond (or to the precision of a float); fractions are exact.

    Raises:
        InputError: another kind of array, a time that is not finite or does not increase, or different numbers of
            images and times.
    """
    moments = iter(times)
    before: Fraction | float = -inf
    for index, image in enumerate(images):
        time = next(moments, None)
        if time is None:
            raise InputError(f"frame {index} has no time; pass as many times as images")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise InputError(f"frame {index} is {image.dtype} of shape {image.shape}; expected uint8 (H, W, 3)")
        check_size(f"frame {index}", *image.shape[:2])
        if not isfinite(time) or time <= before:
            raise InputError(f"frame {index} at {float(time):g} s is not after the one at {float(before):g} s")
        slack = Fraction(0) if isinstance(time, Fraction | int) else Fraction(max(1e-6, 2 * ulp(time)))
        slack = min(slack, Fraction(time - before) / 4) if isfinite(before) else slack
        before = time
        height, width = image.shape[:2]
        render = partial(_rendered, image)
        yield Frame(index, Fraction(time), height, width, render, slack)
    if next(moments, None) is not None:
        raise InputError("more times than images; pass as many times as images")


def _rendered(image: np.ndarray, picture: Picture) -> np.ndarray:
    size = resized_size(image.shape[0], image.shape[1], picture)
    if size != image.shape[:2]:
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
        smooth = picture.interpolation != "area"  # torch has no anti-aliased version
        pixels = torch.nn.functional.interpolate(
            pixels, size, mode=picture.interpolation, antialias=smooth, align_corners=False if smooth else None
        )
        image = pixels[0].round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    top, left = (size[0] - picture.height) // 2, (size[1] - picture.width) // 2
    return np.ascontiguousarray(image[top : top + picture.height, left : left + picture.width])
