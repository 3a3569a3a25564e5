"""From video to features: decoding by presentation time, pretrained backbones, folders with an exact timeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keystep.extraction.run import Extracted, extract

__all__ = ["Extracted", "extract"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # settings of extractions are read without torch
        from keystep.extraction import run

        return getattr(run, name)
    raise AttributeError(f"module 'keystep.extraction' has no attribute {name!r}")
