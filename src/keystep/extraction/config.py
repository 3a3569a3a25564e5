"""How features are made of a video: everything that has to be the same for two features to be comparable."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from keystep.config import Config
from keystep.extraction.sampling import Window
from keystep.types import Rate, parse_rate


class ExtractionConfig(Config):
    """Settings of ``keystep extract``; they stand in the ``store.json`` of the folder that it writes."""

    backbone: str = "efficientnet-lite0"
    """A name that ``keystep plugins`` lists, ``hf:FOLDER_OR_ID`` for a model of transformers, or a backbone of your
    own, ``package.module:name``."""
    rate: Rate = parse_rate(4)
    """Feature vectors a second."""
    window: Window = "center"
    """``center``: a slot sees the clip around its moment; ``right``: only what was shown up to it, as a live stream
    does."""
    frames: int | None = Field(default=None, ge=1)
    """Pictures a clip, where the backbone leaves a choice."""
    frame_rate: Rate | None = None
    """Pictures a second within a clip, where the backbone leaves a choice."""
    hop: int | None = Field(default=None, ge=1)
    """Slots kept of a clip of several (V-JEPA, window center): fewer see more and cost more. By default half."""
    levels: Literal["last", "all"] = "last"
    """V-JEPA 2.1: the last level's tokens, or those of four levels side by side."""
    grid: int = Field(default=1, ge=1)
    """V-JEPA: average the patches of a slot to grid x grid tokens instead of one; ``keystep pool`` or a model with
    ``model.tokens`` makes one of them."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """V-JEPA: the precision it computes in; bfloat16 for GPUs."""
    shift: Literal["both", "none"] = "both"
    """TSM: ``none`` leaves the shift out, so that a vector sees one picture, as Assembly101's published features."""
    longest_hold: float | None = Field(default=60.0, gt=0, allow_inf_nan=False)
    """Seconds for which one picture is taken to be shown. Slots beyond it, as a hole in a recording makes them, are
    left out, and a note says so; null: none are, however long no other picture comes."""
    half: bool = False
    """Store float16."""

    @field_validator("backbone")
    @classmethod
    def _from_anywhere(cls, name: str) -> str:
        """A folder's whole path, so that the record means the same from another working folder."""
        folder = Path(name.removeprefix("hf:"))
        return f"hf:{folder.resolve()}" if name.startswith("hf:") and folder.is_dir() else name
