"""Times in settings: numbers, or texts with a unit such as ``8s`` and ``7.2tau``, which are settled before training.

Tau is the decorrelation time of the features (`keystep.data.clock`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from typing import Annotated

from pydantic import AfterValidator

_TEXT = re.compile(r"(-?\d+(?:\.\d*)?|-?\.\d+) ?(tau|s)")


def _checked(value: float | str) -> float | str:
    if isinstance(value, str) and not _TEXT.fullmatch(value):
        raise ValueError(f"{value!r} is no time; write a number, or one with a unit such as 7.2tau or 8s")
    return value


def _positive(value: int | str) -> int | str:
    if (value < 1) if isinstance(value, int) else (float(_TEXT.fullmatch(value)[1]) <= 0):  # type: ignore[index]
        raise ValueError(f"{value!r} is too short: a frame at least")
    return value


Offset = Annotated[float | str, AfterValidator(_checked)]
"""Seconds, or a text with its unit."""
Span = Annotated[int | str, AfterValidator(_checked), AfterValidator(_positive)]
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
