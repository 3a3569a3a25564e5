"""Adapters for external file formats, on which the model code does not depend."""

from keystep.interop import official

__all__ = ["official"]
