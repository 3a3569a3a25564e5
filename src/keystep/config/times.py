"""Times in settings: numbers, or texts with a unit such as ``8s`` and ``7.2tau``, which are settled before training.

Tau is the decorrelation time of the features (`keystep.data.clock`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Annotated

from pydantic import AfterValidator, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

_TEXT = re.compile(r"(-?\d{1,12}(?:\.\d{0,12})?|-?\.\d{1,12}) ?(tau|s)")


def _either(number: str) -> Callable[[object, ValidatorFunctionWrapHandler], float | str]:
    """Of a number and a text, one error instead of one for each of them."""

    def checked(value: object, handler: ValidatorFunctionWrapHandler) -> float | str:
        try:
            time: float | str = handler(value)
        except ValidationError:
            time = ""
        if isinstance(time, str) and not _TEXT.fullmatch(time):
            raise ValueError(f"Input should be a {number}, or a text with its unit such as 7.2tau or 8s")
        return time

    return checked


def _positive(value: int | str) -> int | str:
    if (value < 1) if isinstance(value, int) else (float(_TEXT.fullmatch(value)[1]) <= 0):  # type: ignore[index]
        raise ValueError("Input should be a frame at least")
    return value


Offset = Annotated[float | str, WrapValidator(_either("finite number of seconds"))]
"""Seconds, or a text with its unit."""
Span = Annotated[int | str, WrapValidator(_either("whole number of frames")), AfterValidator(_positive)]
"""A number of frames, or a text with its unit."""


def needs_tau(times: Iterable[float | str]) -> bool:
    """Whether any of them is in units of tau."""
    return any(isinstance(time, str) and time.endswith("tau") for time in times)


def seconds(time: float | str, tau: float | None) -> float:
    """An offset in seconds. tau: of the features, in seconds; may be None where `needs_tau` is not."""
    if not isinstance(time, str):
        return time
    found = _TEXT.fullmatch(time)
    assert found is not None, "checked when it was read"
    number, unit = float(found[1]), found[2]
    if unit == "s":
        return number
    assert tau is not None, "measured before anything is settled"
    return number * tau


def frames(time: int | str, tau: float | None, rate: float | Fraction) -> int:
    """A span in frames, one at least, at ``rate`` frames a second."""
    return max(1, round(seconds(time, tau) * float(rate))) if isinstance(time, str) else time


def settled_frames(time: int | str) -> int:
    """A span that has been settled already."""
    assert isinstance(time, int), f"{time} has to be settled first: RunConfig.settled"
    return time


def averaged_frames(width: float) -> int:
    """The odd number of frames nearest to a width in frames, one at least."""
    return max(1, 2 * round((width - 1) / 2) + 1)
