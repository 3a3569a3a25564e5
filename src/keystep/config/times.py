"""Durations in settings: numbers, or text with a unit such as ``8s`` or ``7.2tau``.

Tau is the decorrelation time of the features (`keystep.data.time_scale`). Text is resolved to seconds or frames before
training (`RunConfig.settled`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Annotated

from pydantic import AfterValidator, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

_TEXT = re.compile(r"(-?\d{1,12}(?:\.\d{0,12})?|-?\.\d{1,12}) ?(tau|s)")


def _either(number: str) -> Callable[[object, ValidatorFunctionWrapHandler], float | str]:
    """Report one error for the union of number and text, instead of one for each alternative."""

    def checked(value: object, handler: ValidatorFunctionWrapHandler) -> float | str:
        try:
            time: float | str = handler(value)
        except ValidationError:
            time = ""
        if isinstance(time, str) and not _TEXT.fullmatch(time):
            raise ValueError(f"Input should be a {number}, or text with a unit such as 7.2tau or 8s")
        return time

    return checked


def _positive(value: int | str) -> int | str:
    if (value < 1) if isinstance(value, int) else (float(_TEXT.fullmatch(value)[1]) <= 0):  # type: ignore[index]
        raise ValueError("Input should be at least one frame")
    return value


Offset = Annotated[float | str, WrapValidator(_either("finite number of seconds"))]
"""A signed time in seconds, or text with a unit."""
Span = Annotated[int | str, WrapValidator(_either("whole number of frames")), AfterValidator(_positive)]
"""A positive number of frames, or text with a unit."""


def needs_tau(times: Iterable[float | str]) -> bool:
    """Return whether any time is in units of tau."""
    return any(isinstance(time, str) and time.endswith("tau") for time in times)


def seconds(time: float | str, tau: float | None) -> float:
    """Convert an offset to seconds.

    Args:
        time: seconds, or text with a unit.
        tau: decorrelation time of the features in seconds; may be None if `needs_tau` is False for ``time``.
    """
    if not isinstance(time, str):
        return time
    found = _TEXT.fullmatch(time)
    assert found is not None, "validated by the config"
    number, unit = float(found[1]), found[2]
    if unit == "s":
        return number
    assert tau is not None, "tau must be measured first"
    return number * tau


def frames(time: int | str, tau: float | None, rate: float | Fraction) -> int:
    """Convert a span to a number of frames, at least one, at ``rate`` frames per second."""
    return max(1, round(seconds(time, tau) * float(rate))) if isinstance(time, str) else time


def settled_frames(time: int | str) -> int:
    """Return a span that has already been resolved to frames."""
    assert isinstance(time, int), f"{time} is not in frames; call RunConfig.settled first"
    return time


def averaged_frames(width: float) -> int:
    """Return the odd number of frames nearest to a width in frames, at least one."""
    return max(1, 2 * round((width - 1) / 2) + 1)
