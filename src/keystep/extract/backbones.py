"""Backbones by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from keystep.errors import InputError
from keystep.extract import catalogue
from keystep.extract.backbone import Backbone
from keystep.extract.config import ExtractionConfig

CHOICES: dict[str, frozenset[str]] = {
    "efficientnet-lite0": frozenset(),
    "i3d": frozenset({"frames", "frame_rate"}),
    "tsm": frozenset({"frame_rate"}),
    "vjepa": frozenset({"frames", "levels", "grid", "hop"}),
    "hf": frozenset({"frame_rate", "hop"}),
    "custom": frozenset({"hop"}),
}
"""Family of backbones -> the settings that it leaves open."""


def load_backbone(config: ExtractionConfig, weights: Path | None, device: torch.device | str) -> Backbone:
    """The backbone that the settings name, with its weights, ready to be used.

    Args:
        weights: the file; None takes the one in the cache (`keystep weights`), or what comes with the backbone.

    Raises:
        InputError: an unknown name, weights that are missing or do not fit, a setting that the backbone does not leave
            open, a library that is not installed.
    """
    name, family = config.backbone, _family(config.backbone)
    for setting in ("frames", "frame_rate", "hop", "levels", "grid"):
        default = ExtractionConfig.model_fields[setting].default
        if setting not in CHOICES[family] and getattr(config, setting) != default:
            raise InputError(f"{setting} {getattr(config, setting)} is not for {name}; leave it out")
    if family in ("hf", "custom"):
        if weights is not None:
            raise InputError(f"{weights}: {name} brings its own weights; leave --weights out")
        from keystep.extract import custom

        if family == "custom":
            return custom.from_spec(name)
        return custom.from_transformers(name.removeprefix("hf:"), device=device, **_given(config, "frame_rate"))
    if family == "efficientnet-lite0":
        from keystep.extract import efficientnet

        return efficientnet.load(weights, device=device)
    path = weights or catalogue.find(name)
    if path is None:
        raise InputError(f"{name}: no weights here; 'keystep weights' says where they come from; give --weights FILE")
    if family == "i3d":
        from keystep.extract import i3d

        return i3d.load(path, device=device, **_given(config, "frames", "frame_rate"))
    if family == "tsm":
        from keystep.extract import tsm

        return tsm.load(path, device=device, **_given(config, "frame_rate"))
    from keystep.extract import vjepa

    options = _given(config, "frames")
    return vjepa.load(name, path, levels=config.levels, grid=config.grid, device=device, **options)


def _family(name: str) -> str:
    if name in ("efficientnet-lite0", "i3d", "tsm"):
        return name
    if name.startswith("vjepa"):
        return "vjepa"
    if name.startswith("hf:"):
        return "hf"
    if ":" in name:
        return "custom"
    known = ", ".join(dict.fromkeys(record.backbone for record in catalogue.CATALOGUE))
    raise InputError(f"no backbone {name!r}; there are {known}, hf:FOLDER_OR_ID, package.module:name")


def _given(config: ExtractionConfig, *names: str) -> dict[str, Any]:
    """Those of the settings that somebody set; the others are the backbone's own."""
    return {name: value for name in names if (value := getattr(config, name)) is not None}
