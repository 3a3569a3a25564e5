"""keystep: self-supervised, frame-aligned representations of long procedural videos (P-JEPA).

``PJEPA``, ``stream``, ``temporal``, ``export``, ``evals`` and ``interop`` load on first use, so that importing keystep
costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from keystep.errors import InputError

if TYPE_CHECKING:
    import keystep.evals as evals
    import keystep.export as export
    import keystep.interop as interop
    import keystep.stream as stream
    import keystep.temporal as temporal
    from keystep.pjepa import PJEPA

__version__ = "0.1.0"
__all__ = ["PJEPA", "InputError", "__version__", "evals", "export", "interop", "stream", "temporal"]


def __getattr__(name: str) -> Any:
    if name == "PJEPA":
        return import_module("keystep.pjepa").PJEPA
    if name in ("evals", "export", "interop", "stream", "temporal"):
        return import_module(f"keystep.{name}")
    raise AttributeError(f"module 'keystep' has no attribute {name!r}")
