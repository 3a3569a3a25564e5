"""Values that settings, data and the command line share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer

from keystep.errors import InputError

OnError = Literal["raise", "skip"]
"""What to do about a bad video: stop at the first one, or leave it out and list it."""
AnyRate = str | float | Fraction
"""A rate in Hz as users give it: 30, 3.75, "30000/1001"."""


def parse_rate(text: AnyRate) -> Fraction:
    """``"30"``, ``"29.97"`` or ``"30000/1001"`` as an exact number of slots a second.

    Raises:
        InputError: not a number above 0.
    """
    try:
        rate = Fraction(str(text))
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"{text!r} is no rate in Hz; write 30, 3.75 or 30000/1001") from error
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
