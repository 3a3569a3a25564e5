"""The console that everything is printed on."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from keystep.errors import plain


class Terminal(Console):
    """A rich console for foreign names: they are no markup, no emoji, and cannot steer the terminal."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does, with the control characters of texts replaced (rich's own controls are no texts)."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)


class PlainFormatter(logging.Formatter):
    """Log lines without control characters."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return plain(super().format(record))


def json_text(data: Any) -> str:
    """JSON on one line, with letters of all scripts as they are and controls escaped, so that it can be printed."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False)
    if plain(text) == text:
        return text
    return "".join(letter if plain(letter) == letter else f"\\u{ord(letter):04x}" for letter in text)


def clock(seconds: float) -> str:
    """``m:ss``, or ``h:mm:ss`` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
