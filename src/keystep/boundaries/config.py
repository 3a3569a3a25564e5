"""How boundaries are looked for; all lengths in seconds."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from keystep.config import Config

SourceName = Literal["features", "latents", "surprise"]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class SegmenterConfig(Config):
    """Settings of a segmenter."""

    source: SourceName = "features"
    """``features``: change points of the input (no model). ``latents``: change points of a model's causal latents.
    ``surprise``: rises of the distance between what a model expects of a frame and what it says when it sees it."""
    window: Seconds = 2.0
    """Compare the mean of so many seconds before a moment with that of so many after it."""
    shortest: Seconds = 2.0
    """Seconds between two boundaries, at least."""
    longest: Seconds | None = 60.0
    """End a segment after so many seconds whatever happens, so that a stream's delay has a bound; None: never."""
    quantile: float = Field(default=0.5, ge=0, lt=1)
    """Share of the local peaks on the training videos that are too low to be a boundary. The threshold lies midway
    between the lowest that is high enough and the next lower one."""
    per_minute: float | None = Field(default=None, gt=0)
    """Choose the threshold so that the training videos have so many peaks a minute instead."""
    span: Seconds = 2.0
    """surprise: seconds that are hidden at a time."""
    context: Seconds = 30.0
    """surprise: seconds before them that the model sees."""

    @model_validator(mode="after")
    def _longest_has_room(self) -> Self:
        if self.longest is not None and self.longest < self.window + self.shortest:
            raise ValueError(
                f"longest {self.longest:g} s leaves no room to choose: make it at least window + shortest, "
                f"{self.window + self.shortest:g} s"
            )
        return self


def slots(seconds: float, rate: Fraction) -> int:
    """The whole number of slots, 1 at least, nearest to so many seconds."""
    return max(1, round(Fraction(seconds) * rate))
