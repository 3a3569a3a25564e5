"""What to do about one bad item among many: stop at once, or go on and list it."""

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

    ``raise`` (the default everywhere) stops at the first one; ``skip`` leaves the item out and remembers the line
    that says why, so that nothing disappears without a trace.
    """

    on_error: OnError | str = "raise"
    skipped: dict[str, str] = field(default_factory=dict)
    """Name of each item left out -> the line that says why."""
    notes: list[str] = field(default_factory=list)
    """What was accepted though it deserves a look, such as lengths that differ within the tolerance."""

    def __post_init__(self) -> None:
        if self.on_error not in get_args(OnError):
            raise InputError(f"--on-error {self.on_error!r} is none of {', '.join(get_args(OnError))}")

    def attempt(self, name: str, work: Callable[[], Result]) -> Result | None:
        """Run ``work`` for the item ``name``; under ``skip`` an `InputError` is remembered and the result None."""
        try:
            return work()
        except InputError as error:
            if self.on_error == "raise":
                raise
            self.skipped[name] = str(error)
            log.warning("left out: %s", error)
            return None
