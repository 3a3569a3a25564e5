"""Exact conversion between slots and seconds, and the interval of video that a slot was computed from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor
from typing import Literal, get_args

from keystep.errors import InputError, quoted
from keystep.types import exact, parse_rate

Alignment = Literal["center", "right", "left"]


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The moments of the slots of a feature array, and the interval of video that each was computed from.

    Slot ``i`` is at ``start + i / rate`` seconds of the video and was computed from ``window`` seconds around it
    (``center``), before it (``right``, no look-ahead) or after it (``left``). All numbers are fractions, so that rates
    such as 30000/1001 Hz are exact and rounding errors do not accumulate.

    Attributes:
        rate: slots per second, in Hz.
        start: seconds of the first slot.
        window: seconds of video per slot. None: 1 / rate.
        alignment: position of the moment within the window.

    Raises:
        InputError: a rate that is not positive, a negative window, or an unknown alignment.
    """

    rate: Fraction
    start: Fraction = Fraction(0)
    window: Fraction | None = None
    alignment: Alignment = "center"

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise InputError(f"a timeline needs a rate above 0 Hz, not {self.rate}")
        if self.window is not None and self.window < 0:
            raise InputError(f"a timeline's window cannot be negative: {self.window} s")
        if self.alignment not in get_args(Alignment):
            raise InputError(
                f"unknown alignment {quoted(self.alignment)}; expected one of {', '.join(get_args(Alignment))}"
            )

    @property
    def span(self) -> Fraction:
        """Seconds of video that a slot was computed from."""
        return 1 / self.rate if self.window is None else self.window

    @property
    def look_ahead(self) -> Fraction:
        """Seconds of video after its moment that a slot needs."""
        return {"center": self.span / 2, "right": Fraction(0), "left": self.span}[self.alignment]

    def seconds(self, index: int) -> Fraction:
        """The moment of slot ``index`` in seconds."""
        return self.start + index / self.rate

    def index(self, seconds: Fraction | float) -> int:
        """The slot nearest to ``seconds`` (the later one on ties); may be outside of the array."""
        return floor((Fraction(seconds) - self.start) * self.rate + Fraction(1, 2))

    def pooled(self, factor: int) -> Timeline:
        """The timeline of non-overlapping groups of ``factor`` slots.

        The moment of a group is its middle (``center``), its last slot (``right``) or its first slot (``left``); its
        window covers those of all its slots.

        Raises:
            InputError: a factor below 1.
        """
        if factor < 1:
            raise InputError(f"slots are pooled by a factor of at least 1, not {factor}")
        stretch = (factor - 1) / self.rate
        shift = {"center": stretch / 2, "right": stretch, "left": Fraction(0)}[self.alignment]
        return replace(self, rate=self.rate / factor, start=self.start + shift, window=self.span + stretch)

    def pool_factor(self, rate: Fraction) -> int:
        """The number of slots that are pooled to one at ``rate`` Hz.

        Raises:
            InputError: the rate is not positive, or the ratio is not a whole number.
        """
        if rate <= 0:
            raise InputError(f"features cannot be pooled to {rate} Hz; a rate is above 0")
        factor = self.rate / rate
        if factor.denominator != 1:
            below = self.rate / (int(factor) + 1)
            raise InputError(
                f"features at {float(self.rate):g} Hz cannot be pooled to {float(rate):g} Hz: the ratio must be "
                f"a whole number (for example {float(below):g} Hz)"
            )
        return int(factor)

    def to_json(self) -> dict[str, str]:
        """The timeline as strings, with fractions such as ``"30000/1001"``."""
        return {
            "rate": str(self.rate),
            "start": str(self.start),
            "window": str(self.span),
            "alignment": self.alignment,
        }

    @classmethod
    def from_json(cls, data: dict[str, str]) -> Timeline:
        """Inverse of `to_json`; only ``rate`` is required.

        Raises:
            InputError: an unknown key, no rate, or an invalid value.
        """
        if not isinstance(data, dict):
            raise InputError(f"timeline {quoted(data)} is not an object with a rate")
        unknown = sorted(quoted(key) for key in set(data) - {"rate", "start", "window", "alignment"})
        if unknown or "rate" not in data:
            raise InputError(f"timeline with {f'unknown key {unknown[0]}' if unknown else 'no rate'}: {quoted(data)}")
        try:
            return cls(
                rate=parse_rate(data["rate"]),
                start=exact(data.get("start", "0")),
                window=exact(data["window"]) if "window" in data else None,
                alignment=data.get("alignment", "center"),  # type: ignore[arg-type]  # checked on construction
            )
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise InputError(f"unreadable timeline {quoted(data)}: {error}") from error
