"""Preprocessing of ``transformers`` models, read from the configuration file beside their weights.

The library's own classes for it need torchvision or Pillow, but the settings are plain numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keystep.errors import InputError, quoted
from keystep.extraction.backbone import Interpolation, Picture
from keystep.extraction.backbones.colours import RGB, Colours

INTERPOLATIONS: dict[int, Interpolation] = {1: "bicubic", 2: "bilinear", 3: "bicubic", 4: "area", 5: "bilinear"}
"""Pillow's numbers. Lanczos (1) and Hamming (5) are replaced by similar methods."""


def preprocessing(settings: Mapping[str, Any], source: str) -> tuple[Picture, Colours]:
    """Convert the contents of a ``preprocessor_config.json`` to picture size and colours.

    If only the shorter side is fixed, pictures are cropped to a square, so that all have the same size.

    Args:
        settings: the contents.
        source: file, for messages.

    Raises:
        InputError: missing, malformed or unsupported settings.
    """
    for name in ("do_flip_channel_order", "do_pad"):
        if settings.get(name):
            raise InputError(
                f"{source}: {name} is not supported; wrap the model with keystep.extraction.backbones.custom"
            )
    if not settings.get("do_resize", True):
        raise InputError(f"{source}: do_resize is false, so the size of pictures is unknown")
    try:
        return _picture(settings, source), _colours(settings)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{source}: invalid size, crop_size, image_mean or image_std: {quoted(error)}") from error


def _picture(settings: Mapping[str, Any], source: str) -> Picture:
    size, crops = settings["size"], bool(settings.get("do_center_crop", False))
    resample = settings.get("resample", 2)
    if resample not in INTERPOLATIONS:
        raise InputError(f"{source}: resample {quoted(resample)} is not supported")
    if isinstance(size, int):  # early files: the shorter side if cropped, else both
        size = {"shortest_edge": size} if crops or "crop_pct" in settings else {"height": size, "width": size}
    short = size.get("shortest_edge")
    if short is None:
        height, width = int(size["height"]), int(size["width"])
        if crops and _sides(settings["crop_size"]) != (height, width):
            raise InputError(
                f"{source}: resizing to {height} x {width} before cropping is not supported; wrap the "
                "model with keystep.extraction.backbones.custom"
            )
    elif settings.get("crop_pct") is not None:  # ConvNeXt and ResNet: the size after cropping
        height = width = int(short)
        short = int(short / settings["crop_pct"]) if short < 384 else None
    else:
        height, width = _sides(settings["crop_size"]) if crops else (int(short), int(short))
    return Picture(
        height=height,
        width=width,
        short=None if short is None else int(short),
        interpolation=INTERPOLATIONS[resample],
    )


def _sides(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size["height"]), int(size["width"]))


def _colours(settings: Mapping[str, Any]) -> Colours:
    """Convert ``(x * factor - offset - mean) / deviation`` to mean and deviation on the scale 0..255."""
    factor = float(settings.get("rescale_factor", 1 / 255)) if settings.get("do_rescale", True) else 1.0
    offset = 1.0 if settings.get("offset") or settings.get("rescale_offset") else 0.0
    normalised = settings.get("do_normalize", True)
    mean = _rgb(settings["image_mean"]) if normalised else (0.0, 0.0, 0.0)
    deviation = _rgb(settings["image_std"]) if normalised else (1.0, 1.0, 1.0)
    return Colours(
        mean=_rgb([(value + offset) / factor for value in mean]),
        deviation=_rgb([value / factor for value in deviation]),
    )


def _rgb(values: Any) -> RGB:
    red, green, blue = (float(value) for value in ([values] * 3 if isinstance(values, int | float) else values))
    return red, green, blue
