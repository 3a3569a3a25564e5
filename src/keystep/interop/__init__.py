"""Other people's files, through adapters that the model code knows nothing of."""

from keystep.interop import official

__all__ = ["official"]
