"""Create heads from settings, and load them from disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from pydantic import Field, model_validator

from keystep.config.base import build, config_of
from keystep.config.model import MOST_INPUTS
from keystep.errors import InputError, quoted
from keystep.heads.config import MOST_CLASSES, PRESETS, HeadConfig
from keystep.heads.head import FORMAT, FORMAT_VERSION, Head
from keystep.persistence import check_format, check_size, load_strict, load_tensors, read_metadata
from keystep.plugins import HEADS
from keystep.reading import Record, checked, parse_json


class _HeadRecord(Record):
    """Schema of the header of a head's file, see `Head.save`."""

    config: dict[str, Any]
    width: Annotated[int, Field(ge=1, le=MOST_INPUTS)]
    classes: Annotated[int, Field(ge=1, le=MOST_CLASSES)]
    names: list[str]
    origin: dict[str, str]

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        if len(self.names) not in (0, self.classes):
            raise ValueError(f"{len(self.names)} names for {self.classes} classes")
        return self


def head_config(preset: str, settings: Mapping[str, Any] | None = None) -> HeadConfig:
    """Create the settings of a head.

    Args:
        preset: a name in `PRESETS`, or a head from outside (``package.module:Name`` or an entry point).
        settings: settings that replace those of the preset.

    Raises:
        InputError: unknown head or setting, or an invalid value.
    """
    check_head_name(preset)
    beginning = PRESETS.get(preset, {"kind": preset})
    config = build(config_of(HEADS.find(beginning["kind"]), HeadConfig), beginning, settings or {})
    if config.kind != beginning["kind"]:
        raise InputError(f"kind {quoted(config.kind)} is not a setting of head {preset}; ask for that head")
    return config


def build_head(config: HeadConfig, width: int, classes: int, seed: int | None = None) -> Head:
    """Create an untrained head.

    Args:
        config: its settings (`head_config`).
        width: width D of the features.
        classes: number of classes C.
        seed: of the initial weights. None: torch's global generator.

    Raises:
        InputError: unknown head, or settings that do not fit the classes.
    """
    if seed is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_head(config, width, classes)
    head: Head = HEADS.find(config.kind)(config, width, classes)
    return head


def check_head_name(name: str) -> None:
    """Raise InputError if a name is neither a preset nor a head; see `keystep.plugins.Registry.check`."""
    if name not in PRESETS:
        HEADS.check(name, PRESETS)


def load_head(path: Path | str) -> Head:
    """Load a head that `Head.save` wrote.

    Args:
        path: a safetensors file.

    Returns:
        The head, in eval mode, on the CPU.

    Raises:
        InputError: a missing or damaged file, another format or version, weights that do not fit, or a head from
            outside that only the file names (see `keystep.plugins`).
    """
    path = Path(path)
    header = read_metadata(path)
    check_format(path, header, FORMAT, FORMAT_VERSION, "a head that keystep wrote")
    try:
        record = checked(_HeadRecord, parse_json(header.get("head", "null")), "head")
        kind = record.config.get("kind")
        if not isinstance(kind, str):
            raise InputError(f"kind is {quoted(kind)}")
    except ValueError as error:
        raise InputError(f"{path}: its record is damaged: {error}") from error
    try:
        found = HEADS.find(kind)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    try:
        config = build(config_of(found, HeadConfig), record.config)
    except InputError as error:
        raise InputError(f"{path}: its record is damaged: {error}") from error
    check_size(lambda: build_head(config, record.width, record.classes), path)
    head = build_head(config, record.width, record.classes)
    head.names, head.origin = tuple(record.names), record.origin
    load_strict(head, load_tensors(path), str(path))
    return head.eval()
