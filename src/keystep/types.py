"""Values that settings, data and the command line share."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer

from keystep.errors import InputError, quoted

OnError = Literal["raise", "skip"]
"""What to do about a bad video: stop at the first one, or leave it out and list it."""
AnyRate = str | float | Fraction
"""A rate in Hz as users give it: 30, 3.75, "30000/1001"."""


_EXACT = re.compile(r"\s*[+-]?(\d{1,30}/\d{1,30}|(\d{1,30}(\.\d{0,30})?|\.\d{1,30})(e[+-]?\d{1,3})?)\s*", re.IGNORECASE)


def exact(text: AnyRate) -> Fraction:
    """A number as it is written, such as 3.75, "30000/1001" or 1e-3.

    Raises:
        ValueError: none, or one with so many digits that exact arithmetic would take forever.
    """
    written = str(text)
    if _EXACT.fullmatch(written) is None:
        raise ValueError(f"{quoted(text)} is no number")
    found = Fraction(written)
    try:
        float(found)
    except OverflowError as error:
        raise ValueError(f"{quoted(text)} is too large") from error
    return found


def parse_rate(text: AnyRate) -> Fraction:
    """``"30"``, ``"29.97"`` or ``"30000/1001"`` as an exact number of slots a second.

    Raises:
        InputError: not a number above 0.
    """
    try:
        rate = exact(text)
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"{quoted(text)} is no rate in Hz; write 30, 3.75 or 30000/1001") from error
    if rate <= 0:
        raise InputError(f"a rate must be above 0 Hz, not {text}")
    return rate


Rate = Annotated[Fraction, BeforeValidator(parse_rate), PlainSerializer(str)]
"""A rate in settings: an exact fraction, written as text."""


class Tabular(ABC):
    """A result that can be read as a table."""

    @abstractmethod
    def to_records(self) -> list[dict[str, Any]]:
        """One flat dict a row."""

    def to_dataframe(self) -> Any:
        """`to_records` as a pandas DataFrame, where pandas is installed.

        Raises:
            InputError: it is not.
        """
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise InputError("to_dataframe needs pandas: pip install pandas; or take to_records()") from error
        return DataFrame.from_records(self.to_records())
