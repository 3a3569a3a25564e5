"""Feature extraction from video: exact decoding by presentation time, pretrained backbones, feature folders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keystep.extraction.run import Extracted, extract

__all__ = ["Extracted", "extract"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # lazy, so that extraction settings can be read without torch
        from keystep.extraction import run

        return getattr(run, name)
    raise AttributeError(f"module 'keystep.extraction' has no attribute {name!r}")
