"""Loading of extractors by name."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from keystep.errors import InputError
from keystep.extraction.backbone import Backbone
from keystep.extraction.backbones import catalogue
from keystep.extraction.config import ExtractionConfig
from keystep.extraction.extractor import ClipExtractor, Extractor, OnlineExtractor
from keystep.extraction.sampling import Sampling
from keystep.plugins import BACKBONES, SPEC, allowed

CHOICES: dict[str, frozenset[str]] = {
    "efficientnet-lite0": frozenset(),
    "i3d": frozenset({"frames", "frame_rate"}),
    "tsm": frozenset({"frames", "frame_rate", "shift"}),
    "tsm-online": frozenset(),
    "vjepa": frozenset({"frames", "levels", "grid", "hop", "precision"}),
    "hf": frozenset({"hop"}),
    "custom": frozenset({"hop"}),
}
"""Family of backbones -> its own settings."""


def load_extractor(config: ExtractionConfig, weights: Path | None, device: torch.device | str) -> Extractor:
    """Load a backbone with its weights as an extractor.

    Args:
        config: name of the backbone, and settings.
        weights: file of weights; None: the one in the cache (`keystep weights`), or part of the backbone.
        device: to compute on.

    Raises:
        InputError: an unknown name, missing or other weights, a setting that the backbone does not have, or a library
            that is not installed.
    """
    name, family = config.backbone, _family(config.backbone)
    for setting in ("frames", "frame_rate", "hop", "levels", "grid", "precision", "shift"):
        default = ExtractionConfig.model_fields[setting].default
        if setting not in CHOICES[family] and getattr(config, setting) != default:
            raise InputError(f"{setting} {getattr(config, setting)}: {name} has no such setting; omit it")
    hold = None if config.longest_hold is None else Fraction(config.longest_hold)
    if family == "tsm-online":
        if config.window != "right":
            raise InputError(f"{name} has no look-ahead; use --window right")
        from keystep.extraction.backbones import tsm

        return OnlineExtractor(tsm.load_online(_file("tsm", weights), device), config.rate, hold)
    backbone = _backbone(config, family, weights, device)
    sampling = Sampling(
        rate=config.rate,
        clip=backbone.clip,
        window=config.window,
        hop=config.hop,
        longest_hold=hold,
    )
    return ClipExtractor(backbone, sampling)


def is_foreign(name: str) -> bool:
    """Whether loading a backbone of that name runs or downloads third-party code that the user has not named."""
    return name.startswith("hf:") or (SPEC.fullmatch(name) is not None and name not in allowed())


def _backbone(config: ExtractionConfig, family: str, weights: Path | None, device: torch.device | str) -> Backbone:
    name = config.backbone
    if family in ("hf", "custom"):
        if weights is not None:
            raise InputError(f"{weights}: {name} has its own weights; omit --weights")
        from keystep.extraction.backbones import custom, hub

        if family == "custom":
            return custom.from_name(name, device)
        return hub.from_transformers(name.removeprefix("hf:"), device)
    if family == "efficientnet-lite0":
        from keystep.extraction.backbones import efficientnet

        return efficientnet.load(weights, device)
    path = _file(name, weights)
    if family == "i3d":
        from keystep.extraction.backbones import i3d

        return i3d.load(path, device=device, **_given(config, "frames", "frame_rate"))
    if family == "tsm":
        from keystep.extraction.backbones import tsm

        choices = _given(config, "frames", "frame_rate")
        if config.shift == "none":
            if choices:
                raise InputError(f"{', '.join(choices)}: without shift, {name} takes single pictures; omit it")
            return tsm.load_unshifted(path, device)
        return tsm.load(path, device, **choices)
    from keystep.extraction.backbones import vjepa

    options = _given(config, "frames")
    dtype = torch.bfloat16 if config.precision == "bfloat16" else torch.float32
    return vjepa.load(name, path, levels=config.levels, grid=config.grid, device=device, dtype=dtype, **options)


def _family(name: str) -> str:
    if name.startswith("hf:"):
        return "hf"
    if name in BACKBONES.own:
        return name if name in CHOICES else "vjepa"
    BACKBONES.check(name, ["hf:FOLDER_OR_ID"])
    return "custom"


def _file(name: str, weights: Path | None) -> Path:
    path = weights or catalogue.find(name)
    if path is None:
        raise InputError(f"{name}: no weights found; 'keystep weights' lists their sources; use --weights FILE")
    return path


def _given(config: ExtractionConfig, *names: str) -> dict[str, Any]:
    """The settings that are not None; the others have the defaults of the backbone."""
    return {name: value for name in names if (value := getattr(config, name)) is not None}
