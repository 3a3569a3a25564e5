"""Treatment of bad items among many: stop at the first, or skip and list them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, get_args

from keystep.errors import InputError
from keystep.types import OnError

Result = TypeVar("Result")

log = logging.getLogger(__name__)


@dataclass
class Problems:
    """Collects the bad items of a run.

    ``raise`` (the default everywhere) stops at the first one; ``skip`` leaves the item out and records the reason.

    Raises:
        InputError: ``on_error`` is neither.
    """

    on_error: OnError | str = "raise"
    skipped: dict[str, str] = field(default_factory=dict)
    """Name of each item that was left out -> the reason, one line."""
    notes: list[str] = field(default_factory=list)
    """Warnings about accepted items, such as lengths that differ within the tolerance."""

    def __post_init__(self) -> None:
        if self.on_error not in get_args(OnError):
            raise InputError(f"unknown --on-error {self.on_error!r}; expected one of {', '.join(get_args(OnError))}")

    def attempt(self, name: str, work: Callable[[], Result]) -> Result | None:
        """Run ``work`` for an item.

        Args:
            name: of the item.
            work: a function without arguments.

        Returns:
            Its result. None: it raised `InputError` and the item was skipped.

        Raises:
            InputError: from ``work``, unless items are skipped.
        """
        try:
            return work()
        except InputError as error:
            if self.on_error == "raise":
                raise
            self.skipped[name] = str(error)
            log.warning("left out: %s", error)
            return None
