"""Extraction settings: everything that has to be equal for features to be comparable."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from keystep.config import Config
from keystep.extraction.sampling import Window
from keystep.types import Rate, parse_rate

HIGHEST_RATE = 1000
"""Feature vectors, or pictures in a clip, per second; more than any recording of procedures has."""


class ExtractionConfig(Config):
    """Settings of ``keystep extract``, recorded in the ``store.json`` of the folder that it writes."""

    backbone: str = "efficientnet-lite0"
    """Name listed by ``keystep plugins``, ``hf:FOLDER_OR_ID`` for a model of transformers, or ``package.module:name``
    for your own."""
    rate: Rate = parse_rate(4)
    """Feature vectors per second."""
    window: Window = "center"
    """Clip position: ``center`` (around the time of the slot) or ``right`` (ends there, as live streams need)."""
    frames: int | None = Field(default=None, ge=1)
    """Pictures per clip, if the backbone allows a choice."""
    frame_rate: Rate | None = None
    """Pictures per second within a clip, if the backbone allows a choice."""
    hop: int | None = Field(default=None, ge=1)
    """Slots kept per clip (V-JEPA, window center); fewer have more context and cost more. Default: half of them."""
    levels: Literal["last", "all"] = "last"
    """V-JEPA 2.1: tokens of the last level, or of four levels, concatenated."""
    grid: int = Field(default=1, ge=1)
    """V-JEPA: average the patches of a slot to grid x grid tokens instead of one. ``keystep pool``, or a model with
    ``model.tokens``, pools them to one."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """V-JEPA: precision of the network; bfloat16 is for GPUs."""
    shift: Literal["both", "none"] = "both"
    """TSM: ``none`` disables the temporal shift, so that a vector depends on one picture, as in the published features
    of Assembly101."""
    longest_hold: float | None = Field(default=60.0, gt=0, allow_inf_nan=False)
    """Longest time that a single picture is shown, in seconds. Later slots, as in the gaps of a recording, are omitted
    with a note; null: no limit."""
    clock_jump: float | None = Field(default=10.0, gt=0, allow_inf_nan=False)
    """MPEG-TS: a clock that advances by more than this many seconds between two frames has jumped: the video continues
    without a gap, and a note says so. null: it is a gap."""
    half: bool = False
    """Store float16."""

    @property
    def jump(self) -> Fraction | None:
        """``clock_jump`` in exact seconds."""
        return None if self.clock_jump is None else Fraction(self.clock_jump)

    @field_validator("rate", "frame_rate")
    @classmethod
    def _plausible(cls, rate: Fraction | None) -> Fraction | None:
        if rate is not None and rate > HIGHEST_RATE:
            raise ValueError(f"{float(rate):g} Hz; at most {HIGHEST_RATE}")
        return rate

    @field_validator("backbone")
    @classmethod
    def _from_anywhere(cls, name: str) -> str:
        """Make the path of a folder absolute, so that the record does not depend on the working folder."""
        folder = Path(name.removeprefix("hf:"))
        return f"hf:{folder.resolve()}" if name.startswith("hf:") and folder.is_dir() else name
